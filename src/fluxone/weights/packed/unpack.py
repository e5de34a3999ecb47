"""From packed numbers to plain ones, a stretch at a time, so that memory holds the result and little more.

A scheme is a function `(stored, entry, start, stop) -> float32 numbers`; start and stop count the tensor's numbers
from its first, and lie on the borders of chunks. Bytes come through `stored`, which reads an entry of a file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fluxone.weights.packed.blocks import numbers_of
from fluxone.weights.packed.find import BNB4, BNB8, SCALED
from fluxone.weights.packed.ggml import TYPES
from fluxone.weights.safetensors import Entry

CHUNK = 1 << 20  # numbers; a multiple of every block
INT8 = 127  # what bitsandbytes' largest number of a row becomes

Stored = Callable[[Entry], Tensor]  # an entry as it lies in the file, flat
Scheme = Callable[[Stored, Entry, int, int], Tensor]


def unpack(stored: Stored, entry: Entry, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """Numbers `start` to `stop` of a packed tensor, flat.

    Raises:
        MissingExtra: the type is a rare one, and the package `gguf` is not installed.
    """
    out = torch.empty(stop - start, dtype=dtype)
    for low in range(start - start % CHUNK, stop, CHUNK):
        high = min(low + CHUNK, entry.count)
        numbers = SCHEMES[entry.packing](stored, entry, low, high)
        first, last = max(low, start), min(high, stop)
        out[first - start : last - start].copy_(numbers[first - low : last - low])
    return out


def _ggml(stored: Stored, entry: Entry, start: int, stop: int) -> Tensor:
    kind = TYPES[entry.dtype]
    blocks = stored(entry).view(-1, kind.bytes)[start // kind.block : stop // kind.block]
    return numbers_of(entry.dtype, blocks).flatten()


def _scaled(stored: Stored, entry: Entry, start: int, stop: int) -> Tensor:
    scale = stored(entry.beside["scale"]).float()
    numbers = stored(entry)[start:stop].float()
    if scale.numel() == 1:
        return numbers * scale
    rows, columns = entry.shape
    side = entry.beside["scale"].shape
    across = side[1] if len(side) == 2 else 1
    place = torch.arange(start, stop)
    row = torch.div(place, columns * (rows // side[0]), rounding_mode="floor")
    column = torch.div(place % columns, columns // across, rounding_mode="floor")
    return numbers * scale[row * across + column]


def _four(stored: Stored, entry: Entry, start: int, stop: int) -> Tensor:
    """Two numbers a byte, the first in the high half; each is a step of the map times its block's largest."""
    steps = stored(entry.beside["map"])
    pairs = torch.stack((steps.repeat_interleave(16), steps.repeat(16)), dim=1)
    numbers = pairs[stored(entry)[start // 2 : -(-stop // 2)].int()].flatten()[: stop - start]
    block = int(entry.facts["block"])
    largest = stored(entry.beside["absmax"])[start // block : -(-stop // block)]
    if "outer" in entry.beside:
        wide = int(entry.facts["outer"])
        place = torch.arange(start // block, start // block + largest.numel()) // wide
        outer = stored(entry.beside["outer"])[place]
        largest = stored(entry.beside["outer map"])[largest.int()] * outer + float(entry.facts["offset"])
    return numbers * largest.repeat_interleave(block)[: numbers.numel()]


def _eight(stored: Stored, entry: Entry, start: int, stop: int) -> Tensor:
    row = torch.div(torch.arange(start, stop), entry.shape[1], rounding_mode="floor")
    scale = stored(entry.beside["scale"]).float() / INT8
    return stored(entry)[start:stop].float() * scale[row]


SCHEMES: dict[str, Scheme] = {"ggml": _ggml, SCALED: _scaled, BNB4: _four, BNB8: _eight}
