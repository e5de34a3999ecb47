"""The kernels of `channels_last.py`, in Triton: imported only where one is launched.

Features are rows of channels (N H*W C). A program has a chunk of rows, STEPS tiles of HIGH rows and WIDE >= CHANNELS
columns; only a chunk's own place is counted in 64 bits. Sizes that change from picture to picture are not specialised.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def moments(
    x, means, spreads, rows, CHANNELS: tl.constexpr, WIDE: tl.constexpr, HIGH: tl.constexpr, STEPS: tl.constexpr
):
    """Of each channel in a chunk: the mean, and the sum of squares around it; summed around the first tile's mean, so
    that a mean far from zero costs no digits."""
    chunk, picture = tl.program_id(0), tl.program_id(1)
    start = chunk.to(tl.int64) * STEPS * HIGH
    count = tl.minimum(rows - start, STEPS * HIGH).to(tl.int32)
    x += (picture.to(tl.int64) * rows + start) * CHANNELS
    row = tl.arange(0, HIGH)[:, None]
    channel = tl.arange(0, WIDE)
    at = row * CHANNELS + channel[None, :]
    inside = channel[None, :] < CHANNELS
    value = tl.load(x + at, mask=(row < count) & inside, other=0.0).to(tl.float32)
    shift = tl.sum(value, axis=0) / tl.minimum(count, HIGH).to(tl.float32)
    total = tl.zeros((HIGH, WIDE), tl.float32)
    square = tl.zeros((HIGH, WIDE), tl.float32)
    for step in range(STEPS):
        there = (step * HIGH + row < count) & inside
        value = tl.load(x + step * (HIGH * CHANNELS) + at, mask=there, other=0.0).to(tl.float32)
        value = tl.where(there, value - shift[None, :], 0.0)
        total += value
        square += value * value
    number = count.to(tl.float32)
    drift = tl.sum(total, axis=0) / number
    spread = tl.maximum(tl.sum(square, axis=0) - drift * drift * number, 0.0)
    to = (picture * tl.num_programs(0) + chunk) * CHANNELS + channel
    tl.store(means + to, shift + drift, mask=channel < CHANNELS)
    tl.store(spreads + to, spread, mask=channel < CHANNELS)


@triton.jit(do_not_specialize=["rows", "length", "chunks"])
def pooled(
    means, spreads, before, weight, centres, slopes, rows, length, chunks, eps,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, HIGH: tl.constexpr, STEPS: tl.constexpr,
    BEFORE: tl.constexpr,
):  # fmt: skip
    """One group of one picture: of its chunks' moments what each channel is centred at and multiplied with."""
    group, picture = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, WIDE)
    channel = group * SIZE + column
    inside = column < SIZE
    bias = tl.zeros((WIDE,), tl.float32)
    if BEFORE:
        bias += tl.load(before + channel, mask=inside, other=0.0).to(tl.float32)
    line = tl.arange(0, HIGH)[:, None]
    at = picture * chunks * CHANNELS + channel[None, :]
    total = tl.zeros((HIGH, WIDE), tl.float32)
    for step in range(STEPS):
        chunk = step * HIGH + line
        there = (chunk < chunks) & inside[None, :]
        number = tl.minimum(rows - chunk * length, length).to(tl.float32)
        mean = tl.load(means + chunk * CHANNELS + at, mask=there, other=0.0)
        total += tl.where(there, (mean + bias[None, :]) * number, 0.0)
    every = rows.to(tl.float32) * SIZE
    middle = tl.sum(tl.sum(total, axis=1), axis=0) / every
    total = tl.zeros((HIGH, WIDE), tl.float32)
    for step in range(STEPS):
        chunk = step * HIGH + line
        there = (chunk < chunks) & inside[None, :]
        number = tl.minimum(rows - chunk * length, length).to(tl.float32)
        mean = tl.load(means + chunk * CHANNELS + at, mask=there, other=0.0)
        spread = tl.load(spreads + chunk * CHANNELS + at, mask=there, other=0.0)
        away = mean + bias[None, :] - middle
        total += tl.where(there, spread + away * away * number, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(tl.sum(total, axis=1), axis=0) / every + eps)
    own = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(centres + picture * CHANNELS + channel, middle - bias, mask=inside)
    tl.store(slopes + picture * CHANNELS + channel, scale * own, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def normalised(
    x, centres, slopes, bias, out, rows,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, HIGH: tl.constexpr, STEPS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """(x - centre) * slope + bias, and its SiLU: the last chunk first, because that was read last."""
    chunk, picture = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    start = chunk.to(tl.int64) * STEPS * HIGH
    count = tl.minimum(rows - start, STEPS * HIGH).to(tl.int32)
    place = (picture.to(tl.int64) * rows + start) * CHANNELS
    row = tl.arange(0, HIGH)[:, None]
    channel = tl.arange(0, WIDE)[None, :]
    inside = channel < CHANNELS
    centre = tl.load(centres + picture * CHANNELS + channel, mask=inside, other=0.0)
    slope = tl.load(slopes + picture * CHANNELS + channel, mask=inside, other=0.0)
    own = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    for step in range(STEPS):
        there = (step * HIGH + row < count) & inside
        at = step * (HIGH * CHANNELS) + row * CHANNELS + channel
        value = tl.load(x + place + at, mask=there, other=0.0).to(tl.float32)
        value = (value - centre) * slope + own
        if SILU:
            value = value / (1.0 + tl.exp(-value))
        tl.store(out + place + at, value.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["rows"])
def added(
    x, other, bias, out, rows, CHANNELS: tl.constexpr, WIDE: tl.constexpr, HIGH: tl.constexpr, STEPS: tl.constexpr
):
    """x + other + bias, rows of all pictures."""
    start = tl.program_id(0).to(tl.int64) * STEPS * HIGH
    count = tl.minimum(rows - start, STEPS * HIGH).to(tl.int32)
    place = start * CHANNELS
    row = tl.arange(0, HIGH)[:, None]
    channel = tl.arange(0, WIDE)[None, :]
    inside = channel < CHANNELS
    own = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    for step in range(STEPS):
        there = (step * HIGH + row < count) & inside
        at = step * (HIGH * CHANNELS) + row * CHANNELS + channel
        value = tl.load(x + place + at, mask=there, other=0.0).to(tl.float32) + own
        value += tl.load(other + place + at, mask=there, other=0.0).to(tl.float32)
        tl.store(out + place + at, value.to(out.dtype.element_ty), mask=there)
