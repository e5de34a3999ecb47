"""Adapters whose strength runs over the steps of a walk: told before each call of the network, and to the tables
of modulation, which are made for all noise levels at once, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from fluxone.lora.adapters import Adapters, Share
from fluxone.sampling.samplers import State, Velocity

Scales = Mapping[str, Tensor]  # name -> a number a picture
NONE: Scales = {}


@contextmanager
def by_row(
    adapters: Adapters, sigmas: Sequence[float], levels: Sequence[float], batch: int, scales: Scales = NONE
) -> Iterator[None]:
    """A context in which every row (level after level, each with the whole batch) has its own strength.

    Args:
        scales: of adapters that work differently for each picture of the batch.
    """

    def rows(name: str) -> Tensor:
        strength = adapters.active[name]
        course = torch.tensor([strength.after(share_at(sigmas, level)) for level in levels]).double()
        own = scales[name].double().repeat(len(levels)) if name in scales else 1.0
        return course.repeat_interleave(batch) * own

    adapters.share({name: rows(name) for name in (*_courses(adapters, scales), *scales)})
    try:
        yield
    finally:
        adapters.share({})


def along(adapters: Adapters, velocity: Velocity, sigmas: Sequence[float], scales: Scales = NONE) -> Velocity:
    """The velocity with strengths as they are at each noise level and for each picture; itself where all are fixed."""
    courses = _courses(adapters, scales)
    if not courses and not scales:
        return velocity

    def at(x: State, sigma: float) -> State:
        share = share_at(sigmas, sigma)
        shares: dict[str, Share] = {name: adapters.active[name].after(share) for name in courses}
        shares |= {name: own.double() * adapters.active[name].after(share) for name, own in scales.items()}
        adapters.share(shares)
        try:
            return velocity(x, sigma)
        finally:
            adapters.share({})

    return at


def share_at(sigmas: Sequence[float], level: float) -> float:
    """How far a walk is at a noise level: 0 in its first step, 1 in its last; in between on straight lines."""
    last = len(sigmas) - 2
    if last < 1:
        return 0.0
    for i, (high, low) in enumerate(pairwise(sigmas)):
        if level > low or i == last:
            return min(1.0, max(0.0, (i + (high - level) / (high - low)) / last))
    return 1.0


def _courses(adapters: Adapters, scales: Scales) -> list[str]:
    return [name for name, strength in adapters.active.items() if strength.course and name not in scales]
