"""Who attends to whom, where some of the text is not for all: prompts of regions, and negative text (NAG).

    tokens:  [ prompt | region | region ... | negative | picture | references ]

    regions   a region's text and the picture's tokens see each other as far as the region's mask goes; the prompt, the
              picture and the references see each other everywhere
    NAG       the picture attends once to the positive text and once to the negative; of the two results Z+ and Z-
              Z = s Z+ - (s - 1) Z-,   Z <- Z min(1, t |Z+| / |Z|),   the picture gets a Z + (1 - a) Z+
              with the norm of each token, over all heads; text streams never see each other

It is an attention backend around another one, so that blocks and everything around them stay as they are.

Source: Chen et al. 2025, "Normalized Attention Guidance", arXiv 2505.21179.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fluxone.nn.attention import Attend, Heads
from fluxone.nn.transformer import Blocks

TINY = 1e-6  # below every norm of numbers that are not all 0


@dataclass(frozen=True, kw_only=True)
class Nag:
    """Normalized attention guidance.

    Attributes:
        scale: s: how far away from the negative text; 1 does nothing.
        tau: t: how many times longer a token's result may become.
        alpha: a: share of the guided result.
        low, high: noise levels between which it works, the upper one included.
    """

    scale: float
    tau: float = 2.5
    alpha: float = 0.25
    low: float = -1.0
    high: float = 1.0

    def guided(self, positive: Heads, negative: Heads) -> Heads:
        """What the picture gets of the two results."""
        far = self.scale * positive - (self.scale - 1) * negative
        before, after = (x.float().abs().sum(dim=(1, 3), keepdim=True) for x in (positive, far))
        kept = (self.tau * before / after.clamp(min=TINY)).clamp(max=1).to(far.dtype)
        return self.alpha * kept * far + (1 - self.alpha) * positive


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """The parts of the sequence, and how they see each other.

    Attributes:
        text: tokens of the prompt.
        masks: of each region, over the picture's tokens: how strongly it holds there; 0 not at all, 1 as the prompt.
        words: tokens of each region's text.
        negative: tokens of the negative text.
    """

    text: int
    masks: tuple[Float[Tensor, " L"], ...] = ()
    words: tuple[int, ...] = ()
    negative: int = 0
    nag: Nag | None = None
    _made: dict[tuple[int, bool, int, torch.device], Attend] = field(default_factory=dict, repr=False, compare=False)
    _kept: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    @property
    def more(self) -> int:
        """Text tokens after the prompt's."""
        return sum(self.words) + self.negative

    def look(self, kept: Tensor | None) -> None:
        """From now on the picture is but these of its tokens, by their numbers; None: all of them again."""
        self._kept[:] = [] if kept is None else [kept.cpu()]
        if self.masks:
            self._made.clear()

    def around(self, inner: Attend, sigma: float, length: int, device: torch.device) -> Attend:
        """The backend for sequences of `length` tokens; the same object each time, so that nothing compiles anew."""
        works = self.nag is not None and self.nag.low < sigma <= self.nag.high
        key = (id(inner), works, length, device)
        if key not in self._made:
            positive = inner
            if self.masks:
                positive = masked(self.bias(length - self.negative).to(device))
            self._made[key] = self._apart(positive, inner, self.nag if works else None) if self.negative else positive
        return self._made[key]

    def bias(self, length: int) -> Float[Tensor, "1 1 N N"]:
        """What is added to the scores: the logarithm of how much each of `length` positive tokens sees of each."""
        sees = torch.ones(length, length)
        start = self.text + sum(self.words)
        sees[self.text : start] = 0
        sees[:, self.text : start] = 0
        place = self.text
        masks = [mask[self._kept[0]] for mask in self.masks] if self._kept else self.masks
        for mask, words in zip(masks, self.words, strict=True):
            own, picture = slice(place, place + words), slice(start, start + len(mask))
            sees[own, own] = 1
            sees[own, picture] = mask
            sees[picture, own] = mask[:, None]
            place += words
        return sees.log()[None, None]

    def _apart(self, positive: Attend, negative: Attend, nag: Nag | None) -> Attend:
        words, away = self.text + sum(self.words), self.negative

        def attend(q: Heads, k: Heads, v: Heads) -> Heads:
            def split(x: Tensor) -> tuple[Tensor, Tensor]:
                text, other, rest = x[:, :, :words], x[:, :, words : words + away], x[:, :, words + away :]
                return torch.cat((text, rest), dim=2), torch.cat((other, rest), dim=2)

            (q1, q2), (k1, k2), (v1, v2) = split(q), split(k), split(v)
            out = positive(q1, k1, v1)
            text, rest, other = out[:, :, :words], out[:, :, words:], negative(q2, k2, v2)
            if nag is not None:
                rest = nag.guided(rest, other[:, :, away:])
            return torch.cat((text, other[:, :, :away], rest), dim=2)

        return attend


def masked(bias: Float[Tensor, "1 1 N N"]) -> Attend:
    """Attention with something added to its scores."""

    def attend(q: Heads, k: Heads, v: Heads) -> Heads:
        out: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return out

    return attend


@contextmanager
def attending(model: Blocks, mixing: Mixing | None, sigma: float, length: int, device: torch.device) -> Iterator[None]:
    """A context in which the blocks attend as `mixing` says; `length` counts all tokens."""
    if mixing is None:
        yield
        return
    before = model.attend
    model.attend = mixing.around(before, sigma, length, device)
    try:
        yield
    finally:
        model.attend = before
