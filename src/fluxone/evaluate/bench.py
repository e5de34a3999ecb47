"""What suites are measured with: a model that draws prompts and remembers, the judge, and the size of the sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fluxone import pixels as px
from fluxone.evaluate.given import Prompt, request, shown
from fluxone.evaluate.judge import Seen, Sees
from fluxone.job import Job, stack
from fluxone.nn.tokens import pack
from fluxone.pipeline import Pipeline
from fluxone.storybook import Scene, World

BATCH = 8  # pictures that are drawn together
Read = Callable[[Image.Image], str]
Ask = tuple[Prompt, int, int, str | None]  # a prompt, a seed, a number of steps, a sampler


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A finished picture, and how far its walk was from a straight line: 0 straight, 1 as far as it is long."""

    image: Image.Image
    bend: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model and how it is asked.

    Attributes:
        steps: of a picture; None is the model's own number.
        guidance, sampler: of every picture; None is the model's own.
        read: an OCR that reads signs besides the judge's own reader, if there is one.
        tell: called with what is being done, before it is.
        batch: pictures that are drawn together.
    """

    pipeline: Pipeline
    world: World
    judge: Sees
    prompts: int = 24
    seeds: int = 2
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    read: Read | None = None
    tell: Callable[[str], None] = lambda line: None
    batch: int = BATCH
    drawn: dict[Ask, Drawing] = field(default_factory=dict, repr=False)

    @property
    def usual(self) -> int:
        """The steps of a picture where a suite asks for no other number."""
        return self.steps or self.pipeline.variant.steps

    @property
    def size(self) -> int:
        """Width and height of the model's pictures, px."""
        return self.pipeline.variant.size

    def draw(self, prompts: Sequence[Prompt], seeds: int, steps: int | None = None) -> list[list[Drawing]]:
        """The model's pictures of each prompt, one a seed; each is drawn once, and several together."""
        asks = [[(prompt, seed, steps or self.usual, self.sampler) for seed in range(seeds)] for prompt in prompts]
        absent = iter(dict.fromkeys(ask for row in asks for ask in row if ask not in self.drawn))
        while some := list(islice(absent, self.batch)):
            self.drawn.update(zip(some, self._draw(some), strict=True))
        return [[self.drawn[ask] for ask in row] for row in asks]

    def _draw(self, asks: Sequence[Ask]) -> list[Drawing]:
        jobs = [self._job(*ask) for ask in asks]
        return [drawing for some in _together(jobs) for drawing in self._walk(some)]

    def _job(self, prompt: Prompt, seed: int, steps: int, sampler: str | None) -> Job:
        asked = request(prompt, seed=seed, steps=steps, size=self.size, guidance=self.guidance)
        return self.pipeline.prepare(self.pipeline.resolve(replace(asked, sampler=sampler)))

    def _walk(self, job: Job) -> list[Drawing]:
        points = [job.x.cpu()]
        for step in self.pipeline.walk(job):
            points.append(step.x.cpu())
        images = px.to_images(px.unit(self.pipeline.decode(points[-1], job.grid)))
        return [
            Drawing(image=image, bend=bend([point[i : i + 1] for point in points], job.sigmas))
            for i, image in enumerate(images)
        ]

    def look(self, images: Sequence[Image.Image]) -> list[Seen]:
        """What the judge sees on pictures."""
        return self.judge.look(list(images))

    def truth(self, scene: Scene) -> Image.Image:
        """The scene as the renderer draws it, at the model's size."""
        return shown(scene, "rgb", self.size)

    def rebuilt(self, image: Image.Image) -> Image.Image:
        """A picture through the model's autoencoder: the best that the model could draw."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        latent = self.pipeline.encode_pixels(pixels, None, posterior=False)
        rows, columns = latent.shape[2] // 2, latent.shape[3] // 2
        return px.to_images(px.unit(self.pipeline.decode(pack(latent), (rows, columns))))[0]


def _together(jobs: Sequence[Job]) -> Iterable[Job]:
    """The jobs in one batch, or one by one where a mask is kept by hand."""
    return jobs if any(job.keep is not None for job in jobs) else [stack(jobs)]


def bend(points: Sequence[Float[Tensor, "B L C"]], sigmas: Sequence[float]) -> float:
    """How far the velocities of a walk are from its mean one, relative to it, squared and averaged over the levels.

    0 is a straight line, which one step walks as well as many.
    Source: Liu, Gong, Liu 2022, "Flow straight and fast", section 2.2, over the squared length.
    """
    whole = (points[0] - points[-1]) / (sigmas[0] - sigmas[-1])
    spans = [here - there for here, there in pairwise(sigmas)]
    off = [
        span * float(((a - b) / span - whole).square().mean())
        for (a, b), span in zip(pairwise(points), spans, strict=True)
    ]
    return sum(off) / (sum(spans) * float(whole.square().mean()))
