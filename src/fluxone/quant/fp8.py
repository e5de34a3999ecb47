"""fp8 weights (e4m3), a scale for each row: multiplied in the type of what comes in, or with tokens in fp8 as well.

The scales of weights are powers of two. What a row loses is the same as with any other scale, since e4m3 has an
exponent of its own, and the unpacked weight is then exact in bfloat16: packing is the only rounding.

`fp8-dynamic` gives each token (row of x) its own scale, found as it comes, and multiplies fp8 by fp8, summed in
float32: `torch._scaled_mm`, on accelerators that have it. Elsewhere the same numbers are multiplied in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxone.quant.layer import Packed, Scheme

KIND = torch.float8_e4m3fn
LARGEST = 448.0  # of e4m3
TINY = 1e-12
MULTIPLE = 16  # of the sizes of a weight that the units can multiply
CAPABLE = (8, 9)  # CUDA's capability from which there are fp8 units; by rows from 9.0 on
BY_ROWS = (9, 0)


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


def quantized(x: Tensor, *, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Rows as e4m3 numbers and their scales (... 1), float32; one scale for all rows if `whole`."""
    largest = x.abs().amax() if whole else x.abs().amax(-1, keepdim=True)
    scale = largest.float().clamp(min=TINY) / LARGEST
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(KIND), scale


def multiply_dynamic(x: Tensor, packed: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    """fp8 by fp8; the scales come with the product, the bias after it."""
    rows = x.reshape(-1, x.shape[-1])
    numbers, scales = quantized(rows)
    out = multiply_quantized(numbers, scales, packed, x.dtype)
    out = out if bias is None else out + bias
    return out.view(*x.shape[:-1], -1)


def multiply_quantized(numbers: Tensor, scales: Tensor, packed: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Rows that are fp8 already, with their scales (N 1), times the weight, in a type."""
    weight, row_scale = packed["weight"], packed["row_scale"]
    if not units(weight.device) or any(size % MULTIPLE for size in weight.shape):
        exact = (numbers.float() * scales).to(dtype)
        return F.linear(exact, unpack(packed, dtype))
    kind = torch.bfloat16 if dtype == torch.float32 else dtype
    if by_rows(weight.device):
        out = torch._scaled_mm(
            numbers, weight.t(), scale_a=scales, scale_b=row_scale.view(1, -1), out_dtype=kind, use_fast_accum=True
        )
        return out.to(dtype)
    one = _one(weight.device)
    plain = torch._scaled_mm(
        numbers, weight.t(), scale_a=one, scale_b=one, out_dtype=torch.float32, use_fast_accum=True
    )
    return (plain * scales * row_scale.view(1, -1)).to(dtype)


def sums(numbers: Tensor, packed: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Rows that are fp8 already, times the weight: scales of tokens and of the weight's rows are still to come.

    The units are quickest without scales, and what reads the sums multiplies them at no time. On a device with units
    the sums are bfloat16, whose range they need.
    """
    weight = packed["weight"]
    if not units(weight.device) or any(size % MULTIPLE for size in weight.shape):
        return F.linear(numbers.float(), weight.float()).to(dtype)
    one = _one(weight.device)
    out: Tensor = torch._scaled_mm(
        numbers, weight.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return out


@cache
def _one(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.ones((), device=device)


@cache
def units(device: torch.device) -> bool:
    """Whether a device multiplies fp8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABLE


@cache
def by_rows(device: torch.device) -> bool:
    """Whether its products can take a scale for each row."""
    return torch.cuda.get_device_capability(device) >= BY_ROWS


def empty(rows: int, columns: int) -> Packed:
    """What `pack` gives, without memory."""
    with torch.device("meta"):
        return {"weight": torch.empty(rows, columns, dtype=KIND), "row_scale": torch.empty(rows, 1)}


FP8 = Scheme(name="fp8", bits=8.02, pack=pack, unpack=unpack, multiply=multiply, empty=empty, unpacks=True)
FP8_DYNAMIC = Scheme(
    name="fp8-dynamic", bits=8.02, pack=pack, unpack=unpack, multiply=multiply_dynamic, empty=empty, takes=KIND
)
