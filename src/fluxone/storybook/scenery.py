"""Paints what stands in a stage's sky and on its ground; `y` is the height of the horizon.

Variation is kept small on purpose (a few cloud places, a few hills): a small model then learns to draw a
stage crisply instead of averaging over it.
"""

from __future__ import annotations

import math
from random import Random

from fluxone.storybook.canvas import SPAN, Canvas
from fluxone.storybook.colours import shade


def nothing(c: Canvas, r: Random, y: float) -> None:
    """Bare."""


def _cloud(c: Canvas, x: float, y: float, k: float) -> None:
    for dx, dy, rx in ((-7, 0, 4), (-2, -2.6, 5.6), (4, -1, 4.8), (8, 0.8, 3.2)):
        c.oval(x + dx * k, y + dy * k, rx * k, rx * k * 0.8, "#ffffff")
    c.rect(x - 11 * k, y - 0.2 * k, 22 * k, 4 * k, "#ffffff", round=2 * k)


def _clouds(c: Canvas, r: Random) -> None:
    for x, y, k in r.choice(CLOUDS):
        _cloud(c, x + r.uniform(-3, 3), y + r.uniform(-1.5, 1.5), k)


def _sun(c: Canvas, r: Random) -> None:
    x = r.choice((14.0, 86.0))
    c.soft(x, 14, 12, 12, "#fff3c4", 0.55)
    c.oval(x, 14, 8, 8, "#ffd95c")


def _hill(c: Canvas, y: float, height: float, fill: str, phase: float) -> None:
    line = [(float(x), y + height * math.sin(x / SPAN * math.pi * 1.6 + phase)) for x in range(-2, 103, 3)]
    c.poly([*line, (103.0, SPAN + 2), (-3.0, SPAN + 2)], fill)


def meadow(c: Canvas, r: Random, y: float) -> None:
    """Sun, clouds and two soft hills."""
    _sun(c, r)
    _clouds(c, r)
    phase = r.choice(PHASES)
    _hill(c, y - 5, 4.5, "#bfe39a", phase)
    _hill(c, y - 1, 3, "#a5d67f", phase + 2)


def flowers(c: Canvas, r: Random, y: float) -> None:
    """Dots of flowers among the grass."""
    for x, down in FLOWERS:
        fill = r.choice(("#ffffff", "#ffd95c", "#f7a6c4"))
        c.oval(x + r.uniform(-2, 2), y + down, 1.0, 1.0, fill)
    grass(c, r, y)


def grass(c: Canvas, r: Random, y: float) -> None:
    """Tufts of grass."""
    for x, down in TUFTS:
        at = x + r.uniform(-2, 2)
        c.line(((at - 0.9, y + down - 2.4), (at, y + down), (at + 0.9, y + down - 2.4)), "#5fa34a", 0.7)


def sea(c: Canvas, r: Random, y: float) -> None:
    """Sun, clouds, and two bands of water with glints."""
    _sun(c, r)
    _clouds(c, r)
    c.rect(-1, y - 10, 102, 12, "#3fb3d9")
    c.rect(-1, y - 3, 102, 5, "#6ccbe4")
    for x, up in ((8, 8), (34, 6), (60, 8.4), (80, 5.6)):
        at = x + r.uniform(-3, 3)
        c.line(((at, y - up), (at + 6, y - up)), "#c4edf6", 0.8)


def pebbles(c: Canvas, r: Random, y: float) -> None:
    """Specks on sand."""
    for x, down in (*FLOWERS, *TUFTS):
        c.oval(x + r.uniform(-2, 2), y + down, 0.6, 0.45, "#d8b066")


def mountains(c: Canvas, r: Random, y: float) -> None:
    """Clouds over two peaks with snow on them."""
    _clouds(c, r)
    for x, high in r.choice(PEAKS):
        c.poly(((x - high * 1.1, y + 3), (x, y - high), (x + high * 1.1, y + 3)), "#9fb6d3", round=1)
        c.poly(
            (
                (x - high * 0.31, y - high * 0.72),
                (x, y - high),
                (x + high * 0.31, y - high * 0.72),
                (x + high * 0.13, y - high * 0.64),
                (x, y - high * 0.74),
                (x - high * 0.14, y - high * 0.62),
            ),
            "#ffffff",
            round=1,
        )
    _hill(c, y - 1, 2, "#e6eff7", r.choice(PHASES))


def flakes(c: Canvas, r: Random, y: float) -> None:
    """Snowflakes over the whole sky."""
    for x, up in STARS:
        c.oval(x + r.uniform(-2, 2), y - 56 + up, 0.7, 0.7, "#ffffff")


def stars(c: Canvas, r: Random, y: float) -> None:
    """Stars, a crescent moon and a dark hill."""
    for i, (x, down) in enumerate(STARS):
        size = 0.45 if i % 3 else 0.8
        c.oval(x + r.uniform(-2, 2), down, size, size, "#fff6d0")
    moon = r.choice((16.0, 84.0))
    c.shape(f"M{moon + 3.4:.2f} 7.8A8 8 0 1 0 {moon + 7.6:.2f} 17.6A5.6 5.6 0 1 1 {moon + 3.4:.2f} 7.8z", "#fdf0c0")
    _hill(c, y - 4, 4, "#3a5d6b", r.choice(PHASES))


def dusk(c: Canvas, r: Random, y: float) -> None:
    """A low sun with its glow, and streaks of cloud."""
    sun = r.choice((30.0, 50.0, 70.0))
    c.soft(sun, y - 3, 20, 20, "#ffe9b0", 0.55)
    c.oval(sun, y - 3, 12, 12, "#fff2c4")
    for at, up, long in ((20, 40, 18), (64, 34, 24), (44, 46, 14)):
        c.rect(at + r.uniform(-4, 4), y - up, long, 2.2, "#fbc79a", round=1.1)
    _hill(c, y - 3, 4, "#c98a62", r.choice(PHASES))


