"""Scores for people and programs: a table, a JSON document, a sheet of successes and failures, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import zip_longest
from typing import Any

from PIL import Image

from fluxone import storybook
from fluxone.errors import MissingExtra
from fluxone.evaluate.measure import Line, Score, Shot
from fluxone.evaluate.steps import Point

SHOWN = 6  # right and wrong pictures of each suite on the sheet, at most
SHEET, INSET = 192, 56  # px: of a picture on the sheet, and of what was given for it
HEAD = ("suite", "measure", "value", "95 % interval", "pictures", "truth", "rebuilt")


def table(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Rows of text under `HEAD`."""
    rows: list[tuple[str, ...]] = [HEAD]
    for score in scores:
        if score.skipped:
            rows.append((score.suite, f"not scored: {score.skipped}", "", "", "", "", ""))
        for line in score.lines:
            figure = line.figure
            between = f"{_told(figure.low, line)} to {_told(figure.high, line)}"
            checks = ("" if value is None else _told(value, line) for value in (line.truth, line.rebuilt))
            rows.append((score.suite, line.name, _told(figure.value, line), between, str(figure.pictures), *checks))
    return rows


def _told(value: float, line: Line) -> str:
    if line.unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.3g} {line.unit}".strip()


def document(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """All scores with every judged picture's prompt, seed and verdict, as JSON has them."""
    return [
        {
            "suite": score.suite,
            "title": score.title,
            **({"skipped": score.skipped} if score.skipped else {}),
            "lines": [asdict(line) for line in score.lines],
            "pictures": [
                {
                    "prompt": shot.prompt,
                    "seed": shot.seed,
                    "steps": shot.steps,
                    "right": shot.right,
                    **({"sort": shot.sort} if shot.sort else {}),
                    **asdict(shot.verdict),
                }
                for shot in score.shots
            ],
        }
        for score in scores
    ]


def sheet(scores: Sequence[Score]) -> Image.Image:
    """For each suite some right pictures, then some wrong ones, each with its prompt and what the judge saw; what was
    given for it is in its corner."""
    pictures, captions = [], []
    for score in scores:
        right = [shot for shot in score.shots if shot.right][:SHOWN]
        wrong = [shot for shot in score.shots if not shot.right][:SHOWN]
        for row, mark in ((right, "right"), (wrong, "wrong")):
            for shot, _ in zip_longest(row, range(SHOWN)) if row else ():
                pictures.append(_large(shot))
                captions.append(f"{score.suite}, {mark}: {shot.prompt} [{shot.verdict.seen}]" if shot else "")
    return storybook.sheet(pictures, captions, SHOWN)


def _large(shot: Shot | None) -> Image.Image:
    if shot is None:
        return Image.new("RGB", (SHEET, SHEET), "white")
    large = shot.image.convert("RGB").resize((SHEET, SHEET), Image.Resampling.LANCZOS)
    for place, given in enumerate(shot.given):
        large.paste(given.convert("RGB").resize((INSET, INSET), Image.Resampling.LANCZOS), (place * INSET, 0))
    return large


def plot(points: Sequence[Point]) -> bytes:
    """Quality against steps, and the bend of the walks, as a PNG.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("train", "plotting quality against steps needs matplotlib") from None
    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [point.steps for point in points]
    for name, row in (("right", [p.right for p in points]), ("judged as with the most", [p.same for p in points])):
        values = [100 * f.value for f in row]
        down, up = [100 * (f.value - f.low) for f in row], [100 * (f.high - f.value) for f in row]
        reach = [[max(0.0, gap) for gap in gaps] for gaps in (down, up)]  # rounding may make one negative
        above.errorbar(steps, values, reach, label=name, marker="o", capsize=3)
    above.set(ylabel="% of the pictures", ylim=(0, 101), title="quality against steps")
    bent = [point for point in points if point.steps > 1]
    below.plot([p.steps for p in bent], [p.bend.value for p in bent], marker="o", label="bend (0: straight)")
    below.set(xlabel="steps", xscale="log", ylim=(0, None))
    below.set_xticks(steps, [str(n) for n in steps])
    below.minorticks_off()
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend()
    out = BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
