"""How the learning rate rises and ends: (step, steps, warm-up) -> share of the peak."""

from __future__ import annotations

import math
from collections.abc import Callable

FLOOR = 0.02  # that a falling rate ends at
LAST = 0.3  # share of the run, at its end, over which `linear` falls

Fall = Callable[[float], float]  # share of the run that is done -> share of the peak


def constant(done: float) -> float:
    """The peak to the end."""
    return 1.0


def linear(done: float) -> float:
    """The peak, then straight down in the last part."""
    return max(FLOOR, min(1.0, (1 - done) / LAST))


def cosine(done: float) -> float:
    """Half a cosine."""
    return max(FLOOR, 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


FALLS: dict[str, Fall] = {"constant": constant, "linear": linear, "cosine": cosine}


def factor(step: int, steps: int, warmup: int, fall: Fall) -> float:
    """The share of the peak at a step."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * fall(step / max(1, steps))
