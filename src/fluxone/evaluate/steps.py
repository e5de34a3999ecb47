"""What few steps cost: the same prompts and seeds with 1, 2, 4, 8 steps and with the usual number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fluxone.evaluate.bench import Bench
from fluxone.evaluate.measure import Line, Score, Shot, shot
from fluxone.evaluate.statistics import Figure, mean, share
from fluxone.evaluate.suites import SUITES, Prompt, Suite, missing, prompts

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
    suites = [SUITES[row] for row in ASKED]
    suites = [s for s in suites if not missing(s, bench.world, bench.pipeline.variant.takes, bench.judge.tables)]
    if not suites:
        reason = missing(SUITES[ASKED[0]], bench.world, bench.pipeline.variant.takes, bench.judge.tables)
        return Score(suite=name, title=title, skipped=reason), []
    bench.tell(f"{name}: {title}")
    asked = [(p, s) for s in suites for p in prompts(s, bench.world, min(PROMPTS, bench.prompts))]
    usual = [_shots(prompt, suite, bench, bench.usual) for prompt, suite in asked]
    points = []
    for steps in (*(n for n in FEW if n < bench.usual), bench.usual):
        shots = [_shots(prompt, suite, bench, steps) for prompt, suite in asked]
        pairs = [list(zip(row, other, strict=True)) for row, other in zip(shots, usual, strict=True)]
        points.append(
            Point(
                steps=steps,
                right=share([[one.right for one in row] for row in shots]),
                same=share([[a.verdict.parts == b.verdict.parts for a, b in row] for row in pairs]),
                near=mean([[decibels(a.image, b.image) for a, b in row] for row in pairs]),
                bend=mean([[bench.draw(s.prompt, s.seed, steps).bend for s in row] for row in shots]),
            )
        )
    lines = [line for point in points for line in _lines(point, bench.usual)]
    return Score(suite=name, title=title, lines=tuple(lines)), points


def _shots(prompt: Prompt, suite: Suite, bench: Bench, steps: int) -> list[Shot]:
    return [shot(prompt, seed, suite, bench, steps) for seed in range(bench.seeds)]


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


def decibels(a: Image.Image, b: Image.Image) -> float:
    """Peak signal to noise ratio of two pictures; 99 if they are equal."""
    error = float(np.square(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).mean())
    return 99.0 if error == 0 else min(99.0, float(10 * np.log10(255**2 / error)))
