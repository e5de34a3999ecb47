"""The kernels of `kernels.py`, in Triton: imported only where one is launched."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def norm(x, shift, scale, out, scales, columns, eps, largest, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """One row: layer norm, (1 + scale) times it plus shift."""
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    there = at < columns
    value = tl.load(x + row * columns + at, mask=there, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=0) / columns
    value = tl.where(there, value - mean, 0.0)
    value = value * (1.0 / tl.sqrt(tl.sum(value * value, axis=0) / columns + eps))
    own_scale = tl.load(scale + at, mask=there, other=0.0).to(tl.float32)
    own_shift = tl.load(shift + at, mask=there, other=0.0).to(tl.float32)
    value = tl.where(there, (1.0 + own_scale) * value + own_shift, 0.0)
    if WHOLE:
        most = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-12) / largest
        tl.store(scales + row, most)
        value = value / most
    tl.store(out + row * columns + at, value.to(out.dtype.element_ty), mask=there)


@triton.jit
def heads(
    made, own, factors, bias, norms, turns, q, k, v, stride, place, count, eps,
    SIZE: tl.constexpr, HEADS: tl.constexpr, BIAS: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """One row's queries, keys or values of all heads."""
    row = tl.program_id(0)
    which = tl.program_id(1)
    head = tl.arange(0, HEADS)[:, None]
    at = tl.arange(0, SIZE)[None, :]
    there = (head < count) & (at < SIZE)
    place_in = (which * count + head) * SIZE + at
    value = tl.load(made + row.to(tl.int64) * stride + place_in, mask=there, other=0.0).to(tl.float32)
    if SCALED:
        value *= tl.load(own + row) * tl.load(factors + place_in, mask=there, other=0.0)
    if BIAS:
        value += tl.load(bias + place_in, mask=there, other=0.0).to(tl.float32)
    to = (place + row).to(tl.int64) * count * SIZE + head * SIZE + at
    if which == 2:
        tl.store(v + to, value.to(v.dtype.element_ty), mask=there)
    else:
        mean = tl.sum(value * value, axis=1) / SIZE
        value = value * (1.0 / tl.sqrt(mean + eps))[:, None] * tl.load(norms + which * SIZE + at)
        turn = tl.load(turns + (place + row) * SIZE + at)
        cos, sin = tl.split(tl.reshape(turn, (1, SIZE // 2, 2)))
        a, b = tl.split(tl.reshape(value, (HEADS, SIZE // 2, 2)))
        value = tl.reshape(tl.join(a * cos - b * sin, b * cos + a * sin), (HEADS, SIZE))
        if which == 0:
            tl.store(q + to, value.to(q.dtype.element_ty), mask=there)
        else:
            tl.store(k + to, value.to(k.dtype.element_ty), mask=there)


@triton.jit
def inner(
    mixed, made, own, factors, bias, out, scales, mixed_stride, made_stride, start, narrow, wide, largest,
    NARROW: tl.constexpr, WIDE: tl.constexpr, MIXED: tl.constexpr, MADE: tl.constexpr,
    BIAS: tl.constexpr, WHOLE: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """One row: what attention gave, and beside it the tanh form of GELU, as x * sigmoid(2 * sqrt(2/pi) * (...))."""
    row = tl.program_id(0).to(tl.int64)
    most = 1e-12
    if MIXED:
        at = tl.arange(0, NARROW)
        first = tl.load(mixed + row * mixed_stride + at, mask=at < narrow, other=0.0).to(tl.float32)
        most = tl.maximum(most, tl.max(tl.abs(first), axis=0))
    if MADE:
        along = tl.arange(0, WIDE)
        second = tl.load(made + row * made_stride + start + along, mask=along < wide, other=0.0).to(tl.float32)
        if SCALED:
            second *= tl.load(own + row) * tl.load(factors + start + along, mask=along < wide, other=0.0)
        if BIAS:
            second += tl.load(bias + start + along, mask=along < wide, other=0.0).to(tl.float32)
        inside = 1.5957691216 * (second + 0.044715 * second * second * second)
        second = second / (1.0 + tl.exp(-inside))
        most = tl.maximum(most, tl.max(tl.abs(second), axis=0))
    most = most / largest if WHOLE else 1.0
    if WHOLE:
        tl.store(scales + row, most)
    columns = narrow + wide
    if MIXED:
        tl.store(out + row * columns + at, (first / most).to(out.dtype.element_ty), mask=at < narrow)
    if MADE:
        to = out + row * columns + narrow + along
        tl.store(to, (second / most).to(out.dtype.element_ty), mask=along < wide)


@triton.jit
def gate(
    made, own, factors, bias, gates, x, out, columns, BLOCK: tl.constexpr, BIAS: tl.constexpr, SCALED: tl.constexpr
):
    """One row: x + gate * (made + bias)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < columns
    value = tl.load(made + row * columns + at, mask=there, other=0.0).to(tl.float32)
    if SCALED:
        value *= tl.load(own + row) * tl.load(factors + at, mask=there, other=0.0)
    if BIAS:
        value += tl.load(bias + at, mask=there, other=0.0).to(tl.float32)
    own = tl.load(gates + at, mask=there, other=0.0).to(tl.float32)
    value = tl.load(x + row * columns + at, mask=there, other=0.0).to(tl.float32) + own * value
    tl.store(out + row * columns + at, value.to(out.dtype.element_ty), mask=there)
