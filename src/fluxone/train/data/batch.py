"""What one step of a flow learns from, as tensors: latents to draw, words, what each token shows, pictures given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Tokens = Float[Tensor, "B L C"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's samples.

    Attributes:
        x: latents to draw, packed.
        ids: token numbers of the words.
        shown: for every token of `x` the numbers of the name, the colour and the letter that is seen there.
        prompts: the words themselves, where somebody wants to read them.
        reference: tokens of pictures to draw from, one after the other, and `places`, their positions.
        channels: latents (and mask) of what is given at each place, as more channels.
        pictures: `x` as it was drawn, for eyes.
    """

    x: Tokens
    ids: Int[Tensor, "B T"]
    shown: Int[Tensor, "B 3 L"]
    prompts: tuple[str, ...] = ()
    reference: Tokens | None = None
    places: Float[Tensor, "R 3"] | None = None
    channels: Tokens | None = None
    pictures: UInt8[Tensor, "B H W 3"] | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in tensors.items()}
        return replace(self, **moved)

    def without_words(self, dropped: Tensor, empty: Int[Tensor, " T"]) -> Batch:
        """The same with the words of some rows replaced by those of the empty prompt."""
        return replace(self, ids=torch.where(dropped[:, None].to(self.ids.device), empty.to(self.ids), self.ids))
