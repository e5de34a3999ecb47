"""All suites by name, and a run of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxone.errors import pick
from fluxone.evaluate.bench import Bench
from fluxone.evaluate.measure import Score, score
from fluxone.evaluate.steps import Point, few
from fluxone.evaluate.suites import SUITES
from fluxone.evaluate.variety import copying, diversity
from fluxone.storybook import WORLDS, World
from fluxone.storybook.record import read
from fluxone.weights.load import resolve

DEFAULT = "first"  # the world that a model is asked about which names none
MEASURES = {"diversity": diversity, "copying": copying}
STEPS = "steps"
NAMES = (*SUITES, *MEASURES, STEPS)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The scores of a run, and the points of the suite that compares numbers of steps."""

    scores: tuple[Score, ...]
    points: tuple[Point, ...] = ()


def world_of(source: str) -> World:
    """The world that a model's folder names, or that of what it is added to, or `DEFAULT`."""
    row, path = resolve(source)
    if row is not None and row.base:
        return world_of(row.base)
    found = read(Path(path)) if Path(path).is_dir() else None
    return found or WORLDS[DEFAULT]


def check(names: Sequence[str]) -> None:
    """Refuse a name that is no suite's.

    Raises:
        UnknownName: there is one.
    """
    for name in names:
        pick({known: known for known in NAMES}, name, "suite")


def evaluate(bench: Bench, names: Sequence[str] = NAMES) -> Report:
    """Score these suites, in their order.

    Raises:
        UnknownName: no suite has one of the names.
        MissingExtra: what draws the true scenes is not installed.
    """
    check(names)
    scores: list[Score] = []
    points: list[Point] = []
    for name in names:
        if name in SUITES:
            scores.append(score(name, SUITES[name], bench))
        elif name in MEASURES:
            scores.append(MEASURES[name](name, bench))
        else:
            found, points = few(name, bench)
            scores.append(found)
    return Report(scores=tuple(scores), points=tuple(points))
