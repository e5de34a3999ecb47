"""What an adapter does to one parameter of the network, in the network's own names, and how it is merged exactly.

    Target   a parameter, or one piece (query, key, value, mlp) of the rows of a fused one
    Delta    a Target, a Factor, and DoRA's magnitude if there is one

    weight' = weight + strength * difference(weight)

A difference is the factor's matrix; with a magnitude m it is m * (weight + matrix) / |weight + matrix| - weight,
the norm being that of the updated weight, along the axis that m's shape leaves out. Several adapters add up,
each one's difference taken from the original weight.

Source: Liu et al. 2024 (DoRA); KohakuBlueleaf/LyCORIS, `locon.apply_weight_decompose` (norm, axes, epsilon).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fluxone.errors import BadWeights
from fluxone.lora.factors import Factor, Instead, LowRank


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parameter of one part of the model.

    Attributes:
        part: one of `weights.keymap.PARTS`.
        module, leaf: the parameter's name is `module.leaf`.
        piece, pieces: which of how many pieces of the rows, where the file names pieces; else 0 of 1. A piece is as
            high as the network is wide, the last one takes what is left.
        span: pieces from there on that are meant together.
        swap: the file has the two halves of the rows in each other's place; reading mends it.
    """

    part: str
    module: str
    leaf: str = "weight"
    piece: int = 0
    pieces: int = 1
    span: int = 1
    swap: bool = False

    @property
    def name(self) -> str:
        """Of the parameter."""
        return f"{self.module}.{self.leaf}"

    def rows(self, total: int, width: int) -> slice:
        """The rows that are meant, of `total`, in a network of that width."""
        end = self.piece + self.span
        return slice(self.piece * width, total if end == self.pieces else end * width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Delta:
    """What an adapter does to one target. `magnitude` is (out, 1) or (1, in)."""

    target: Target
    factor: Factor
    magnitude: Tensor | None = None

    @property
    def kind(self) -> str:
        """What people call it."""
        name = KINDS.get(type(self.factor).__name__, "diff")
        return name if self.magnitude is None else f"dora of {name}"

    def difference(self, weight: Tensor) -> Tensor:
        """What is added to these rows of the original weight at strength 1; computed in the type of `weight`."""
        change = self.factor.matrix(weight.dtype)
        if isinstance(self.factor, Instead):
            return widened(change, weight.shape) - weight
        if change.ndim == weight.ndim == 2 and change.shape[1] < weight.shape[1]:  # of the noise's channels alone
            return widened(self.difference(weight[:, : change.shape[1]]), weight.shape)
        change = change.reshape(weight.shape)
        if self.magnitude is None:
            return change
        return self.gain(weight) * (weight + change) - weight

    def gain(self, weight: Tensor) -> Tensor:
        """DoRA's factor a row (out, 1) or a column (1, in): magnitude over the updated weight's norm."""
        assert self.magnitude is not None
        updated = weight + self.factor.matrix(weight.dtype)
        axis = 1 if self.magnitude.shape[1] == 1 else 0
        norm = torch.linalg.vector_norm(updated, dim=axis, keepdim=True)
        gain: Tensor = self.magnitude.to(weight.dtype) / (norm + torch.finfo(weight.dtype).eps)
        return gain

    def to(self, device: torch.device) -> Delta:
        """The same on a device."""
        magnitude = None if self.magnitude is None else self.magnitude.to(device)
        return replace(self, factor=self.factor.each(lambda tensor: tensor.to(device)), magnitude=magnitude)

    def swapped(self) -> Delta:
        """The same with the halves of the rows exchanged."""
        magnitude = self.magnitude
        if magnitude is not None and magnitude.shape[0] > 1:
            magnitude = torch.cat(tuple(reversed(magnitude.chunk(2))))
        return replace(self, factor=self.factor.swapped(), magnitude=magnitude)


KINDS = {"LowRank": "lora", "Kronecker": "lokr", "Hadamard": "loha", "Full": "diff", "Instead": "set"}


def merged(weight: Tensor, deltas: Iterable[tuple[Delta, float]], width: int) -> Tensor:
    """The parameter with all of an adapter's or several adapters' deltas in it, in its own type.

    Sums are made in float32, or in float64 if the parameter is. A factor with more columns than the weight (the
    control LoRA's `img_in`) widens it: the new columns start from zero.

    Args:
        width: of the network, which is the height of a piece of a fused weight.
    """
    exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
    todo = [(delta, strength) for delta, strength in deltas if strength]
    columns = max((delta.factor.shape[1] for delta, _ in todo if len(delta.factor.shape) == 2), default=0)
    base = weight.to(exact)
    if weight.ndim == 2 and columns > weight.shape[1]:
        base = widened(base, (weight.shape[0], columns))
    out = base.clone()
    for delta, strength in sorted(todo, key=lambda pair: not isinstance(pair[0].factor, Instead)):
        rows = delta.target.rows(base.shape[0], width)
        strength = 1.0 if isinstance(delta.factor, Instead) else strength
        out[rows] += strength * delta.to(out.device).difference(base[rows])
        if isinstance(delta.factor, Instead):
            base = out.clone()
    return out.to(weight.dtype)


def widened(tensor: Tensor, shape: Iterable[int]) -> Tensor:
    """The tensor with zeros to the right, up to the shape."""
    shape = tuple(shape)
    if tuple(tensor.shape) == shape or tensor.ndim != 2:
        return tensor.reshape(shape)
    out = tensor.new_zeros(shape)
    out[:, : tensor.shape[1]] = tensor
    return out


def misfit(delta: Delta, shape: tuple[int, ...], width: int, *, noise: int | None) -> str | None:
    """Why a delta cannot go into a parameter of that shape, or None.

    Args:
        noise: of the layer that takes the picture, how many of its columns are the noise's, which stand first: a delta
            may be of them alone, as those made for the base model are, or have more columns than the layer.
    """
    target, found = delta.target, delta.factor.shape
    if target.pieces > 1 and shape[0] < (target.pieces - 1) * width:
        return f"{target.name} is {list(shape)} and has no {target.pieces} pieces"
    rows = target.rows(shape[0], width)
    wanted = (rows.stop - rows.start, *shape[1:])
    if found != wanted and not (noise is not None and _widens(delta, wanted, noise)):
        return f"{target.name}: made for {list(found)}, this model has {list(wanted)}"
    if isinstance(delta.factor, LowRank) and delta.factor.up.shape[1] != delta.factor.down.shape[0]:
        return f"{target.name}: up has rank {delta.factor.up.shape[1]}, down {delta.factor.down.shape[0]}"
    if delta.magnitude is not None and tuple(delta.magnitude.shape) not in ((found[0], 1), (1, found[-1])):
        return f"{target.name}: a magnitude of {list(delta.magnitude.shape)} for {list(found)}"
    return None


def _widens(delta: Delta, wanted: tuple[int, ...], noise: int) -> bool:
    found, plain = delta.factor.shape, delta.magnitude is None and not isinstance(delta.factor, Instead)
    return len(found) == 2 and found[0] == wanted[0] and (found[1] > wanted[1] or (plain and found[1] == noise))


def check_finite(tensors: Iterable[tuple[str, Tensor]], place: object) -> None:
    """Refuse a file with numbers that are none.

    Raises:
        BadWeights: a tensor holds NaN or infinity.
    """
    for name, tensor in tensors:
        if not tensor.is_meta and tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise BadWeights(f"{place}: {name} holds NaN or infinity", hint="get the file again")
