"""The ways in which files write a change of a weight compactly, and the numbers that each of them stands for.

    LowRank    scale * up @ down                  Kronecker  scale * (one ⊗ two)
    Hadamard   scale * (up1 @ down1) * (up2 @ down2)          Full   scale * the change itself

`matrix` gives the change itself, `times` its product with a stream without making it where that is cheaper.

Source: Hu et al. 2021 (LoRA); Hyeon-Woo et al. 2021 (FedPara); KohakuBlueleaf/LyCORIS, `lokr` and `loha`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

S = TypeVar("S", bound="Factor")


@dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """A change of one tensor. `scale` is the file's own (alpha over rank), not the user's."""

    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the change."""
        raise AssertionError("each kind says its own")

    @property
    def rank(self) -> int | None:
        """Of the change, where the kind bounds it."""
        return None

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """The change itself, computed in `dtype`."""
        raise AssertionError("each kind says its own")

    def times(self, x: Tensor) -> Tensor:
        """`x @ matrix.T`, in the type of x."""
        return F.linear(x, self.matrix(x.dtype))

    def norm(self) -> float:
        """The root of the sum of the squares of the change."""
        return float(torch.linalg.vector_norm(self.matrix(torch.float32)))

    def swapped(self) -> Factor:
        """The same change with the two halves of its rows in each other's place."""
        return Full(value=_swap(self.matrix(torch.float64)))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field."""
        return {item.name: value for item in fields(self) if isinstance(value := getattr(self, item.name), Tensor)}

    def each(self: S, change: Callable[[Tensor], Tensor]) -> S:
        """The factor with `change` made to each of its tensors."""
        changed: dict[str, Any] = {name: change(value) for name, value in self.tensors().items()}
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank(Factor):
    """Of rank at most `down`'s rows: down (rank, in), up (out, rank)."""

    down: Tensor
    up: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        return (self.up.shape[0], self.down.shape[1])

    @property
    def rank(self) -> int | None:
        """Rows of `down`."""
        return self.down.shape[0]

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """scale * up @ down."""
        return self.scale * (self.up.to(dtype) @ self.down.to(dtype))

    def times(self, x: Tensor) -> Tensor:
        """Down, then up: never the matrix."""
        return self.scale * F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))

    def norm(self) -> float:
        """From the two small products, never the matrix."""
        up, down = self.up.double(), self.down.double()
        square = ((up.T @ up) * (down @ down.T)).sum()
        return abs(self.scale) * float(square.clamp(min=0).sqrt())

    def swapped(self) -> LowRank:
        """The halves of `up` exchanged."""
        return replace(self, up=_swap(self.up))


@dataclass(frozen=True, kw_only=True, eq=False)
class Kronecker(Factor):
    """The Kronecker product of two small matrices, each possibly itself a product (`a @ b`)."""

    one: Tensor | None = None
    one_a: Tensor | None = None
    one_b: Tensor | None = None
    two: Tensor | None = None
    two_a: Tensor | None = None
    two_b: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        (a, b), (c, d) = (_product_shape(*side) for side in self._sides())
        return (a * c, b * d)

    @property
    def rank(self) -> int | None:
        """Of the factorized sides, as the files count it; None if both are whole."""
        return next((b.shape[0] for b in (self.two_b, self.one_b) if b is not None), None)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """scale * (one ⊗ two)."""
        one, two = (_product(*side, dtype) for side in self._sides())
        return torch.kron((self.scale * one).contiguous(), two.contiguous())

    def times(self, x: Tensor) -> Tensor:
        """Two, then one, on x folded to (in of one, in of two): never the matrix."""
        one, two = (_product(*side, x.dtype) for side in self._sides())
        folded = x.unflatten(-1, (one.shape[1], two.shape[1]))
        return self.scale * (one @ F.linear(folded, two)).flatten(-2)

    def norm(self) -> float:
        """The product of the two matrices' norms."""
        one, two = (float(torch.linalg.vector_norm(_product(*side, torch.float32))) for side in self._sides())
        return abs(self.scale) * one * two

    def swapped(self) -> Factor:
        """The halves of the first matrix exchanged, if it has halves."""
        if _product_shape(*self._sides()[0])[0] % 2:
            return super().swapped()
        if self.one is not None:
            return replace(self, one=_swap(self.one))
        assert self.one_a is not None
        return replace(self, one_a=_swap(self.one_a))

    def _sides(self) -> tuple[tuple[Tensor | None, Tensor | None, Tensor | None], ...]:
        return (self.one, self.one_a, self.one_b), (self.two, self.two_a, self.two_b)


@dataclass(frozen=True, kw_only=True, eq=False)
class Hadamard(Factor):
    """The product, number by number, of two low-rank matrices: ups (out, rank), downs (rank, in)."""

    up1: Tensor
    down1: Tensor
    up2: Tensor
    down2: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        return (self.up1.shape[0], self.down1.shape[1])

    @property
    def rank(self) -> int | None:
        """Of each of the two, as the files count it."""
        return self.down1.shape[0]

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """scale * (up1 @ down1) * (up2 @ down2)."""
        first = self.up1.to(dtype) @ self.down1.to(dtype)
        return self.scale * first * (self.up2.to(dtype) @ self.down2.to(dtype))

    def swapped(self) -> Hadamard:
        """The halves of both ups exchanged."""
        return replace(self, up1=_swap(self.up1), up2=_swap(self.up2))


@dataclass(frozen=True, kw_only=True, eq=False)
class Full(Factor):
    """The change itself: of a matrix or of a vector."""

    value: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor that it changes."""
        return tuple(self.value.shape)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """scale * value."""
        return self.scale * self.value.to(dtype)

    def swapped(self) -> Full:
        """The halves of the first axis exchanged."""
        return replace(self, value=_swap(self.value))


@dataclass(frozen=True, kw_only=True, eq=False)
class Instead(Factor):
    """Not a change but the new value: it replaces the tensor at any strength but 0."""

    value: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor that it replaces."""
        return tuple(self.value.shape)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """The new value."""
        return self.value.to(dtype)

    def swapped(self) -> Instead:
        """The halves of the first axis exchanged."""
        return replace(self, value=_swap(self.value))


def _swap(tensor: Tensor) -> Tensor:
    return torch.cat(tuple(reversed(tensor.chunk(2))))


def _product(whole: Tensor | None, a: Tensor | None, b: Tensor | None, dtype: torch.dtype) -> Tensor:
    if whole is not None:
        return whole.to(dtype)
    assert a is not None and b is not None
    return a.to(dtype) @ b.to(dtype)


def _product_shape(whole: Tensor | None, a: Tensor | None, b: Tensor | None) -> tuple[int, int]:
    if whole is not None:
        return whole.shape[0], whole.shape[1]
    assert a is not None and b is not None
    return a.shape[0], b.shape[1]
