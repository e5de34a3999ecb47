"""The same numbers, in the order in which this processor multiplies them quickest.

oneDNN brings a weight into an order of its own before each product; here that is done once. It is for CPUs, and what it
gives is for this machine: it is never saved, and moves to no device.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fluxone.errors import BrokenModel
from fluxone.quant.layer import Packed, Scheme

ROWS = 512  # tokens that the order is best for; others are right too


def pack(weight: Tensor) -> Packed:
    """The weight in oneDNN's order, in its own type.

    Raises:
        BrokenModel: it holds NaN or infinity, which cannot be seen afterwards.
    """
    if not torch.isfinite(weight).all():
        raise BrokenModel("a weight holds NaN or infinity", hint="the file is broken: get it again")
    return {"weight": torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)}


def unpack(packed: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The weight in the usual order."""
    return packed["weight"].to_dense().to(dtype)


def multiply(x: Tensor, packed: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    """One product of oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed["weight"], bias, "none", [], "")
    return out


PACKED = Scheme(name="packed", bits=0, pack=pack, unpack=unpack, multiply=multiply, plain=True)
