"""Rotary positions on three axes: which reference, which row, which column.

A head's numbers are taken in pairs; pair i of an axis turns by position * theta^(-2i/d). Positions and angles
stay in float32 whatever the model's type, because bfloat16 cannot count past 256.

Source: Su et al. 2021 (RoFormer); black-forest-labs/flux, `math.py` (interleaved pairs, frequencies in float64).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Cosine and sine of every position's angles, float32."""

    turns: Float[Tensor, "*B N P 2"]

    def to(self, device: torch.device | str) -> Rotation:
        """Return the same rotation on a device; its type stays float32."""
        return Rotation(turns=self.turns.to(device))


def rotation(ids: Float[Tensor, "*B N A"], axes: Sequence[int], theta: float) -> Rotation:
    """Return the rotation of positions `ids`, of which axis a turns `axes[a]` numbers of each head."""
    angles = []
    for axis, size in enumerate(axes):
        omega = 1 / theta ** (torch.arange(0, size, 2, dtype=torch.float64, device=ids.device) / size)
        angles.append(ids[..., axis, None].double() * omega)
    angle = torch.cat(angles, dim=-1)
    return Rotation(turns=torch.stack((angle.cos(), angle.sin()), dim=-1).float())


def rotate(x: Float[Tensor, "B N K H D"], pe: Rotation) -> Float[Tensor, "B N K H D"]:
    """Turn queries and keys, float32 or wider; K and H are any two axes between position and head."""
    turns = pe.turns[..., None, None, :, :]
    pairs = torch.unflatten(x, -1, (-1, 2))
    if torch.compiler.is_compiling():  # the compiler fuses real arithmetic and cannot fuse complex
        (a, b), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)
        return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    turned = torch.view_as_complex(pairs) * torch.view_as_complex(turns)
    return torch.view_as_real(turned).flatten(-2)
