"""Kinds of adapters: what each starts from beside a layer, so that the layer's output is at first the base's.

    lora   up (out, rank) = 0, down (rank, in) drawn          dora   the same, and a magnitude (out, 1) = the rows' norm
    lokr   two = 0, one drawn: their Kronecker product        full   the change itself = 0

Source: Hu et al. 2021 (LoRA); Liu et al. 2024 (DoRA); KohakuBlueleaf/LyCORIS, `lokr.py` (sizes of the two factors).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fluxone.lora.delta import Delta, Target
from fluxone.lora.factors import Full, Kronecker, LowRank
from fluxone.lora.layer import weight_of

LOKR_SIDE = 8  # the smaller factor's sides, where the layer's can be divided so


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large an adapter is. The scale is alpha over rank; it does not count for `full`."""

    rank: int
    alpha: float

    def scale(self, rank: int) -> float:
        """Of factors of that rank."""
        return self.alpha / rank


Make = Callable[[Target, nn.Module, Size, torch.Generator], Delta]


def _sides(layer: nn.Module) -> tuple[int, int]:
    out, inside = layer.out_features, layer.in_features
    assert isinstance(out, int) and isinstance(inside, int)
    return out, inside


def _drawn(rows: int, columns: int, rng: torch.Generator) -> Tensor:
    """Of unit gain: each row's product with a unit stream is about 1."""
    drawn: Tensor = torch.randn(rows, columns, generator=rng) * columns**-0.5
    return drawn


def lora(target: Target, layer: nn.Module, size: Size, rng: torch.Generator) -> Delta:
    """A low-rank pair; the rank is at most the layer's smaller side."""
    out, inside = _sides(layer)
    rank = min(size.rank, out, inside)
    down, up = _drawn(rank, inside, rng), torch.zeros(out, rank)
    return Delta(target=target, factor=LowRank(down=down, up=up, scale=size.scale(size.rank)))


def dora(target: Target, layer: nn.Module, size: Size, rng: torch.Generator) -> Delta:
    """A low-rank pair and the norm of each of the layer's rows, which is learnt by itself."""
    pair = lora(target, layer, size, rng)
    with torch.no_grad():
        norms = torch.linalg.vector_norm(weight_of(layer).float(), dim=1, keepdim=True)
    return Delta(target=target, factor=pair.factor, magnitude=norms.cpu())


def lokr(target: Target, layer: nn.Module, size: Size, rng: torch.Generator) -> Delta:
    """A small whole matrix, and a large one, of low rank if that is less."""
    out, inside = _sides(layer)
    a, b = divisor(out), divisor(inside)
    rows, columns = out // a, inside // b
    one = _drawn(a, b, rng)
    if size.rank * (rows + columns) >= rows * columns:
        return Delta(target=target, factor=Kronecker(one=one, two=torch.zeros(rows, columns)))
    inner = _drawn(size.rank, columns, rng)
    factor = Kronecker(one=one, two_a=torch.zeros(rows, size.rank), two_b=inner, scale=size.scale(size.rank))
    return Delta(target=target, factor=factor)


def full(target: Target, layer: nn.Module, size: Size, rng: torch.Generator) -> Delta:
    """The change of the whole weight."""
    return Delta(target=target, factor=Full(value=torch.zeros(*_sides(layer))))


def divisor(side: int) -> int:
    """The largest number up to `LOKR_SIDE` that divides a side."""
    return max(n for n in range(1, min(LOKR_SIDE, math.isqrt(side)) + 1) if side % n == 0)


KINDS: dict[str, Make] = {"lora": lora, "lokr": lokr, "dora": dora, "full": full}
