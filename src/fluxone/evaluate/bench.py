"""What suites are measured with: a model that draws prompts and remembers, the judge, and the size of the sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fluxone import pixels as px
from fluxone import storybook
from fluxone.evaluate.judge import Seen, Sees
from fluxone.geometry import Resolution
from fluxone.nn.tokens import pack
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from fluxone.storybook import Scene, World

Read = Callable[[Image.Image], str]


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
        read: an OCR that reads signs besides the judge's own reader, if there is one.
        tell: called with what is being done, before it is.
    """

    pipeline: Pipeline
    world: World
    judge: Sees
    prompts: int = 24
    seeds: int = 2
    steps: int | None = None
    read: Read | None = None
    tell: Callable[[str], None] = lambda line: None
    drawn: dict[tuple[str, int, int], Drawing] = field(default_factory=dict, repr=False)

    @property
    def usual(self) -> int:
        """The steps of a picture where a suite asks for no other number."""
        return self.steps or self.pipeline.variant.steps

    @property
    def size(self) -> int:
        """Width and height of the model's pictures, px."""
        return self.pipeline.variant.size

    def draw(self, prompt: str, seed: int, steps: int | None = None) -> Drawing:
        """The model's picture, drawn once."""
        key = (prompt, seed, steps or self.usual)
        if key not in self.drawn:
            self.drawn[key] = self._draw(*key)
        return self.drawn[key]

    def _draw(self, prompt: str, seed: int, steps: int) -> Drawing:
        asked = Request(prompt=prompt, seed=seed, steps=steps, resolution=Resolution(height=self.size, width=self.size))
        request = self.pipeline.resolve(asked)
        job = self.pipeline.prepare(request)
        points = [job.x.cpu()]
        for step in self.pipeline.walk(job):
            points.append(step.x.cpu())
        picture = px.unit(self.pipeline.decode(points[-1], job.grid))
        return Drawing(image=px.to_images(picture)[0], bend=bend(points, job.sigmas))

    def look(self, images: Sequence[Image.Image]) -> list[Seen]:
        """What the judge sees on pictures."""
        return self.judge.look(list(images))

    def truth(self, scene: Scene) -> Image.Image:
        """The scene as the renderer draws it, at the model's size."""
        return Image.fromarray(storybook.render(scene, self.size))

    def rebuilt(self, image: Image.Image) -> Image.Image:
        """A picture through the model's autoencoder: the best that the model could draw."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        latent = self.pipeline.encode_pixels(pixels, None, posterior=False)
        rows, columns = latent.shape[2] // 2, latent.shape[3] // 2
        return px.to_images(px.unit(self.pipeline.decode(pack(latent), (rows, columns))))[0]


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
