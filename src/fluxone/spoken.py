"""What one call of `FluxPipeline` says: prompts, texts that were encoded elsewhere, and pictures that speak.

prompt --wildcards, a row a picture--> words --T5, CLIP--> Text --Redux--> pictures' tokens after it
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fluxone import arguments
from fluxone.arguments import Prompts
from fluxone.conditions.redux import by_diffusers
from fluxone.errors import BadRequest
from fluxone.job import repeat, spread
from fluxone.pipeline import Pipeline
from fluxone.pixels import Picture
from fluxone.prompts import mannered
from fluxone.request import Request
from fluxone.text.encode import Text
from fluxone.text.wildcards import drawn

EMBEDS = ("prompt_embeds", "pooled_prompt_embeds", "negative_prompt_embeds", "negative_pooled_prompt_embeds")

How = tuple[int | None, str]  # T5 tokens, emphasis


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """The arguments of the call that are words, or stand for them.

    Attributes:
        seeds: of each picture, for choices and wildcards.
    """

    prompt: Prompts
    prompt_2: Prompts
    negative_prompt: Prompts
    negative_prompt_2: Prompts
    wildcards: str | os.PathLike[str] | None
    prompt_embeds: Tensor | None
    pooled_prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    negative_pooled_prompt_embeds: Tensor | None
    image_prompts: Picture | Sequence[Picture] | None
    image_prompt_strength: float
    image_prompt_mix: str
    prompt_embeds_scale: float | Sequence[float]
    pooled_prompt_embeds_scale: float | Sequence[float]
    seeds: Sequence[int] = ()

    @property
    def count(self) -> int:
        """How many prompts there are."""
        if self.prompt_embeds is not None:
            return len(self.prompt_embeds)
        return 1 if self.prompt is None else len(arguments.texts(self.prompt, "prompt"))

    @property
    def prompts(self) -> list[str]:
        """The prompt of each picture, its choices made; none where texts were encoded elsewhere."""
        return [] if self.prompt is None else self._each(self.prompt, "prompt")

    @property
    def pictures(self) -> list[Picture]:
        """The image prompts."""
        given = self.image_prompts
        several: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
        return [] if given is None else several

    def text(self, pipeline: Pipeline, how: How, manner: str) -> Text:
        """A row a picture, with the image prompts after each; without any words they stand after zeros.

        Raises:
            BadRequest: nothing is said, or the same twice, or what was encoded elsewhere does not fit the model.
        """
        pictures, shape = self.pictures, pipeline.variant.shape
        embeds = self.prompt_embeds, self.pooled_prompt_embeds
        if pictures and self.prompt is None and self.prompt_embeds is None:
            embeds = torch.zeros(1, how[0] or arguments.MOST_TOKENS, shape.text_dim), torch.zeros(1, shape.vec_dim)
        words = self._words("prompt", self.prompt, self.prompt_2)
        text = encoded(pipeline, "prompt", words, how, embeds, manner)
        scales = self.prompt_embeds_scale, self.pooled_prompt_embeds_scale
        mixing = by_diffusers(len(pictures), *scales, self.image_prompt_strength, self.image_prompt_mix)
        text = pipeline.prompting.after(text, pictures, mixing)
        return repeat(text, len(self.seeds) // len(text.txt))

    def away(self, pipeline: Pipeline, how: How) -> Text:
        """What to avoid, a row a picture; nothing said is the empty prompt.

        Raises:
            BadRequest: as for `text`; or there are as many as prompts neither in words nor in rows.
        """
        embeds = self.negative_prompt_embeds, self.negative_pooled_prompt_embeds
        words = self._words("negative_prompt", self.negative_prompt, self.negative_prompt_2)
        if words[0] is None and embeds[0] is None:
            words = ("", words[1])
        text = encoded(pipeline, "negative_prompt", words, how, embeds)
        if len(text.txt) == len(self.seeds):
            return text
        return repeat(spread(text, self.count), len(self.seeds) // self.count)

    def _words(self, name: str, clip: Prompts, t5: Prompts) -> tuple[Prompts, Prompts]:
        """The prompts for CLIP and for T5: where there are choices, a row a picture."""
        if self.wildcards is None:
            return clip, t5
        return None if clip is None else self._each(clip, name), self._each(t5, f"{name}_2") if t5 else None

    def _each(self, prompts: str | Sequence[str], name: str) -> list[str]:
        texts = arguments.texts(prompts, name)
        if len(texts) not in (1, self.count):
            raise BadRequest(f"{len(texts)} {name}s for {self.count} prompts", hint="give one, or as many")
        rows = [text for text in texts for _ in range(len(self.seeds) // len(texts))]
        if self.wildcards is None:
            return rows
        folder = os.fspath(self.wildcards)
        return [drawn(text, seed, folder) for text, seed in zip(rows, self.seeds, strict=True)]


def encoded(
    pipeline: Pipeline,
    name: str,
    prompts: tuple[Prompts, Prompts],
    how: How,
    embeds: tuple[Tensor | None, Tensor | None],
    manner: str = "",
) -> Text:
    """Encode prompts, or take what was encoded elsewhere."""
    prompt, prompt_2 = prompts
    txt, pooled = embeds
    if txt is not None:
        if prompt is not None or prompt_2 is not None:
            raise BadRequest(f"{name} and {name}_embeds are both given", hint="give one of them")
        shape = pipeline.variant.shape
        fits = txt.ndim == 3 and txt.shape[2] == shape.text_dim
        if not fits or pooled is None or pooled.shape != (len(txt), shape.vec_dim):
            wanted = f"their shapes are (B, T, {shape.text_dim}) and (B, {shape.vec_dim})"
            raise BadRequest(f"{name}_embeds and the pooled ones do not fit the model", hint=wanted)
        return Text(txt=txt, pooled=pooled, cut=(0,) * len(txt), clip_cut=(0,) * len(txt))
    if prompt is None:
        raise BadRequest(f"neither {name} nor {name}_embeds is given", hint="give one of them")
    clip = arguments.texts(prompt, name)
    t5 = arguments.texts(prompt_2, f"{name}_2") if prompt_2 else clip
    if len(t5) != len(clip):
        raise BadRequest(f"{len(clip)} of {name}, but {len(t5)} of {name}_2", hint="give as many")
    for text in (*clip, *t5):
        Request(prompt=text)
    t5, clip = ([mannered(text, manner) for text in texts] for texts in (t5, clip))
    return pipeline.encode(t5, clip, *how)
