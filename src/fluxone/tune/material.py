"""Examples in their buckets, and the batch of each step as tensors.

    step --Order--> examples --cache--> x, txt, pooled, channels, reference, weights          (all of one bucket)

What a sample is drawn with depends on (seed, step, place in the batch) alone: neither on how the batch is cut into
parts, nor on how many processes share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fluxone.conditions.fill import mask_tokens
from fluxone.conditions.reference import LAYOUT, laid_out, size_for
from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.nn import tokens
from fluxone.nn.tokens import image_ids
from fluxone.pipeline import Pipeline
from fluxone.tune.buckets import Grid, Order, grid_for, stream
from fluxone.tune.cache import Cache
from fluxone.tune.folder import Example, names_of
from fluxone.tune.settings import Settings
from fluxone.tune.sigmas import LAWS, shares
from fluxone.tune.views import WHOLE, View, views
from fluxone.variants import Kind


@dataclass(frozen=True, kw_only=True)
class Item:
    """An example and the sizes that it is brought to."""

    example: Example
    grid: Grid
    references: tuple[Grid, ...] = ()
    repainted: bool = False

    @property
    def bucket(self) -> tuple[object, ...]:
        """Items of one bucket can stand in one batch."""
        return (self.grid, self.references, self.example.mask is not None)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one bucket.

    Attributes:
        x, noise: packed latents (B L C), float32.
        sigma: (B,)
        prompts: as they are told to the network: some are dropped.
        txt, pooled: the prompts, encoded.
        ids: positions of the picture's tokens, and of the references' after them.
        channels, reference: see `nn.inputs.Inputs`.
        weight: (B L 1), 1 on average; None is 1 throughout.
        names: files, for messages.
    """

    x: Tensor
    noise: Tensor
    sigma: Tensor
    prompts: tuple[str, ...]
    txt: Tensor
    pooled: Tensor
    ids: Tensor
    channels: Tensor | None = None
    reference: Tensor | None = None
    weight: Tensor | None = None
    names: tuple[str, ...] = ()

    @property
    def state(self) -> Tensor:
        """The noised latents."""
        return torch.lerp(self.x, self.noise, self.sigma[:, None, None])

    @property
    def target(self) -> Tensor:
        """The velocity from picture to noise."""
        return self.noise - self.x

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


