"""Redux: pictures as words. What it makes of them stands after the text's tokens.

    picture --stretched, normalised--> SigLIP --> embedder --> N tokens as wide as T5's (729 for the published one)

    beside   txt | weight * the first picture's | weight * the second's | ...        as ComfyUI chains them
    sum      txt * the weights' sum | the sum of weight * each picture's             as diffusers adds them up

The strength multiplies the pictures' tokens once more: below 1 the words gain, above it the pictures.

Source: black-forest-labs/flux, `modules/image_embedders.py`; huggingface/diffusers, `FluxPriorReduxPipeline`;
ComfyUI, `StyleModelApply` (strength by multiplication).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fluxone import pixels as px
from fluxone.errors import BadRequest
from fluxone.request import Request
from fluxone.shapes import Intake
from fluxone.text.encode import Text
from fluxone.weights.redux import Redux

Seen = Float[Tensor, "P N T"]  # N tokens of each of P pictures
Mix = Callable[[Text, Seen, "Mixing"], Text]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How pictures join the text.

    Attributes:
        weights: of the pictures.
        mix: row of `MIXES`.
        words, pooled: factors of the text's tokens and of its pooled vector.
    """

    weights: tuple[float, ...]
    strength: float = 1.0
    mix: str = "beside"
    words: float = 1.0
    pooled: float = 1.0

    @classmethod
    def of(cls, request: Request) -> Mixing:
        """As a request asks for; without weights each picture has 1, or in a sum its equal share of 1."""
        count = len(request.image_prompts)
        share = 1 / count if count and MIXES[request.image_prompt_mix] is summed else 1.0
        weights = request.image_prompt_weights or (share,) * count
        return cls(weights=weights, strength=request.image_prompt_strength, mix=request.image_prompt_mix)


class Prompting:
    """Pictures beside words, where a model has Redux.

    Args:
        using: part's name -> a context in which it can compute.

    Attributes:
        load: brings a Redux when it is first needed, where there is one that is not loaded yet.
    """

    def __init__(self, redux: Redux | None, using: Callable[[str], AbstractContextManager[None]]) -> None:
        self.redux, self.using = redux, using
        self.load: Callable[[], Redux] | None = None

    def of(self, request: Request, text: Text) -> Text:
        """The text of a request with its image prompts after it."""
        return self.after(text, request.image_prompts, Mixing.of(request))

    def after(self, text: Text, pictures: Sequence[px.Picture], mixing: Mixing) -> Text:
        """The text with the pictures after it; itself if there are none."""
        if not pictures:
            return text
        if self.redux is None:
            assert self.load is not None, "check the pictures first"
            self.redux = self.load()
        with self.using("image"), torch.inference_mode():
            weight = self.redux.embedder.redux_up.weight  # tells where and in what type it computes
            bring = self.redux.extract or partial(taken_in, intake=self.redux.intake)
            pixels = torch.cat([bring(_image(picture)) for picture in pictures])
            seen = self.redux.embedder(self.redux.encoder(pixels.to(weight)))
            return MIXES[mixing.mix](text, seen, mixing)


def taken_in(picture: px.Picture, intake: Intake) -> px.Pixels:
    """A picture as its encoder takes it: stretched by PIL, which is how the encoder was trained, and normalised."""
    size, filter_ = (intake.width, intake.height), Image.Resampling(intake.filter)
    values = np.asarray(_image(picture).resize(size, filter_), dtype=np.float32) / 255
    mean, spread = (np.asarray(colours, dtype=np.float32) for colours in (intake.mean, intake.spread))
    return torch.from_numpy((values - mean) / spread).permute(2, 0, 1)[None]


def _image(picture: px.Picture) -> Image.Image:
    if not isinstance(picture, Image.Image):
        picture = px.to_images(px.unit(px.from_images(picture, px.size_of(picture))))[0]
    return picture.convert("RGB")


def beside(text: Text, seen: Seen, mixing: Mixing) -> Text:
    """The pictures one after the other."""
    factors = torch.tensor(mixing.weights, dtype=seen.dtype, device=seen.device) * mixing.strength
    return _joined(text, (seen * factors[:, None, None]).flatten(0, 1)[None], mixing)


def summed(text: Text, seen: Seen, mixing: Mixing) -> Text:
    """One picture's tokens, the weighted sum of all."""
    factors = torch.tensor(mixing.weights, dtype=seen.dtype, device=seen.device) * mixing.strength
    return _joined(text, (seen * factors[:, None, None]).sum(dim=0, keepdim=True), mixing)


def _joined(text: Text, tokens: Float[Tensor, "1 M T"], mixing: Mixing) -> Text:
    tokens = tokens.to(text.txt).expand(len(text.txt), -1, -1)
    return replace(text, txt=torch.cat((text.txt * mixing.words, tokens), dim=1), pooled=text.pooled * mixing.pooled)


def by_diffusers(
    count: int, scale: float | Sequence[float], pooled: float | Sequence[float], strength: float, mix: str
) -> Mixing:
    """The mixing that diffusers' two scales ask for, each one number or one a picture: they are the words' as well.

    Raises:
        BadRequest: there are as many numbers as pictures neither in one nor in the other.
    """
    weights, shares = ([float(s)] * count if isinstance(s, int | float) else list(s) for s in (scale, pooled))
    for name, numbers in (("prompt_embeds_scale", weights), ("pooled_prompt_embeds_scale", shares)):
        if len(numbers) != count:
            raise BadRequest(f"{len(numbers)} of {name} for {count} image_prompts", hint="give one, or one each")
    words = sum(weights) if MIXES[mix] is summed else 1.0
    vector = sum(shares) if MIXES[mix] is summed else 1.0
    return Mixing(weights=tuple(weights), strength=strength, mix=mix, words=words, pooled=vector)


MIXES: dict[str, Mix] = {"beside": beside, "sum": summed}
