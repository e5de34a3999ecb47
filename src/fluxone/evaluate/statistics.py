"""How sure a figure is: intervals that hold it 95 times in 100.

Pictures of one prompt resemble each other, so prompts, not pictures, are what is counted and drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959964  # of a normal distribution, 95 % lie within
DRAWS, SEED = 2000, 0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A mean, between which bounds it is, and of how many pictures."""

    value: float
    low: float
    high: float
    pictures: int


def share(groups: Sequence[Sequence[bool]]) -> Figure:
    """The share that is right, with Wilson's interval for as many trials as there are groups.

    That is wider than the pictures' own when those of a group differ, and right when they are all alike.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    right, pictures, n = sum(map(sum, groups)), sum(map(len, groups)), len(groups)
    p = right / pictures
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Figure(value=p, low=max(0.0, middle - reach), high=min(1.0, middle + reach), pictures=pictures)


def mean(groups: Sequence[Sequence[float]]) -> Figure:
    """The mean, with a bootstrap interval over the groups. Source: Efron 1979, "Bootstrap methods"."""
    sums = np.array([sum(group) for group in groups], dtype=np.float64)
    sizes = np.array([len(group) for group in groups])
    drawn = np.random.default_rng(SEED).integers(0, len(groups), (DRAWS, len(groups)))
    low, high = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
    return Figure(value=float(sums.sum() / sizes.sum()), low=float(low), high=float(high), pictures=int(sizes.sum()))