class Material:
    """The items of a run and their batches.

    Args:
        name: what is learnt, or several with commas: what stays of a bare caption.

    Raises:
        BadRequest: the model needs masks or references that some examples lack.
    """

    def __init__(
        self, pipeline: Pipeline, cache: Cache, settings: Settings, examples: Sequence[Example], name: str = ""
    ) -> None:
        self.pipeline, self.cache, self.settings = pipeline, cache, settings
        self.size = settings.size or pipeline.variant.size
        self.items = [self._item(example) for example in examples]
        self.bare = {example.text: _bare(example.text, name) for example in examples}
        self.views = views(settings.crops)
        self.order = Order.of([item.bucket for item in self.items], settings.batch, settings.seed)

    def prepare(self, prompts: Sequence[str] = ()) -> None:
        """Encode everything once, so that the encoders are not needed any more."""
        for prompt in dict.fromkeys(["", *prompts, *self.bare, *self.bare.values()]):
            self.cache.text(prompt)
        for item in self.items:
            self._given(item)
            for view in self.views if _may_move(item) else (WHOLE,):
                self._x(item, view)

    def batch(self, step: int, places: slice) -> Batch:
        """These places of a step's batch."""
        settings = self.settings
        numbers = self.order.at(step)
        count = len(numbers)
        level = shares(count, stream(settings.seed, "sigma", step))
        luck = torch.rand(count, generator=stream(settings.seed, "drop", step)).tolist()
        alone = bool(torch.rand((), generator=stream(settings.seed, "references", step)) < settings.drop_references)
        items = [self.items[i] for i in numbers[places]]
        placed = list(zip(range(count)[places], items, strict=True))
        seen = torch.randint(len(self.views), (count,), generator=stream(settings.seed, "view", step)).tolist()
        looked = [self.views[seen[place]] if _may_move(item) else WHOLE for place, item in placed]
        prompts = [self._said(item.example.text, luck[place]) for place, item in placed]
        noise = [self._noise(item, "noise", step, place) for place, item in placed]
        rows, columns = items[0].grid
        law = LAWS[settings.law]
        sigma = law(level, rows * columns, self.pipeline.variant)[places]
        return self._batch(items, looked, prompts, torch.stack(noise), sigma, alone=alone)

    def fixed(self, number: int, sigma: float, draw: int = 0) -> Batch:
        """One item at one noise level, with noise that is always the same: for measuring."""
        item = self.items[number]
        noise = self._noise(item, "fixed", number, draw)
        return self._batch([item], [WHOLE], [item.example.text], noise[None], torch.tensor([sigma]), alone=False)

    def with_prompts(self, batch: Batch, prompts: Sequence[str]) -> Batch:
        """The same samples with other words."""
        txt, pooled = self.texts(prompts)
        return replace(batch, prompts=tuple(prompts), txt=txt, pooled=pooled)

    def _said(self, text: str, luck: float) -> str:
        """What is told of a caption: nothing, the name alone, or all of it. `luck` is between 0 and 1."""
        if luck < self.settings.drop:
            return ""
        return self.bare[text] if luck < self.settings.drop + self.settings.bare else text

    def _noise(self, item: Item, *words: object) -> Tensor:
        rows, columns = item.grid
        channels = tokens.SIDE**2 * self.pipeline.autoencoder.shape.latent
        return torch.randn((rows * columns, channels), generator=stream(self.settings.seed, *map(str, words)))

    def _batch(
        self, items: Sequence[Item], looked: Sequence[View], prompts: Sequence[str], noise: Tensor, sigma: Tensor, *,
        alone: bool,
    ) -> Batch:  # fmt: skip
        txt, pooled = self.texts(prompts)
        ids = image_ids(*items[0].grid)
        reference = None
        if items[0].references and not alone and Kind.REFERENCE in self.pipeline.variant.takes:
            reference = torch.stack([self._references(item) for item in items])
            ids = torch.cat((ids, laid_out(items[0].references, LAYOUT)))
        given = [self._given(item) for item in items]
        weights = [self._weight(item, view) for item, view in zip(items, looked, strict=True)]
        return Batch(
            x=torch.stack([self._x(item, view) for item, view in zip(items, looked, strict=True)]),
            noise=noise,
            sigma=sigma,
            prompts=tuple(prompts),
            txt=txt,
            pooled=pooled,
            ids=ids,
            channels=None if given[0] is None else torch.stack([one for one in given if one is not None]),
            reference=reference,
            weight=None if weights[0] is None else torch.stack([one for one in weights if one is not None]),
            names=tuple(item.example.path.name for item in items),
        )

    def texts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prompts as (txt, pooled)."""
        texts = [self.cache.text(prompt) for prompt in prompts]
        return torch.cat([text.txt for text in texts]), torch.cat([text.pooled for text in texts])

    def _item(self, example: Example) -> Item:
        variant, token = self.pipeline.variant, self.pipeline.token
        if variant.wide is Kind.FILL and example.mask is None:
            raise BadRequest(f"{example.path.name} has no mask, which {variant.title} repaints by", hint="give masks")
        if variant.wide is Kind.CONTROL and not example.references:
            raise BadRequest(f"{example.path.name} has no control picture", hint='give it as "reference"')
        own = _size_of(example)
        references: tuple[Grid, ...] = ()
        if Kind.REFERENCE in variant.takes:
            sizes = [size_for(_size(path), self.size, token) for path in example.references]
            references = tuple((size.height // token, size.width // token) for size in sizes)
        grid = grid_for(own, self.size, token, enlarge=True)
        return Item(example=example, grid=grid, references=references, repainted=variant.wide is Kind.FILL)

    def _x(self, item: Item, view: View = WHOLE) -> Tensor:
        return self.cache.tokens(item.example.path, item.grid, view=view)

    def _references(self, item: Item) -> Tensor:
        pairs = zip(item.example.references, item.references, strict=True)
        return torch.cat([self.cache.tokens(path, grid) for path, grid in pairs])

    def _given(self, item: Item) -> Tensor | None:
        """What the network takes beside the noise on the channel axis."""
        example = item.example
        wide = self.pipeline.variant.wide
        if wide is Kind.FILL:
            assert example.mask is not None
            covered = self.cache.tokens(example.path, item.grid, covered=example.mask)
            mask = mask_tokens(self.cache.mask(example.mask, item.grid), self.pipeline.autoencoder.shape.factor)
            return torch.cat((covered, mask[0]), dim=-1)
        return self.cache.tokens(example.references[0], item.grid) if wide is Kind.CONTROL else None

    def _weight(self, item: Item, view: View) -> Tensor | None:
        """How much each token counts: the mask's share of it, 1 on average; a model that repaints counts all."""
        mask = item.example.mask
        if mask is None or self.pipeline.variant.wide is Kind.FILL:
            return None
        share = F.adaptive_avg_pool2d(self.cache.mask(mask, item.grid, view), item.grid).flatten()
        if share.sum() == 0:
            raise BadRequest(f"the mask of {item.example.path.name} is black", hint="white is what counts")
        return (share / share.mean())[:, None]


def _may_move(item: Item) -> bool:
    """Whether a part of the picture is as true as the whole: nothing else on its batch lies upon it."""
    return not item.example.references and not item.repainted


def _bare(text: str, name: str) -> str:
    """The names that a caption has; the caption, where it has none."""
    return ", ".join(word for word in names_of(name) if word.lower() in text.lower()) or text


def _size_of(example: Example) -> Resolution:
    return _size(example.path)


def _size(path: object) -> Resolution:
    """As people see it: turned as the camera says."""
    with Image.open(str(path)) as file:
        width, height = file.size
        if file.getexif().get(0x0112, 1) >= 5:  # orientation: a quarter turn
            width, height = height, width
    return Resolution(height=height, width=width)
