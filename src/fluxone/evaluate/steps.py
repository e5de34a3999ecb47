"""What few steps cost: the same prompts and seeds with 1, 2, 4, 8 steps and with the usual number.

All walk by Euler, whatever the model's own sampler is: fresh noise on the way makes other pictures, and bends the walk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from fluxone.evaluate.bench import Bench
from fluxone.evaluate.follow import decibels
from fluxone.evaluate.measure import Line, Score, Shot, shoot
from fluxone.evaluate.statistics import Figure, mean, share
from fluxone.evaluate.suites import SUITES, missing

FEW = (1, 2, 4, 8)
PROMPTS = 12  # of each suite
ASKED = ("objects", "relations")


@dataclass(frozen=True, kw_only=True)
class Point:
    """The pictures of one number of steps: how many are right, how many are judged as with the usual number, how near
    they are to those (dB), and how far their walks bend."""

    steps: int
    right: Figure
    same: Figure
    near: Figure
    bend: Figure


def few(name: str, bench: Bench) -> tuple[Score, list[Point]]:
    """The score, and its points for a plot."""
    title = f"1 to 8 steps against {bench.usual}"
    reasons = {s: missing(SUITES[s], bench.world, bench.pipeline.variant, bench.judge.tables) for s in ASKED}
    suites = [SUITES[s] for s, reason in reasons.items() if not reason]
    if not suites:
        return Score(suite=name, title=title, skipped=reasons[ASKED[0]]), []
    bench.tell(f"{name}: {title}")
    bench = replace(bench, sampler="euler")
    asked = [(s, s.find(s.search, bench.world, min(PROMPTS, bench.prompts))) for s in suites]

    def drawn(steps: int) -> list[list[Shot]]:
        return [row for suite, prompts in asked for row in shoot(prompts, suite, bench, steps)]

    prompts = [p for _, rows in asked for p in rows]
    usual, points = drawn(bench.usual), []
    for steps in (*(n for n in FEW if n < bench.usual), bench.usual):
        shots = drawn(steps)
        bends = bench.draw(prompts, bench.seeds, steps)
        pairs = [list(zip(row, other, strict=True)) for row, other in zip(shots, usual, strict=True)]
        points.append(
            Point(
                steps=steps,
                right=share([[one.right for one in row] for row in shots]),
                same=share([[a.verdict.parts == b.verdict.parts for a, b in row] for row in pairs]),
                near=mean([[_nearness(a.image, b.image) for a, b in row] for row in pairs]),
                bend=mean([[one.bend for one in row] for row in bends]),
            )
        )
    lines = [line for point in points for line in _lines(point, bench.usual)]
    return Score(suite=name, title=title, lines=tuple(lines)), points


def _lines(point: Point, usual: int) -> list[Line]:
    label = f"{point.steps} step{'s' if point.steps > 1 else ''}"
    lines = [Line(name=f"right, {label}", figure=point.right)]
    if point.steps < usual:
        lines += [
            Line(name=f"judged as with {usual}, {label}", figure=point.same),
            Line(name=f"like those of {usual}, {label}", figure=point.near, unit="dB"),
        ]
    if point.steps > 1:
        lines.append(Line(name=f"bend, {label}", figure=point.bend, unit=""))
    return lines


def _nearness(a: Image.Image, b: Image.Image) -> float:
    """Peak signal to noise ratio of two pictures."""
    return decibels(float(np.square(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).mean()))
