"""Adapters whose strength runs over the steps of a walk: told before each call of the network, and to the tables
of modulation, which are made for all noise levels at once, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch

from fluxone.lora.adapters import Adapters
from fluxone.sampling.samplers import State, Velocity


@contextmanager
def by_row(adapters: Adapters, sigmas: Sequence[float], levels: Sequence[float], batch: int) -> Iterator[None]:
    """A context in which every row (level after level, each with the whole batch) has its own strength."""
    courses = _courses(adapters)
    adapters.share(
        {
            name: torch.tensor([adapters.active[name].after(share_at(sigmas, level)) for level in levels])
            .double()
            .repeat_interleave(batch)
            for name in courses
        }
    )
    try:
        yield
    finally:
        adapters.share({})


def along(adapters: Adapters, velocity: Velocity, sigmas: Sequence[float]) -> Velocity:
    """The velocity with strengths as they are at each noise level; itself where none has a course."""
    courses = _courses(adapters)
    if not courses:
        return velocity

    def at(x: State, sigma: float) -> State:
        share = share_at(sigmas, sigma)
        adapters.share({name: adapters.active[name].after(share) for name in courses})
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


def _courses(adapters: Adapters) -> list[str]:
    return [name for name, strength in adapters.active.items() if strength.course]
