"""A converted file read again and held against what it was made from, number by number, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fluxone.errors import BadWeights
from fluxone.weights.mapped import DTYPES
from fluxone.weights.native import Native

CHUNK = 1 << 22  # numbers compared at a time
# How far a number may come back from where it was, as a share of its tensor's largest, by what it was written as: half
# a step of the type, and what rounding the steps themselves adds.
ALLOWED = {
    "F64": 0.0,
    "F32": 2**-23,
    "F16": 2**-11,
    "BF16": 2**-8,
    "F8_E4M3": 2**-4,
    "F8_E5M2": 2**-3,
    "Q8_0": 1 / 220,
    "Q5_1": 1 / 28,
    "Q5_0": 1 / 15,
    "Q4_1": 1 / 14,
    "Q4_0": 1 / 7,
}


@dataclass
class Checked:
    """What a comparison found.

    Attributes:
        exact: tensors that came back equal.
        rounded: tensors that came back within their type's rounding.
        worst: the largest error, as a share of its tensor's largest number, and where it was.
    """

    exact: int = 0
    rounded: int = 0
    worst: float = 0.0
    where: str = ""


def compare(source: Native, result: Native, written: dict[str, str], checked: Checked) -> None:
    """Hold a part against what it was made from.

    Args:
        written: native name -> what it was written as, a row of `ALLOWED`.
        checked: what was found so far; it is added to.

    Raises:
        BadWeights: a tensor is farther off than its type's rounding.
    """
    for name in source.shapes:
        error, largest = _differ(source, result, name)
        kind, held = written[name], source.dtype(name)
        allowed = 0.0 if held is not None and holds(kind, held) else ALLOWED[kind] * largest + 2**-24
        if not error <= allowed:
            raise BadWeights(
                f"{name} comes back from {kind} with an error of {error:g}, its largest number is {largest:g}",
                hint="use a wider type, or a scaled one; nothing was kept",
            )
        checked.exact += error == 0
        checked.rounded += error > 0
        if largest and error / largest > checked.worst:
            checked.worst, checked.where = error / largest, name
        source.release(name)
        result.release(name)


def holds(kind: str, dtype: torch.dtype) -> bool:
    """Whether every number of a floating-point type can be written as a kind without rounding."""
    if kind not in DTYPES or not DTYPES[kind].is_floating_point:
        return False
    wide, own = torch.finfo(DTYPES[kind]), torch.finfo(dtype)
    return wide.eps <= own.eps and wide.max >= own.max


def _differ(source: Native, result: Native, name: str) -> tuple[float, float]:
    """The largest difference, and the largest number of the source."""
    shape = source.shapes[name]
    rows = shape[0] if shape else 1
    count = 1
    for side in shape[1:]:
        count *= side
    step = max(1, CHUNK // max(1, count))
    error, largest = torch.zeros(()), torch.zeros(())
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        own = _wide(source.rows(name, start, stop))
        error = torch.maximum(error, (_wide(result.rows(name, start, stop)) - own).abs().amax())
        largest = torch.maximum(largest, own.abs().amax())
    return float(error), float(largest)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