def dunes(c: Canvas, r: Random, y: float) -> None:
    """Sun over two dunes."""
    _sun(c, r)
    phase = r.choice(PHASES)
    _hill(c, y - 5, 5, "#f6d79c", phase)
    _hill(c, y - 1, 3, "#f1c885", phase + 2.4)


def skyline(c: Canvas, r: Random, y: float) -> None:
    """Clouds over a row of houses with lit windows."""
    _clouds(c, r)
    x = -3.0
    for width, high, fill in TOWERS[r.choice((0, 3, 6)) :]:
        c.rect(x, y - high, width, high + 2, fill, round=0.8)
        for row in range(int((high - 5) // 6.5)):
            for column in range(int((width - 2.5) // 4.6)):
                c.rect(
                    x + 2.4 + 4.6 * column,
                    y - high + 4 + 6.5 * row,
                    2.6,
                    3.4,
                    "#fdf2c8" if (row + 2 * column) % 3 else "#e6edf5",
                    round=0.4,
                )
        x += width + 0.8


def road(c: Canvas, r: Random, y: float) -> None:
    """A kerb and the marks of a lane."""
    c.rect(-1, y, 102, 3.2, "#d6d8dd")
    for x in (6, 38, 70):
        c.rect(x, y + 18, 18, 1.4, "#e9e4c8", round=0.7)


def woods(c: Canvas, r: Random, y: float) -> None:
    """Clouds over a row of firs."""
    _clouds(c, r)
    _hill(c, y - 6, 1.5, "#86b878", 0.0)
    for i, (x, high) in enumerate(FIRS):
        at, fill = x + r.uniform(-2, 2), ("#6aa565", "#7db574", "#5b9760")[i % 3]
        c.rect(at - 1.3, y - 6, 2.6, 8, "#7c5a41")
        for k in range(3):
            wide, low = high * 0.27 * (1 - 0.2 * k), y - 4 - high * 0.23 * k
            c.poly(((at - wide, low), (at, low - high * 0.42), (at + wide, low)), shade(fill, 0.02 * k), round=1)


def wall(c: Canvas, r: Random, y: float) -> None:
    """A papered wall with a window and a picture."""
    paint = r.choice(("#f6dfc4", "#cfe3e6", "#f3cfcf", "#d9e3c6", "#ddd3ec"))
    c.rect(-1, -1, 102, y + 2, paint)
    for seam in range(5, 100, 13):
        c.rect(seam, -1, 1, y + 1, shade(paint, -0.035))
    window = r.choice((12.0, 64.0))
    c.rect(window, 10, 24, 24, "#ffffff", round=1.5)
    c.rect(window + 2, 12, 20, 20, "#aee0f5", round=0.8)
    c.rect(window + 11.2, 11, 1.6, 22, "#ffffff")
    c.rect(window + 1, 21.2, 22, 1.6, "#ffffff")
    frame = 66.0 if window < 50 else 14.0
    c.rect(frame, 14, 20, 15, "#b58657", round=0.8)
    c.rect(frame + 1.6, 15.6, 16.8, 11.8, "#fdf3dc")
    c.oval(frame + 7, 24, 4.5, 3.4, "#7fc05a")
    c.oval(frame + 14, 19.5, 2, 2, "#f8c63d")
    c.rect(-1, y - 2.4, 102, 2.6, "#fffaf0")


def rug(c: Canvas, r: Random, y: float) -> None:
    """An oval rug."""
    c.oval(50, y + 24, 42, 11, r.choice(("#e8b4a0", "#a9c6d9", "#e6d19c")))


CLOUDS = (((24.0, 16.0, 0.9), (74.0, 24.0, 0.75)), ((72.0, 14.0, 0.9),), ((30.0, 22.0, 0.8), (62.0, 12.0, 0.65)))
PHASES = (0.0, 1.6, 3.1, 4.7)
PEAKS = (((24.0, 27.0), (76.0, 24.0)), ((18.0, 22.0), (66.0, 29.0)), ((36.0, 29.0), (88.0, 22.0)))
FLOWERS = ((8, 7), (22, 17), (37, 33), (55, 8), (68, 30), (83, 14), (94, 26), (12, 30))
TUFTS = ((15, 11), (30, 25), (45, 13), (62, 19), (76, 8), (90, 33), (5, 22), (52, 36))
STARS = (
    (6, 8),
    (14, 30),
    (25, 14),
    (33, 42),
    (41, 6),
    (47, 26),
    (58, 12),
    (66, 38),
    (73, 22),
    (81, 46),
    (92, 33),
    (96, 8),
    (52, 48),
    (20, 50),
    (8, 44),
    (62, 4),
)
TOWERS = (
    (15, 27, "#8fa9c4"),
    (13, 38, "#c3a9a2"),
    (17, 22, "#9fb8b0"),
    (12, 33, "#a7b6cf"),
    (16, 41, "#b9a9c9"),
    (14, 25, "#8fa9c4"),
    (13, 35, "#9fb8b0"),
    (16, 29, "#c3a9a2"),
    (12, 40, "#a7b6cf"),
    (15, 24, "#b9a9c9"),
    (14, 36, "#8fa9c4"),
    (13, 28, "#c3a9a2"),
    (16, 33, "#9fb8b0"),
    (18, 26, "#a7b6cf"),
)
FIRS = ((4, 38), (17, 30), (27, 42), (39, 28), (50, 35), (61, 27), (72, 41), (84, 31), (96, 39))
