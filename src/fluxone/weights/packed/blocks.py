"""GGML's blocks to numbers: one function a type, `(blocks, bytes) -> (blocks, numbers)` in float32.

Numbers of few bits lie in bytes so that a block's first half is in the low bits. The K types have blocks of 256 in
sub-blocks of 16 or 32, each with a scale (and a least value) of few bits, which one float16 scales again.

Source: ggml-org/ggml, `src/ggml-common.h` (layouts) and `dequantize_row_*` of `src/ggml-quants.c`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Blocks = UInt8[Tensor, "N B"]
Numbers = Float[Tensor, "N K"]

# Of the types IQ4: sixteen steps, closer together around zero.
STEPS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _half(blocks: Blocks, at: int) -> Float[Tensor, "N 1"]:
    """The float16 at a byte of every block."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _bits(part: Blocks, width: int, lane: int) -> UInt8[Tensor, "N L"]:
    """Few-bit numbers: of each `lane` bytes first their lowest bits, then the next."""
    lanes = part.unflatten(1, (-1, 1, lane))
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=part.device)[:, None]
    numbers: Tensor = (lanes >> shifts) & ((1 << width) - 1)
    return numbers.flatten(1)


def _fifth(part: Blocks) -> UInt8[Tensor, "N 32"]:
    """Bits 0 to 31 of four bytes, each as 16: the fifth bit of 32 numbers."""
    shifts = torch.arange(8, dtype=torch.uint8, device=part.device)
    bits: Tensor = ((part[:, :, None] >> shifts) & 1) << 4
    return bits.flatten(1)


def _spread(scales: Float[Tensor, "N S"], numbers: Tensor) -> Numbers:
    """Each sub-block's numbers times its scale."""
    spread: Tensor = numbers.float().unflatten(1, (scales.shape[1], -1)) * scales[:, :, None]
    return spread.flatten(1)


def _sixes(part: UInt8[Tensor, "N 12"]) -> tuple[UInt8[Tensor, "N 8"], UInt8[Tensor, "N 8"]]:
    """Eight scales and eight least values, six bits each."""
    low, high, rest = part[:, :4], part[:, 4:8], part[:, 8:]
    scales = torch.cat((low & 63, (rest & 15) | (low >> 6 << 4)), dim=1)
    least = torch.cat((high & 63, (rest >> 4) | (high >> 6 << 4)), dim=1)
    return scales, least


def _q4_0(blocks: Blocks) -> Numbers:
    return _half(blocks, 0) * (_bits(blocks[:, 2:], 4, 16).float() - 8)


def _q4_1(blocks: Blocks) -> Numbers:
    return _half(blocks, 0) * _bits(blocks[:, 4:], 4, 16).float() + _half(blocks, 2)


def _q5_0(blocks: Blocks) -> Numbers:
    numbers = _bits(blocks[:, 6:], 4, 16) | _fifth(blocks[:, 2:6])
    return _half(blocks, 0) * (numbers.float() - 16)


def _q5_1(blocks: Blocks) -> Numbers:
    numbers = _bits(blocks[:, 8:], 4, 16) | _fifth(blocks[:, 4:8])
    return _half(blocks, 0) * numbers.float() + _half(blocks, 2)


def _q8_0(blocks: Blocks) -> Numbers:
    return _half(blocks, 0) * blocks[:, 2:].view(torch.int8).float()


def _q8_k(blocks: Blocks) -> Numbers:
    return blocks[:, :4].contiguous().view(torch.float32) * blocks[:, 4:260].view(torch.int8).float()


def _q2_k(blocks: Blocks) -> Numbers:
    scales, numbers = blocks[:, :16], _bits(blocks[:, 16:80], 2, 32)
    least = _spread(_half(blocks, 82) * (scales >> 4).float(), torch.ones_like(numbers))
    return _spread(_half(blocks, 80) * (scales & 15).float(), numbers) - least


def _q3_k(blocks: Blocks) -> Numbers:
    high = _bits(blocks[:, :32], 1, 32) ^ 1  # a bit that is not set means four less
    numbers = _bits(blocks[:, 32:96], 2, 32).float() - 4 * high.float()
    scales = _bits(blocks[:, 96:104], 4, 8) | (_bits(blocks[:, 104:108], 2, 4) << 4)
    return _spread(_half(blocks, 108) * (scales.float() - 32), numbers)


def _q4_k(blocks: Blocks) -> Numbers:
    scales, least = _sixes(blocks[:, 4:16])
    numbers = _bits(blocks[:, 16:], 4, 32)
    lowest = _spread(_half(blocks, 2) * least.float(), torch.ones_like(numbers))
    return _spread(_half(blocks, 0) * scales.float(), numbers) - lowest


def _q5_k(blocks: Blocks) -> Numbers:
    scales, least = _sixes(blocks[:, 4:16])
    numbers = _bits(blocks[:, 48:], 4, 32) | (_bits(blocks[:, 16:48], 1, 32) << 4)
    lowest = _spread(_half(blocks, 2) * least.float(), torch.ones_like(numbers))
    return _spread(_half(blocks, 0) * scales.float(), numbers) - lowest


def _q6_k(blocks: Blocks) -> Numbers:
    numbers = _bits(blocks[:, :128], 4, 64) | (_bits(blocks[:, 128:192], 2, 32) << 4)
    scales = blocks[:, 192:208].view(torch.int8).float()
    return _spread(_half(blocks, 208) * scales, numbers.float() - 32)


def _step(numbers: UInt8[Tensor, "N K"]) -> Numbers:
    return torch.tensor(STEPS, dtype=torch.float32, device=numbers.device)[numbers.int()]


def _iq4_nl(blocks: Blocks) -> Numbers:
    return _half(blocks, 0) * _step(_bits(blocks[:, 2:], 4, 16))


def _iq4_xs(blocks: Blocks) -> Numbers:
    high = _bits(blocks[:, 2:4], 2, 1)
    scales = _bits(blocks[:, 4:8], 4, 1) | (high << 4)
    return _spread(_half(blocks, 0) * (scales.float() - 32), _step(_bits(blocks[:, 8:], 4, 16)))


NUMBERS: dict[str, Callable[[Blocks], Numbers]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q8_K": _q8_k,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}


def numbers_of(dtype: str, blocks: Blocks) -> Numbers:
    """What blocks of a type stand for.

    Raises:
        MissingExtra: the type is one of those with tables, which the package `gguf` has, and that is not installed.
    """
    if dtype in NUMBERS:
        return NUMBERS[dtype](blocks)
    from fluxone.weights.packed.tables import by_tables

    return by_tables(dtype, blocks)
