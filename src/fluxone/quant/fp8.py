"""fp8 weights (e4m3), a scale for each row; the products are made in the type of what comes in.

The scales are powers of two. What a row loses is the same as with any other scale, since e4m3 has an exponent of its
own, and the unpacked weight is then exact in bfloat16: packing is the only rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxone.quant.layer import Packed, Scheme

KIND = torch.float8_e4m3fn
LARGEST = 448.0  # of e4m3


def pack(weight: Tensor) -> Packed:
    """e4m3 numbers and their rows' scales (O 1), float32."""
    largest = weight.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    scale = torch.exp2(torch.ceil(torch.log2(largest / LARGEST)).clamp(min=-126))
    return {"weight": (weight / scale).clamp(-LARGEST, LARGEST).to(KIND), "row_scale": scale}


def unpack(packed: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The weight in numbers."""
    return packed["weight"].to(dtype) * packed["row_scale"].to(dtype)


def multiply(x: Tensor, packed: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    """Unpack, multiply, forget."""
    out: Tensor = F.linear(x, unpack(packed, x.dtype), bias)
    return out


def empty(rows: int, columns: int) -> Packed:
    """What `pack` gives, without memory."""
    with torch.device("meta"):
        return {"weight": torch.empty(rows, columns, dtype=KIND), "row_scale": torch.empty(rows, 1)}


FP8 = Scheme(name="fp8", bits=8.02, pack=pack, unpack=unpack, multiply=multiply, empty=empty)
