"""A linear layer whose weight is packed by a scheme: same name, same features, same bias, other bytes.

    weight (O I) --pack--> {name: tensor}: the layer's buffers --unpack--> weight (O I) in numbers
    x (... I) --multiply--> x @ weight.T + bias, in the type of x

A scheme knows one weight; which layers it is used on is not its business (`apply`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Packed = dict[str, Tensor]
Multiply = Callable[[Tensor, Mapping[str, Tensor], Tensor | None], Tensor]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A way to pack a weight.

    Attributes:
        bits: of a weight in memory, scales included, about; 0 if they are those of its type.
        pack: a weight in float32 to tensors by name; one of them is called `weight` and has O rows.
        unpack: those tensors to the weight, in a type.
        multiply: x (... I), those tensors and the bias to the layer's output, in the type of x.
        empty: shapes and types of those tensors for a weight of (O, I); None for a scheme that is never in a file.
        plain: whether `pack` wants the weight in the type that is computed in, and works on a CPU alone.
        takes: the type that tokens are brought to for a product, a scale each; None leaves them (`fused`).
        exact: whether all else in a block has to be done as without it, to the last bit.
        unpacks: whether the weight is brought to numbers for each product.
        fits: whether a weight of (O, I) can be packed so.
    """

    name: str
    bits: float
    pack: Callable[[Tensor], Packed]
    unpack: Callable[[Mapping[str, Tensor], torch.dtype], Tensor]
    multiply: Multiply
    empty: Callable[[int, int], Packed] | None = None
    plain: bool = False
    takes: torch.dtype | None = None
    exact: bool = False
    unpacks: bool = False
    fits: Callable[[int, int], bool] = lambda rows, columns: True


class QuantLinear(nn.Module):
    """A linear layer with a packed weight. Its buffers are in the state dict, beside the bias.

    Attributes:
        raw: buffers that hold bytes of a file as they lie there, with the shape that these stand for.
    """

    raw: Mapping[str, tuple[int, ...]] = {}

    def __init__(self, scheme: Scheme, packed: Packed, bias: nn.Parameter | None, in_features: int) -> None:
        super().__init__()
        self.scheme = scheme
        self.in_features, self.out_features = in_features, packed["weight"].shape[0]
        self.bias = bias
        self._names = tuple(packed) if scheme.empty is not None else ()
        self._own: Packed = {} if scheme.empty is not None else packed
        for name in self._names:
            self.register_buffer(name, packed[name])

    @classmethod
    def of(cls, layer: nn.Linear, scheme: Scheme, dtype: torch.dtype) -> QuantLinear:
        """The layer with its weight packed and its bias in a type. A weight without memory gives one without memory."""
        rows, columns = layer.out_features, layer.in_features
        if layer.weight.is_meta:
            assert scheme.empty is not None
            packed = {name: tensor.to("meta") for name, tensor in scheme.empty(rows, columns).items()}
        else:
            with torch.inference_mode(False), torch.no_grad():
                packed = scheme.pack(layer.weight.detach().to(dtype if scheme.plain else torch.float32))
        own = layer._parameters["bias"]
        bias = None if own is None else nn.Parameter(own.detach().to(dtype), requires_grad=False)
        return cls(scheme, packed, bias, columns)

    def packed(self) -> Packed:
        """The packed tensors by name."""
        return self._own or {name: self.get_buffer(name) for name in self._names}

    def dequantized(self) -> Tensor:
        """The weight (O I) that the packed one stands for, float32."""
        return self.scheme.unpack(self.packed(), torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """x @ weight.T + bias, in the type of x."""
        bias = self.bias if self.bias is None or self.bias.dtype == x.dtype else self.bias.to(x.dtype)
        return self.scheme.multiply(x, self.packed(), bias)

    def extra_repr(self) -> str:
        """What torch prints of it."""
        return f"{self.scheme.name}, in_features={self.in_features}, out_features={self.out_features}"
