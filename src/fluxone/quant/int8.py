"""int8 weights, a scale for each row: multiplied in the type of what comes in, or with tokens in int8 as well.

`int8-dynamic` gives each token (row of x) its own scale, found as it comes, and multiplies int8 by int8 into int32:

    x ~ a[t] * round(x / a[t])      weight ~ b[o] * round(weight / b[o])      out = int32 product * a[t] * b[o] + bias

On a CPU the two passes around the product are compiled (`native`) where there is a compiler, else torch's.

Source: Dettmers et al. 2022 (LLM.int8: vector-wise scales).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxone.quant import native
from fluxone.quant.layer import Packed, Scheme

LARGEST = 127
TINY = 1e-30
LEAST_ROWS = 17  # of `_int_mm` on CUDA, which also wants multiples of 8 in the other sizes
MULTIPLE = 8


def quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as int8 numbers and their scales (... 1), float32."""
    scale = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True, dtype=torch.float32).clamp_(min=TINY) / LARGEST
    return (x * scale.reciprocal()).round_().to(torch.int8), scale


def pack(weight: Tensor) -> Packed:
    """int8 numbers and their rows' scales (O 1), float32."""
    numbers, scale = quantized(weight)
    return {"weight": numbers, "row_scale": scale}


def unpack(packed: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The weight in numbers."""
    return (packed["weight"].to(torch.float32) * packed["row_scale"]).to(dtype)


def multiply(x: Tensor, packed: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    """The int8 numbers are exact in every type that x may have; the scales come afterwards."""
    out: Tensor = F.linear(x, packed["weight"].to(x.dtype))
    return _scaled(out, packed, bias)


def multiply_dynamic(x: Tensor, packed: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    """int8 by int8, summed exactly in int32, scaled in float32."""
    weight = packed["weight"]
    rows = x.reshape(-1, x.shape[-1])
    few = x.is_cuda and (rows.shape[0] < LEAST_ROWS or any(size % MULTIPLE for size in weight.shape))
    if few:
        return multiply(x, packed, bias)
    if native.helps(x):
        numbers, scales = native.quantized(rows)
        scaled = packed["row_scale"].flatten()
        bias = scaled.new_zeros(scaled.shape) if bias is None else bias.float()
        sums = native.product(numbers, weight)
        return native.finished(sums, scales, scaled, bias, x.dtype).view(*x.shape[:-1], weight.shape[0])
    numbers, scale = quantized(rows)
    out = torch._int_mm(numbers, weight.t()).to(torch.float32).mul_(scale)
    return _scaled(out, packed, bias).to(x.dtype).view(*x.shape[:-1], weight.shape[0])


def _scaled(out: Tensor, packed: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    scale = packed["row_scale"].flatten().to(out.dtype)
    return out * scale if bias is None else torch.addcmul(bias.to(out.dtype), out, scale)


def empty(rows: int, columns: int) -> Packed:
    """What `pack` gives, without memory."""
    with torch.device("meta"):
        return {"weight": torch.empty(rows, columns, dtype=torch.int8), "row_scale": torch.empty(rows, 1)}


INT8 = Scheme(name="int8", bits=8.02, pack=pack, unpack=unpack, multiply=multiply, empty=empty, unpacks=True)
DYNAMIC = Scheme(
    name="int8-dynamic", bits=8.02, pack=pack, unpack=unpack, multiply=multiply_dynamic, empty=empty, takes=torch.int8
)
