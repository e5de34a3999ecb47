"""From numbers to packed ones: GGML's simple blocks, and fp8 as it is or with a scale for each weight.

Source: ggml-org/ggml, `quantize_row_*_ref` of `src/ggml-quants.c`; ComfyUI, `QUANTIZATION.md` (scale = largest / 448).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fluxone.errors import BadWeights
from fluxone.weights.packed.ggml import TYPES

CHUNK = 1 << 18  # numbers taken together; a multiple of every block

Numbers = Float[Tensor, "N K"]
Blocks = UInt8[Tensor, "N B"]


def _half(numbers: Float[Tensor, "N 1"]) -> UInt8[Tensor, "N 2"]:
    return numbers.half().view(torch.uint8)


def _inverse(step: Float[Tensor, "N 1"]) -> Float[Tensor, "N 1"]:
    return torch.where(step == 0, 0.0, 1 / step)


def _nibbles(numbers: UInt8[Tensor, "N 32"]) -> UInt8[Tensor, "N 16"]:
    """Four bits each: the first half of a block in the low ones."""
    return (numbers[:, :16] & 15) | (numbers[:, 16:] << 4)


def _fifths(numbers: UInt8[Tensor, "N 32"]) -> UInt8[Tensor, "N 4"]:
    """The fifth bit of 32 numbers, eight a byte."""
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
    bits: Tensor = (numbers >> 4).unflatten(1, (4, 8)) * weights
    return bits.sum(dim=2, dtype=torch.uint8)


def _signed(x: Numbers, bits: int) -> tuple[Float[Tensor, "N 1"], UInt8[Tensor, "N 32"]]:
    """Steps around zero: the number farthest from it becomes the lowest step, whatever its sign."""
    half = 1 << (bits - 1)
    farthest = x.gather(1, x.abs().argmax(dim=1, keepdim=True))
    step = farthest / -half
    return step, (x * _inverse(step) + half + 0.5).trunc().clamp(0, 2 * half - 1).byte()


def _ranged(x: Numbers, bits: int) -> tuple[Tensor, Tensor, UInt8[Tensor, "N 32"]]:
    """Steps from the least number to the largest."""
    most = (1 << bits) - 1
    least = x.amin(dim=1, keepdim=True)
    step = (x.amax(dim=1, keepdim=True) - least) / most
    return step, least, ((x - least) * _inverse(step) + 0.5).trunc().clamp(0, most).byte()


def _q8_0(x: Numbers) -> Blocks:
    step = x.abs().amax(dim=1, keepdim=True) / 127
    scaled = x * _inverse(step)
    away = torch.where(scaled < 0, -((0.5 - scaled).floor()), (scaled + 0.5).floor())  # halves go away from zero
    return torch.cat((_half(step), away.to(torch.int8).view(torch.uint8)), dim=1)


def _q4_0(x: Numbers) -> Blocks:
    step, numbers = _signed(x, 4)
    return torch.cat((_half(step), _nibbles(numbers)), dim=1)


def _q4_1(x: Numbers) -> Blocks:
    step, least, numbers = _ranged(x, 4)
    return torch.cat((_half(step), _half(least), _nibbles(numbers)), dim=1)


def _q5_0(x: Numbers) -> Blocks:
    step, numbers = _signed(x, 5)
    return torch.cat((_half(step), _fifths(numbers), _nibbles(numbers)), dim=1)


def _q5_1(x: Numbers) -> Blocks:
    step, least, numbers = _ranged(x, 5)
    return torch.cat((_half(step), _half(least), _fifths(numbers), _nibbles(numbers)), dim=1)


BLOCKS: dict[str, Callable[[Numbers], Blocks]] = {
    "Q8_0": _q8_0,
    "Q5_1": _q5_1,
    "Q5_0": _q5_0,
    "Q4_1": _q4_1,
    "Q4_0": _q4_0,
}


def in_blocks(dtype: str, tensor: Tensor) -> UInt8[Tensor, " B"]:
    """A tensor as GGML's blocks, flat; its last axis must be whole blocks."""
    kind = TYPES[dtype]
    flat = tensor.reshape(-1)
    out = torch.empty(flat.numel() // kind.block * kind.bytes, dtype=torch.uint8)
    for start in range(0, flat.numel(), CHUNK):
        blocks = BLOCKS[dtype](flat[start : start + CHUNK].float().view(-1, kind.block))
        first = start // kind.block * kind.bytes
        out[first : first + blocks.numel()] = blocks.flatten()
    return out


def scale_of(tensor: Tensor, dtype: torch.dtype) -> Float[Tensor, ""]:
    """The factor by which fp8 numbers of the full range become this tensor's, 1 for a tensor of zeros."""
    largest = max((_largest(piece) for piece in tensor.reshape(-1).split(CHUNK)), default=0.0)
    return torch.tensor(largest / torch.finfo(dtype).max if largest > 0 else 1.0)


def narrowed(tensor: Tensor, dtype: torch.dtype, name: str, scale: Tensor | None = None) -> Tensor:
    """A tensor in another floating-point type, after division by a scale if there is one.

    Raises:
        BadWeights: the type does not reach as far as the numbers do.
    """
    out = torch.empty(tensor.shape, dtype=dtype)
    most = torch.finfo(dtype).max
    flat = out.view(-1)
    for start, piece in zip(range(0, tensor.numel(), CHUNK), tensor.reshape(-1).split(CHUNK), strict=False):
        if scale is not None:
            piece = (piece.float() / scale).clamp_(-most, most)
        elif torch.finfo(piece.dtype).max > most and (largest := _largest(piece)) > most:
            raise BadWeights(
                f"{name} holds {largest:g}, and {str(dtype).removeprefix('torch.')} ends at {most:g}",
                hint="use a scaled or wider type",
            )
        flat[start : start + piece.numel()].copy_(piece)
    return out


def _largest(piece: Tensor) -> float:
    """The largest number's size, found without a copy."""
    low, high = (piece if piece.itemsize > 1 else piece.float()).aminmax()
    return max(-float(low), float(high))
