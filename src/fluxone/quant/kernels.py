"""Triton kernels for what lies between a block's products, one program a row: on CUDA devices, or in its interpreter.

    norm    x, shift, scale         -> rows for a product: numbers, or e4m3 with a scale
    heads   q | k | v, scales, angles -> queries, keys, values (N H D): RMS norm and rotation in float32
    inner   attention | activation  -> rows for a product
    gate    x + gate * y

All sums are float32; a row is read once. `available` says whether Triton is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

EPS = 1e-6
LARGEST = 448.0  # of e4m3
KIND = torch.float8_e4m3fn


Rows = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Made:
    """What a product gave (N O); scales of its rows (N 1) and columns (O), float32, and a bias may still be to come."""

    sums: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None
    bias: Tensor | None = None

    @property
    def beside(self) -> list[Tensor]:
        """A kernel's arguments: what is missing is never read, but has to be something."""
        return [self.sums if part is None else part for part in (self.rows, self.columns, self.bias)]


@cache
def available() -> bool:
    """Whether Triton can be imported."""
    return find_spec("triton") is not None


@cache
def _kernels() -> Any:
    """The compiled kernels; the module is imported when they are first needed."""
    from fluxone.quant import kernels_triton

    return kernels_triton


def norm(x: Tensor, shift: Tensor, scale: Tensor, *, whole: bool) -> Rows:
    """Rows (N C) normalised and modulated by (C): in the type of x, or with `whole` in e4m3 with scales (N 1)."""
    rows, columns = x.shape
    out, scales = _out(x, columns, whole)
    _kernels().norm[(rows,)](
        x, shift, scale, out, scales if scales is not None else x, columns, EPS, LARGEST,
        BLOCK=_power(columns), WHOLE=whole, num_warps=_warps(columns),
    )  # fmt: skip
    return out, scales


def heads(made: Made, norms: Tensor, turns: Tensor, out: tuple[Tensor, Tensor, Tensor], place: int) -> None:
    """Write queries, keys and values of rows (N, at least 3HD) to rows from `place` on of three tensors (M H D).

    Args:
        norms: the scales of the norms of queries and keys (2 D), float32.
        turns: cosine and sine of all M rows' angles (M D/2 2), float32.
    """
    _, count, size = out[0].shape
    _kernels().heads[(made.sums.shape[0], 3)](
        made.sums, *made.beside, norms, turns, *out, made.sums.stride(0), place, count, EPS,
        SIZE=size, HEADS=_power(count), BIAS=made.bias is not None, SCALED=made.rows is not None, num_warps=4,
    )  # fmt: skip


def inner(mixed: Tensor | None, made: Made | None, wide: int, like: Tensor, *, whole: bool) -> Rows:
    """What attention gave (N HD), then GELU of the last `wide` columns of a product (N O), side by side."""
    given = mixed if mixed is not None or made is None else made.sums
    assert given is not None
    made = made or Made(given)
    rows, narrow = given.shape[0], 0 if mixed is None else mixed.shape[1]
    out, scales = _out(like[:rows], narrow + wide, whole)
    first = given if mixed is None else mixed
    _kernels().inner[(rows,)](
        first, made.sums, *made.beside, out, out if scales is None else scales,
        first.stride(0), made.sums.stride(0), made.sums.shape[1] - wide, narrow, wide, LARGEST,
        NARROW=_power(max(narrow, 16)), WIDE=_power(max(wide, 16)), MIXED=narrow > 0, MADE=wide > 0,
        BIAS=made.bias is not None, WHOLE=whole, SCALED=made.rows is not None, num_warps=_warps(narrow + wide),
    )  # fmt: skip
    return out, scales


def gate(made: Made, gates: Tensor, x: Tensor) -> Tensor:
    """x + gates * (made + bias), rows (N C)."""
    out, (rows, columns) = torch.empty_like(x), x.shape
    _kernels().gate[(rows,)](
        made.sums, *made.beside, gates, x, out, columns,
        BLOCK=_power(columns), BIAS=made.bias is not None, SCALED=made.rows is not None, num_warps=_warps(columns),
    )  # fmt: skip
    return out


def _out(like: Tensor, columns: int, whole: bool) -> Rows:
    rows = like.shape[0]
    out = torch.empty(rows, columns, dtype=KIND if whole else like.dtype, device=like.device)
    return out, torch.empty(rows, 1, dtype=torch.float32, device=like.device) if whole else None


def _power(number: int) -> int:
    return int(1 << max(0, number - 1).bit_length())


def _warps(columns: int) -> int:
    return 4 if columns <= 4096 else 8 if columns <= 8192 else 16
