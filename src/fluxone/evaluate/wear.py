"""Pictures as a model might draw them: moved, bent, softened, grained, a little off in colour, each by another amount.

All on the pictures' own device and without a look at a value, so that nothing waits. `Moved` says where points went.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

SHIFT, SCALE = 0.06, 0.15  # how far, and by which share, a picture is moved and scaled
BEND, KNOTS = 0.012, 7  # how far a point is moved on its own; such points across and down
GRAIN, TINT, CONTRAST = 0.07, 0.06, 0.2
Batch = Float[Tensor, "B 3 H W"]


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A point p of the old picture is at (p - shift) / scale of the new one."""

    shift: Float[Tensor, "B 2"]
    scale: Float[Tensor, "B 1"]

    def place(self, places: Float[Tensor, "B n 4"]) -> Float[Tensor, "B n 4"]:
        """Middles and sizes of the old picture in the new one."""
        scale = self.scale[:, None]
        return torch.cat([(places[..., :2] - self.shift[:, None]) / scale, places[..., 2:] / scale], -1)


def still(count: int, device: torch.device) -> Moved:
    """No movement."""
    return Moved(shift=torch.zeros(count, 2, device=device), scale=torch.ones(count, 1, device=device))


def move(x: Batch, rng: torch.Generator) -> tuple[Batch, Moved]:
    """Pictures moved, scaled and softly bent. What is beyond the edge is as the edge."""
    count, device = len(x), x.device
    scale = 1 + SCALE * (2 * torch.rand(count, 1, generator=rng, device=device) - 1)
    shift = SHIFT * (2 * torch.rand(count, 2, generator=rng, device=device) - 1) + (1 - scale) / 2
    rows = torch.zeros(count, 2, 3, device=device)
    rows[:, 0, 0] = rows[:, 1, 1] = scale[:, 0]
    rows[:, :, 2] = 2 * shift + scale - 1
    grid = F.affine_grid(rows, list(x.shape), align_corners=False)
    knots = BEND * torch.randn(count, 2, KNOTS, KNOTS, generator=rng, device=device)
    knots *= torch.rand(count, 1, 1, 1, generator=rng, device=device)
    bend = F.interpolate(knots, size=x.shape[-2:], mode="bicubic", align_corners=True)
    moved = F.grid_sample(x, grid + bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    return moved, Moved(shift=shift, scale=scale)


def wear(x: Batch, rng: torch.Generator) -> Batch:
    """Pictures (0..1) drawn small and enlarged, grained, and off in colour and contrast."""
    count, device = len(x), x.device
    amount = torch.rand(4, count, 1, 1, 1, generator=rng, device=device)
    half = F.avg_pool2d(x, 2)
    quarter = F.interpolate(F.avg_pool2d(half, 2), scale_factor=2, mode="bilinear")
    small = torch.lerp(half, quarter, (2 * amount[1] - 1).clamp(min=0) ** 2)
    x = torch.lerp(x, F.interpolate(small, scale_factor=2, mode="bilinear"), amount[0])
    x = x + GRAIN * amount[2] ** 3 * torch.randn(x.shape, generator=rng, device=device)
    tint = TINT * (torch.rand(count, 3, 1, 1, generator=rng, device=device) - 0.5)
    return ((x - 0.5) * (1 + CONTRAST * (amount[3] - 0.5)) + 0.5 + tint).clamp(0, 1)
