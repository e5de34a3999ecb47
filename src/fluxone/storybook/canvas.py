"""Collects SVG marks in picture units (0..100, y down) and remembers how far they reach.

A canvas with `flat` set draws every mark in that one colour: that is how the depth and label pictures come
from the very code that draws the colour picture. Soft marks (shadows, light, blush) exist in colour only.
"""

from __future__ import annotations

from collections.abc import Sequence

from fluxone.storybook.colours import blend
from fluxone.storybook.library import EM, drawing, lettering, silhouette

Point = tuple[float, float]
SPAN = 100.0  # picture units across and down
BANDS = 32  # at most, in a gradient
EDGES = {"white": "#b9b2a6"}  # a contour for colours that would be lost on snow or paper
EDGE = 1.3  # its width in sprite units, half of it outside


class Canvas:
    """A growing list of SVG elements; the one thing in the storybook that changes."""

    def __init__(self, flat: str = "") -> None:
        self.flat = flat
        self.parts: list[str] = []
        self.left = self.top = float("inf")
        self.right = self.bottom = float("-inf")

    @property
    def body(self) -> str:
        """The elements so far, as one string."""
        return "".join(self.parts)

    def reach(self, left: float, top: float, right: float, bottom: float) -> None:
        """Notes that a mark covers this box."""
        self.left, self.top = min(self.left, left), min(self.top, top)
        self.right, self.bottom = max(self.right, right), max(self.bottom, bottom)

    def rect(self, x: float, y: float, width: float, height: float, fill: str, *, round: float = 0) -> None:
        """A filled rectangle with corners of radius `round`."""
        corner = f' rx="{round:.2f}"' if round else ""
        self.parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"{corner}'
            f' fill="{self.flat or fill}"/>'
        )
        self.reach(x, y, x + width, y + height)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: str) -> None:
        """A filled ellipse."""
        self.parts.append(
            f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{rx:.2f}" ry="{ry:.2f}" fill="{self.flat or fill}"/>'
        )
        self.reach(x - rx, y - ry, x + rx, y + ry)

    def soft(self, x: float, y: float, rx: float, ry: float, fill: str, opacity: float) -> None:
        """A translucent ellipse that belongs to nothing: shadow, glow, blush."""
        if not self.flat:
            self.parts.append(
                f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{rx:.2f}" ry="{ry:.2f}" fill="{fill}"'
                f' fill-opacity="{opacity:.2f}"/>'
            )

    def poly(self, points: Sequence[Point], fill: str, *, round: float = 0) -> None:
        """A filled polygon; `round` thickens it by that stroke, which rounds its corners."""
        ink = self.flat or fill
        edge = f' stroke="{ink}" stroke-width="{round:.2f}" stroke-linejoin="round"' if round else ""
        listed = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        self.parts.append(f'<polygon points="{listed}" fill="{ink}"{edge}/>')
        self._reach(points, round / 2)

    def line(self, points: Sequence[Point], ink: str, width: float) -> None:
        """A round-capped stroke through the points."""
        listed = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{listed}" fill="none" stroke="{self.flat or ink}"'
            f' stroke-width="{width:.2f}" stroke-linecap="round" stroke-linejoin="round"/>'
        )
        self._reach(points, width / 2)

    def curve(self, start: Point, via: Point, end: Point, ink: str, width: float) -> None:
        """A round-capped quadratic stroke."""
        (a, b), (c, d), (e, f) = start, via, end
        self.parts.append(
            f'<path d="M{a:.2f} {b:.2f}Q{c:.2f} {d:.2f} {e:.2f} {f:.2f}" fill="none"'
            f' stroke="{self.flat or ink}" stroke-width="{width:.2f}" stroke-linecap="round"/>'
        )
        self._reach((start, ((a + 2 * c + e) / 4, (b + 2 * d + f) / 4), end), width / 2)

    def shape(self, outline: str, fill: str) -> None:
        """A filled path in picture units; its reach is the caller's business."""
        self.parts.append(f'<path d="{outline}" fill="{self.flat or fill}"/>')

    def sprite(self, icon: str, colour: str, x: float, foot: float, size: float, *, flip: bool = False) -> None:
        """A sprite whose longest side is `size`, standing with its lowest point at (x, foot)."""
        row = drawing(icon, colour)
        left, top, right, bottom = row.box
        scale = size / max(right - left, bottom - top)
        body = silhouette(icon, self.flat) if self.flat else row.body
        across = -scale if flip else scale
        at_x, at_y = x - across * (left + right) / 2, foot - scale * bottom
        if colour in EDGES and not self.flat:
            body = silhouette(icon, EDGES[colour], EDGE) + body
        self.parts.append(f'<g transform="matrix({across:.4f} 0 0 {scale:.4f} {at_x:.2f} {at_y:.2f})">{body}</g>')
        half = scale * (right - left) / 2
        self.reach(x - half, foot - scale * (bottom - top), x + half, foot)

    def text(self, text: str, font: str, x: float, y: float, em: float, ink: str) -> None:
        """One line of text of that em size, centred on (x, y) by its width and capital height."""
        line = lettering(text, font)
        scale = em / EM
        self.parts.append(
            f'<g fill="{self.flat or ink}" transform="matrix({scale:.5f} 0 0 {scale:.5f}'
            f' {x - line.width * em / 2:.2f} {y + line.cap * em / 2:.2f})">{line.body}</g>'
        )

    def fade(self, top: float, bottom: float, upper: str, lower: str, *, tall: float = 0) -> None:
        """A full-width vertical gradient between two heights; the lower colour goes on down to `tall`.

        Drawn as flat bands: resvg fills those several times faster than a gradient, and one step of colour a
        band cannot be told from one.
        """
        steps = max(abs(int(upper[i : i + 2], 16) - int(lower[i : i + 2], 16)) for i in (1, 3, 5))
        bands = min(max(steps, 1), BANDS)
        high = (bottom - top) / bands
        rows = []
        for k in range(bands):
            end = max(tall, bottom) if k == bands - 1 else top + high * (k + 1)
            rows.append(
                f'<path d="M-1 {top + high * k:.2f}H{SPAN + 1:g}V{end:.2f}H-1z" fill="'
                f'{blend(upper, lower, (k + 0.5) / bands)}"/>'
            )
        self.parts.append(f'<g shape-rendering="crispEdges">{"".join(rows)}</g>')

    def _reach(self, points: Sequence[Point], margin: float) -> None:
        across, down = [p[0] for p in points], [p[1] for p in points]
        self.reach(min(across) - margin, min(down) - margin, max(across) + margin, max(down) + margin)


