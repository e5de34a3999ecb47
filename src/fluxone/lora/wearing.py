"""Adapters of a batch whose pictures have their own: which work for the time of a walk, and how strongly for each row.

    scales: name -> one number a picture     --wearing-->  these adapters work     --by_row, along-->  a strength a row

Beside a layer an adapter's strength may differ from row to row of a batch; a parameter that it replaces cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from fluxone.errors import BadRequest, pick
from fluxone.lora.adapters import Adapters, Strength
from fluxone.lora.course import Scales
from fluxone.lora.layer import beside
from fluxone.weights.keymap import TRANSFORMER


def scales_of(adapters: Sequence[tuple[str, float]] | None, count: int) -> dict[str, Tensor] | None:
    """The scales of a request's adapters for each of its pictures."""
    return None if adapters is None else {name: torch.full((count,), float(scale)) for name, scale in adapters}


def differing(scales: Scales | None) -> dict[str, Tensor]:
    """Those that are not the same for all pictures."""
    return {name: values for name, values in (scales or {}).items() if len(values.unique()) > 1}


@contextmanager
def wearing(adapters: Adapters, scales: Scales | None) -> Iterator[None]:
    """A context in which exactly these adapters work; what differs from row to row is for `by_row` and `along` to say.

    Args:
        scales: None leaves those at work that are.

    Raises:
        UnknownName: one of them is not loaded.
        BadRequest: one of them is fused, or replaces a parameter more strongly for one picture than for another.
    """
    if scales is None:
        yield
        return
    before = dict(adapters.active)
    for name in scales:
        pick(adapters.loaded, name, "adapter")
    own = {name: before.get(name, Strength()) for name in scales}
    rows = differing(scales)
    for name in rows:
        for delta in adapters.loaded[name].of(TRANSFORMER):
            if not beside(delta):
                raise BadRequest(
                    f"the adapter {name!r} replaces {delta.target.name}, which the pictures of a batch share",
                    hint="make these pictures one by one",
                )
    adapters.use(
        {name: replace(own[name], scale=1.0 if name in rows else float(values[0])) for name, values in scales.items()}
    )
    try:
        yield
    finally:
        adapters.use({name: strength for name, strength in before.items() if name in adapters.loaded})
