"""Adapters beside a linear layer: `out = linear(x) + strength * change(x)`, the layer itself untouched.

A layer that has adapters is of a class made for the purpose, below its own: what it computes without them is still
its own code, whatever the kind of its weight; the names of its parameters stay the same; and compiled code sees
that it is another layer. The adapters' tensors are buffers outside of the state dict, so that they move with the
layer and are saved with nothing. Strengths are tensors: changing one compiles nothing anew, and one a row of the
batch gives every picture its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fluxone.errors import BadWeights
from fluxone.lora.delta import Delta
from fluxone.lora.factors import Factor, Instead, LowRank

CHILD = "adapters"


class Side(nn.Module):
    """One delta of a linear layer at work: of its weight, or of its bias.

    Args:
        weight: the rows that the delta changes, where it needs to know them (DoRA).
        dtype: of the delta's tensors from now on.
    """

    strength: Tensor

    def __init__(self, delta: Delta, rows: slice, weight: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.rows, self.bias = rows, delta.target.leaf == "bias"
        factor = delta.factor
        if isinstance(factor, LowRank):
            factor = factor.each(lambda tensor: tensor.to(dtype))
        self._factor: Factor = factor
        for name, tensor in factor.tensors().items():
            self.register_buffer(name, tensor, persistent=False)
        self.by_row: bool | None = None
        if delta.magnitude is not None:
            assert weight is not None
            exact = torch.promote_types(weight.dtype, torch.float32)
            gain = delta.to(weight.device).gain(weight.to(exact)).to(dtype)
            self.by_row = gain.shape[1] == 1
            self.register_buffer("gain", gain.flatten(), persistent=False)
        self.register_buffer("strength", torch.zeros((), dtype=torch.float32), persistent=False)

    def change(self, x: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
        """What is added to the rows of the layer's output at strength 1. `plain`: the layer without its bias."""
        factor = self._here()
        if self.bias:
            return factor.matrix(x.dtype)
        x = x[..., : factor.shape[1]]
        if self.by_row is None:
            return factor.times(x)
        gain = self.get_buffer("gain").to(x.dtype)
        if self.by_row:
            return (gain - 1) * plain(x)[..., self.rows] + gain * factor.times(x)
        return plain(x * (gain - 1))[..., self.rows] + factor.times(x * gain)

    def added(self, out: Tensor, x: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's output with this side's part in its rows."""
        strength = self.strength.to(out.dtype)
        if strength.ndim:
            strength = strength.reshape(-1, *[1] * (out.ndim - 1))
        part = strength * self.change(x, plain)
        out[..., self.rows] += part  # the layer has just made it: nobody else has it
        return out

    def _here(self) -> Factor:
        """The factor with the tensors where they are now."""
        here: dict[str, Any] = {name: self.get_buffer(name) for name in self._factor.tensors()}
        rest = {name: value for name, value in vars(self._factor).items() if name not in here}
        return type(self._factor)(**here, **rest)


class Live:
    """What the class of a layer with adapters has besides the layer's own."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's own output, and what each adapter adds; an input wider than the layer is cut for it."""
        own: Callable[[Tensor], Tensor] = super().forward  # type: ignore[misc]
        inside, bias = self.in_features, self.bias  # type: ignore[attr-defined]

        def plain(x: Tensor) -> Tensor:
            return own(x[..., :inside]) if bias is None else own(x[..., :inside]) - bias

        out = own(x[..., :inside]) if x.shape[-1] > inside else own(x)
        for side in getattr(self, CHILD):
            out = side.added(out, x, plain)
        return out


def attach(layer: nn.Module, sides: Iterable[Side]) -> None:
    """Give a linear layer exactly these adapters; none makes it again what it was."""
    kept = list(sides)
    own = type(layer)
    if issubclass(own, Live):
        layer.__class__ = own.__mro__[2]  # the layer's own, below (Live..., Live, own)
        delattr(layer, CHILD)
    if kept:
        layer.add_module(CHILD, nn.ModuleList(kept))
        layer.__class__ = _live(type(layer))


def sides_of(layer: nn.Module) -> list[Side]:
    """The adapters that a layer has."""
    return list(getattr(layer, CHILD)) if isinstance(layer, Live) else []


def weight_of(layer: nn.Module) -> Tensor:
    """A linear layer's weight in numbers.

    Raises:
        BadWeights: it is packed, and the layer cannot unpack it.
    """
    unpack = getattr(layer, "dequantized", None)
    weight = layer.weight if unpack is None else unpack()
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise BadWeights(
            f"a {type(layer).__name__} does not give its weight, which this adapter needs to know",
            hint="merge it before quantizing",
        )
    return weight


def beside(delta: Delta) -> bool:
    """Whether a delta of a linear layer can work beside it; others change the parameter."""
    if isinstance(delta.factor, Instead):
        return False
    return delta.target.leaf == "bias" or (delta.target.leaf == "weight" and len(delta.factor.shape) == 2)


def _live(kind: type[nn.Module]) -> type[nn.Module]:
    if kind not in _KINDS:
        _KINDS[kind] = type(f"Live{kind.__name__}", (Live, kind), {})
    return _KINDS[kind]


_KINDS: dict[type[nn.Module], type[nn.Module]] = {}  # class of a layer -> that of such a layer with adapters
