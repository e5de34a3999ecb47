"""The autoencoder's passes between convolutions with channels last, as cuDNN wants them: Triton kernels for CUDA.

    group_norm   x (N C H W) -> GroupNorm, and SiLU where asked, of x + the bias of the convolution before
    added        x + other + bias

torch's GroupNorm is slow in this layout; here it is three launches that read x twice and write it once, with sums in
float32 around a mean that was met. They are at work by themselves where Triton is, on the GPUs in `MEASURED`;
`FLUXONE_CHANNELS_LAST=1` asks for them elsewhere, 0 does without anywhere.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ASKED = "FLUXONE_CHANNELS_LAST"
MEASURED = ((9, 0),)  # compute capabilities
TYPES = (torch.bfloat16, torch.float16, torch.float32)
TILE = 4096  # numbers that a program holds at a time
CHUNKS = 1024  # of a picture, at most, each with its own moments: more than a large GPU works on at once
STEPS = 4  # tiles of a program that only maps
ROOM = 8192  # moments that are pooled at a time
QUERIES = 4096  # positions whose scores are in memory at a time


@cache
def available() -> bool:
    """Whether Triton can be imported."""
    return find_spec("triton") is not None


@cache
def _kernels() -> Any:
    """The compiled kernels; the module is imported when they are first needed."""
    from fluxone.nn import channels_last_triton

    return channels_last_triton


def wanted(x: Tensor) -> bool:
    """Whether features like these should have their channels last, because the kernels work on them."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not x.is_cuda or x.dtype not in TYPES:
        return False
    if torch.is_autocast_enabled("cuda"):
        return False  # norms are float32 there
    if x.device.index != torch.cuda.current_device():
        return False  # Triton launches on the current one
    asked = os.environ.get(ASKED, "")
    known = asked != "0" and torch.cuda.get_device_capability(x.device) in MEASURED
    return (asked == "1" or known) and available()


def helps(x: Tensor) -> bool:
    """Whether the kernels can work on features as they lie."""
    return wanted(x) and x.is_contiguous(memory_format=torch.channels_last)


def layout(x: Tensor) -> torch.memory_format:
    """How a picture should lie before its first convolution; the features after it lie as it does."""
    return torch.channels_last if wanted(x) else torch.contiguous_format


def group_norm(x: Tensor, norm: nn.GroupNorm, *, silu: bool, before: Tensor | None = None) -> Tensor:
    """x (N C H W, channels last) normalised by groups, then its SiLU if asked.

    Args:
        before: added to each channel (C) first, at no cost.
    """
    count, channels, height, width = x.shape
    rows, wide, high = height * width, _power(channels), _high(channels)
    steps = _power(_parts(rows, high * CHUNKS))  # a power, so that few kernels serve all sizes
    chunks, size = _parts(rows, steps * high), channels // norm.num_groups
    means, spreads = torch.empty(2, count, chunks, channels, dtype=torch.float32, device=x.device).unbind(0)
    centres, slopes = torch.empty(2, count, channels, dtype=torch.float32, device=x.device).unbind(0)
    _kernels().moments[(chunks, count)](
        x, means, spreads, rows, CHANNELS=channels, WIDE=wide, HIGH=high, STEPS=steps, num_warps=4
    )
    columns = _power(size)
    lines = min(_power(chunks), max(1, ROOM // columns))
    _kernels().pooled[(norm.num_groups, count)](
        means, spreads, norm.weight if before is None else before, norm.weight, centres, slopes,
        rows, steps * high, chunks, norm.eps, CHANNELS=channels, SIZE=size, WIDE=columns, HIGH=lines,
        STEPS=_power(_parts(chunks, lines)), BEFORE=before is not None, num_warps=8,
    )  # fmt: skip
    out = torch.empty_like(x, memory_format=torch.channels_last)
    _kernels().normalised[(_parts(rows, STEPS * high), count)](
        x, centres, slopes, norm.bias, out, rows,
        CHANNELS=channels, WIDE=wide, HIGH=high, STEPS=STEPS, SILU=silu, num_warps=4,
    )  # fmt: skip
    return out


def added(x: Tensor, other: Tensor, bias: Tensor) -> Tensor:
    """x + other (N C H W, channels last) + bias (C)."""
    count, channels, height, width = x.shape
    rows, high = count * height * width, _high(channels)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    _kernels().added[(_parts(rows, STEPS * high),)](
        x, other, bias, out, rows, CHANNELS=channels, WIDE=_power(channels), HIGH=high, STEPS=STEPS, num_warps=4
    )
    return out


def bare(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution without its bias, which torch would add in a pass of its own."""
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding).contiguous(memory_format=torch.channels_last)


def by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one wide head as products on CUDA, scores in float32: fused kernels are made for narrow heads."""
    (flat, keys, values), parts = (part.flatten(0, 1) for part in (q, k, v)), []
    for some in flat.split(QUERIES, dim=1):
        scores = torch.bmm(some, keys.transpose(1, 2), out_dtype=torch.float32).mul_(q.shape[-1] ** -0.5)
        parts.append(torch.bmm(scores.softmax(-1).to(v.dtype), values))
    return torch.cat(parts, dim=1).view(q.shape)


def _high(channels: int) -> int:
    return max(1, TILE // _power(channels))


def _parts(number: int, size: int) -> int:
    return -(-number // size)


def _power(number: int) -> int:
    return int(1 << max(0, number - 1).bit_length())
