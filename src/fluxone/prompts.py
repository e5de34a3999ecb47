"""The prompts of a request: each picture's own, with its choices made, and all of them encoded.

    prompt, seed --wildcards--> the prompt of one picture --encode--> a row of Text
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from fluxone.errors import MissingParts
from fluxone.job import Job, join
from fluxone.request import MAX_SEED, Request
from fluxone.sampling.samplers import State
from fluxone.text.encode import Text, TextEncoders
from fluxone.text.wildcards import drawn

log = logging.getLogger("fluxone")

CACHED = 64  # encoded prompts that are kept

Key = tuple[str, str, int, str]  # prompt, prompt for CLIP, tokens, emphasis
Encode = Callable[[Sequence[str], Sequence[str | None], int | None, str], Text]


def settled(request: Request, seed: int) -> Request:
    """The request of the picture with this seed, its choices and wildcards drawn.

    Raises:
        BadFile, BadRequest: see `text.wildcards.drawn`.
    """
    if request.wildcards is None:
        return request

    def made(text: str) -> str:
        return drawn(text, seed, request.wildcards)

    return replace(
        request,
        wildcards=None,
        prompt=made(request.prompt),
        then=tuple(made(text) for text in request.then),
        clip_prompt=None if request.clip_prompt is None else made(request.clip_prompt),
        negative=made(request.negative),
        clip_negative=None if request.clip_negative is None else made(request.clip_negative),
    )


def each(request: Request) -> list[Request]:
    """The settled request of every picture of a request, in order; their `seed` and `count` are still the whole's."""
    return [settled(request, (request.seed + i) % (MAX_SEED + 1)) for i in range(request.count)]


def encoded(request: Request, encode: Encode, *, negative: bool) -> Text:
    """The prompts of a resolved request, a row a picture.

    Args:
        encode: see `Pipeline.encode`.
        negative: whether those to avoid are meant.
    """
    ones = each(request)
    texts = [one.negative if negative else mannered(one.prompt, one.manner) for one in ones]
    clip = [one.clip_negative if negative else one.clip_prompt for one in ones]
    return encode(texts, clip, request.text_tokens, request.emphasis)


def mannered(prompt: str, manner: str | None) -> str:
    """The prompt as it is read: with the words for a look after it, unless it has them."""
    if not manner or manner in prompt:
        return prompt
    said = prompt.rstrip(" .,")
    return f"{said}, {manner}" if said else manner


def following(request: Request, prepare: Callable[[Request, State], Job]) -> Callable[[State], Job] | None:
    """What goes on with the latents of an edit by the next instruction; None after the last."""
    if not request.then:
        return None
    rest = replace(request, prompt=request.then[0], clip_prompt=None, then=request.then[1:], references=())
    return lambda x: prepare(rest, x)


class Texts:
    """Encoded prompts, the latest `CACHED` of them kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Text] = OrderedDict()

    def absent(self, keys: Sequence[Key]) -> list[Key]:
        """Those that are still to be read, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self._kept]

    def read(self, keys: Sequence[Key], encoders: TextEncoders | None, compat: str) -> None:
        """Encode what is absent, one by one.

        Raises:
            MissingParts: there are no encoders.
        """
        if encoders is None:
            raise MissingParts("this model has no text encoders", hint="give text_encoder and text_encoder_2")
        for key in self.absent(keys):
            prompt, clip, tokens, emphasis = key
            text = encoders.encode([prompt], [clip], tokens=tokens, compat=compat, emphasis=emphasis)
            self._kept[key] = text
            if text.cut[0] > 0:
                log.warning("the prompt is %d tokens too long for %d: its end is not read", text.cut[0], tokens)

    def of(self, keys: Sequence[Key]) -> Text:
        """The rows of these, which have been read."""
        for key in keys:
            self._kept.move_to_end(key)
        found = [self._kept[key] for key in keys]
        while len(self._kept) > CACHED:
            self._kept.popitem(last=False)
        return join(found)

    def clear(self) -> None:
        """Forget them all: the encoders have changed."""
        self._kept.clear()
