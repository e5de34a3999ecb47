"""The run's log as a picture: loss terms over steps, and the validation figures under them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fluxone.errors import MissingExtra
from fluxone.lines import read_lines


def plot(folder: Path) -> Path:
    """Draw `log.png` beside `log.jsonl`.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("train", "plotting a training log needs matplotlib") from None
    rows = read_lines(folder / "log.jsonl")
    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    _lines(above, [row for row in rows if "validation" not in row], {"step", "samples_per_second", "norm"})
    _lines(below, [row["validation"] | {"step": row["step"]} for row in rows if "validation" in row], {"step"})
    above.set(title=f"{folder.name}: training", yscale="log")
    below.set(title="validation, on scenes never trained on", xlabel="step")
    part = folder / f".{os.getpid()}.part"
    figure.savefig(part, format="png", dpi=110)
    part.replace(folder / "log.png")
    return folder / "log.png"


def _lines(axes: Any, rows: list[dict[str, float]], skip: set[str]) -> None:
    for name in dict.fromkeys(key for row in rows for key in row if key not in skip):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), label=name)
    if rows:
        axes.legend(fontsize=8, ncols=3)
    axes.grid(alpha=0.3)
