"""Curves as an SVG inside a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDE, HIGH, LEFT, BELOW = 760, 300, 60, 34  # px
COLOURS = ("#1d2330", "#3b6fd4", "#2f9e8f", "#63a83a", "#c4a20f", "#de7d1f", "#d2453a", "#b13b84", "#7a52c7", "#000000")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve."""

    name: str
    points: Sequence[tuple[float, float]]
    wide: bool = False
    dots: bool = False


def chart(lines: Sequence[Line], *, x: str, y: str, log: bool = False) -> str:
    """The curves with their names; what has no points is left out."""
    lines = [line for line in lines if line.points]
    values = [value for line in lines for _, value in line.points if value > 0 or not log]
    if not values:
        return ""
    low, high = (math.log10(v) if log else v for v in (min(values), max(values)))
    high = high if high > low else low + 1
    last = max(step for line in lines for step, _ in line.points) or 1

    def place(step: float, value: float) -> str:
        level = math.log10(max(value, 1e-12)) if log else value
        across = LEFT + (WIDE - LEFT - 10) * step / last
        return f"{across:.1f},{10 + (HIGH - BELOW - 20) * (high - level) / (high - low):.1f}"

    label = f"{escape(y)} over {escape(x)}"
    parts = [f"<svg viewBox='0 0 {WIDE + 150} {HIGH}' width='100%' role='img' aria-label='{label}'>"]
    for k in range(5):
        level = low + (high - low) * k / 4
        up = 10 + (HIGH - BELOW - 20) * (4 - k) / 4
        text = f"{10**level if log else level:.3g}"
        parts.append(f"<line x1='{LEFT}' x2='{WIDE - 10}' y1='{up:.1f}' y2='{up:.1f}' stroke='#e3e6ec'/>")
        parts.append(_text(LEFT - 6, up + 4, text, 11, "end"))
        across, step = LEFT + (WIDE - LEFT - 10) * k / 4, last * k / 4
        parts.append(_text(across, HIGH - 18, f"{step:.0f}", 11))
    parts.append(_text(WIDE / 2, HIGH - 3, escape(x), 12))
    for i, line in enumerate(lines):
        colour, width = COLOURS[i % len(COLOURS)], 2.4 if line.wide else 1.2
        row = " ".join(place(*point) for point in line.points)
        dash = " stroke-dasharray='5 3'" if line.dots else ""
        parts.append(f"<polyline points='{row}' fill='none' stroke='{colour}' stroke-width='{width}'{dash}/>")
        parts.append(f"<text x='{WIDE}' y='{22 + 16 * i}' font-size='12' fill='{colour}'>{escape(line.name)}</text>")
    return "".join(parts) + "</svg>"


def _text(x: float, y: float, text: str, size: int, anchor: str = "middle") -> str:
    return f"<text x='{x:.0f}' y='{y:.0f}' text-anchor='{anchor}' font-size='{size}' fill='#59627a'>{text}</text>"
