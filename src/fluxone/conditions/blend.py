"""Repainting with a model that knows no masks: after each step, what the mask leaves is put back, as noisy as there.

    x  <-  mask * x + (1 - mask) * (sigma * noise + (1 - sigma) * picture)

Source: diffusers, `FluxInpaintPipeline`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fluxone.conditions.condition import Tokens
from fluxone.nn.tokens import pack
from fluxone.pixels import Mask


@dataclass(frozen=True, kw_only=True)
class Keep:
    """The picture whose unmasked part stays, and the noise it is drowned in, as tokens."""

    picture: Tokens
    noise: Tokens
    mask: Tokens

    def __call__(self, x: Tokens, sigma: float) -> Tokens:
        """The state at a noise level, with what the mask leaves put back."""
        return self.mask * x + (1 - self.mask) * (sigma * self.noise + (1 - sigma) * self.picture)

    def to(self, device: torch.device) -> Keep:
        """The same on a device."""
        return Keep(picture=self.picture.to(device), noise=self.noise.to(device), mask=self.mask.to(device))


def cell_mask(mask: Mask, channels: int, cells: tuple[int, int], *, soft: bool) -> Float[Tensor, "B L K"]:
    """The mask of a latent, as tokens.

    Args:
        soft: whether a cell has the mean of its pixels, else that of one of them, as diffusers takes it.
    """
    small = F.interpolate(mask, size=cells, mode="area") if soft else F.interpolate(mask, size=cells)
    return pack(small.expand(-1, channels, -1, -1))
