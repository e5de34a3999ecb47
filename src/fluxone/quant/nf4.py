"""4-bit weights: sixteen levels that are equally full if weights are normally distributed, a scale each 64 weights.

Two neighbours of a row share a byte, the first in its high half. The products are made in the type of what comes in.

Source: Dettmers et al. 2023 (QLoRA), appendix E: the levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxone.quant.layer import Packed, Scheme

LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
BLOCK = 64  # weights of a row that share a scale; less where the row's length is no multiple


def block(columns: int) -> int:
    """How many weights of a row of that length share a scale."""
    return math.gcd(columns, BLOCK)


def pack(weight: Tensor) -> Packed:
    """Two levels a byte (O I/2), and the blocks' largest absolute values (O I/64), float32."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows, -1, block(columns))
    largest = blocks.abs().amax(-1)
    levels = torch.tensor(LEVELS, device=weight.device)
    middles = (levels[1:] + levels[:-1]) / 2
    nearest = torch.bucketize(blocks / largest.clamp(min=1e-30)[..., None], middles).to(torch.uint8).reshape(rows, -1)
    return {"weight": nearest[:, ::2] << 4 | nearest[:, 1::2], "block_scale": largest}


def unpack(packed: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The weight in numbers."""
    scale = packed["block_scale"].to(dtype)
    weight = _pairs(dtype, packed["weight"].device)[packed["weight"].int()]
    return (weight.reshape(*scale.shape, -1) * scale[..., None]).flatten(1)


def multiply(x: Tensor, packed: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    """Unpack, multiply, forget."""
    out: Tensor = F.linear(x, unpack(packed, x.dtype), bias)
    return out


@cache
def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The two levels that each byte stands for (256 2)."""
    with torch.inference_mode(False):
        levels = torch.tensor(LEVELS, device=device)
        return torch.cartesian_prod(levels, levels).to(dtype)


def empty(rows: int, columns: int) -> Packed:
    """What `pack` gives, without memory."""
    with torch.device("meta"):
        weight = torch.empty(rows, columns // 2, dtype=torch.uint8)
        return {"weight": weight, "block_scale": torch.empty(rows, columns // block(columns))}


NF4 = Scheme(
    name="nf4", bits=4.5, pack=pack, unpack=unpack, multiply=multiply, empty=empty, unpacks=True,
    fits=lambda rows, columns: columns % 2 == 0,
)  # fmt: skip
