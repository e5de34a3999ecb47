"""Contestants take turns, A B C A B C ..., so that a slower moment meets all: time, error, ratio and its spread."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

RESAMPLES = 500  # of the interval of a ratio


@dataclass(kw_only=True)
class Way:
    """A contestant.

    Attributes:
        step: a noise level's number to a velocity.
        limit: of its error; above it its time counts for nothing. None: no velocity is compared.
        weights: bytes.
    """

    name: str
    step: Callable[[int], Tensor]
    limit: float | None = None
    weights: int = 0


@dataclass(kw_only=True)
class Row:
    """What was measured of a contestant: seconds of each turn, and errors against the first."""

    name: str
    limit: float | None = None
    weights: int = 0
    peak: int = 0
    failed: bool = False
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds; of what failed infinitely many."""
        return statistics.median(self.seconds) if self.seconds else math.inf

    @property
    def error(self) -> float:
        """Mean of the errors."""
        return statistics.mean(self.errors) if self.errors else 0.0

    @property
    def valid(self) -> bool:
        """Whether it ran, and its error is within its limit."""
        return not self.failed and (self.limit is None or self.error <= self.limit)

    def ratio(self, base: Row) -> tuple[float, float, float]:
        """Time relative to another's, turn by turn: the median and its 90 % interval by resampling."""
        pairs = [own / other for own, other in zip(self.seconds, base.seconds, strict=True)]
        draw = random.Random(0)
        medians = sorted(statistics.median(draw.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
        return statistics.median(pairs), medians[RESAMPLES // 20], medians[-RESAMPLES // 20 - 1]


def clock(device: torch.device) -> Callable[[Callable[[], Tensor]], tuple[Tensor, float]]:
    """How time is taken: events on a CUDA device; elsewhere processor time, on all threads, over their number."""

    def by_events(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        out = work()
        end.record()
        end.synchronize()
        return out, start.elapsed_time(end) / 1000

    def by_processor(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
        start = time.process_time()
        out = work()
        return out, (time.process_time() - start) / torch.get_num_threads()

    return by_events if device.type == "cuda" else by_processor


@torch.inference_mode()
def take_turns(
    ways: Sequence[Way], device: torch.device, *, rounds: int, levels: int, exact: Callable[[int], Tensor] | None = None
) -> list[Row]:
    """Time every contestant at every noise level, `rounds` times.

    Args:
        exact: what errors are measured against; None is the first contestant.
    """
    timed = clock(device)
    rows = [Row(name=way.name, limit=way.limit, weights=way.weights) for way in ways]
    for way, row in zip(ways, rows, strict=True):  # for warmth
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for level in range(min(2, levels)):
            way.step(level)
        if device.type == "cuda":
            row.peak = torch.cuda.max_memory_allocated(device)
    for turn in range(rounds):
        for level in range(levels):
            truth = None if exact is None or turn else exact(level)
            for way, row in zip(ways, rows, strict=True):
                velocity, seconds = timed(lambda way=way, level=level: way.step(level))  # type: ignore[misc]
                row.seconds.append(seconds)
                truth = velocity if truth is None else truth
                if turn == 0:
                    wrong = (velocity.float() - truth.float()).norm() / truth.float().norm()
                    row.errors.append(float(wrong))
    return rows
