"""How far guessed steps lead away from computed ones, measured; and the quickest way within a limit.

Measured on the mini, 20 steps (docs/performance.md): what a larger model does differs, and a schedule with fewer steps
guesses less.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drift:
    """A row of `cache` with its measurement.

    Attributes:
        worst: of the prompts: relative difference of the last latent to the one with all steps computed.
        time: share of the time that all steps take.
    """

    cache: str
    worst: float
    time: float


DRIFTS = (
    Drift("first-block:0.08", 0.021, 0.73),
    Drift("first-block:0.12", 0.061, 0.70),
    Drift("first-block:0.2", 0.086, 0.54),
    Drift("teacache:0.1", 0.080, 0.62),
    Drift("teacache:0.2", 0.117, 0.42),
    Drift("taylor:2", 0.014, 0.58),
    Drift("taylor:3", 0.033, 0.46),
    Drift("taylor:4", 0.096, 0.40),
)


def within(limit: float | None) -> str | None:
    """The quickest row whose worst drift is at most the limit; None if there is no limit, or no such row."""
    rows = [] if limit is None else [row for row in DRIFTS if row.worst <= limit]
    return min(rows, key=lambda row: row.time).cache if rows else None