class Extent(Canvas):
    """A canvas that only remembers how far its marks reach: several times as fast as writing them down."""

    def rect(self, x: float, y: float, width: float, height: float, fill: str, *, round: float = 0) -> None:
        """Reaches as far as the rectangle."""
        self.reach(x, y, x + width, y + height)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: str) -> None:
        """Reaches as far as the ellipse."""
        self.reach(x - rx, y - ry, x + rx, y + ry)

    def soft(self, x: float, y: float, rx: float, ry: float, fill: str, opacity: float) -> None:
        """Reaches nothing."""

    def poly(self, points: Sequence[Point], fill: str, *, round: float = 0) -> None:
        """Reaches as far as the polygon with its rounding."""
        self._reach(points, round / 2)

    def line(self, points: Sequence[Point], ink: str, width: float) -> None:
        """Reaches as far as the stroke."""
        self._reach(points, width / 2)

    def shape(self, outline: str, fill: str) -> None:
        """Reaches nothing: a path's reach is the caller's business."""

    def sprite(self, icon: str, colour: str, x: float, foot: float, size: float, *, flip: bool = False) -> None:
        """Reaches as far as the sprite's box."""
        left, top, right, bottom = drawing(icon).box
        scale = size / max(right - left, bottom - top)
        half = scale * (right - left) / 2
        self.reach(x - half, foot - scale * (bottom - top), x + half, foot)

    def text(self, text: str, font: str, x: float, y: float, em: float, ink: str) -> None:
        """Reaches nothing: text stands on a sign."""
