"""Draws a figure on its joints: hair behind, legs, clothes, head, face, hair in front, hat."""

from __future__ import annotations

import math

from fluxone.storybook.canvas import Canvas, Point
from fluxone.storybook.colours import PALETTE, shade
from fluxone.storybook.rig import joints
from fluxone.storybook.spec import Person

SKINS = ("#fbd9bd", "#f3c19b", "#dca071", "#b5774c", "#7d4f35")
HAIR: dict[str, str] = {
    "black": "#2f2a31",
    "brown": "#6b442d",
    "blond": "#f0c566",
    "red": "#c85a30",
    "gray": "#b9b9be",
    "pink": "#f28ab8",
    "blue": "#4f86d9",
}
STYLES: dict[str, tuple[str, ...]] = {
    "boy": ("short", "spiky", "curly"),
    "man": ("short", "spiky", "curly"),
    "girl": ("long", "pigtails", "bun", "ponytail"),
    "woman": ("long", "bun", "ponytail", "curly"),
}
HEAD = 0.185  # radius, of the height
SHOE = "#4a4452"

Joints = dict[str, Point]


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _hair_behind(c: Canvas, p: Person, head: Point, r: float) -> None:
    fill, (x, y) = shade(HAIR[p.hair], -0.05), head
    if p.style == "long":
        c.rect(x - r * 1.1, y - r * 0.6, r * 2.2, r * 2.1, fill, round=r * 0.7)
    if p.style == "pigtails":
        for side in (-1, 1):
            c.oval(x + side * r * 1.25, y + r * 0.35, r * 0.42, r * 0.62, fill)
    if p.style == "ponytail":
        c.oval(x + (-1 if p.flip else 1) * r * 1.12, y, r * 0.45, r * 0.85, fill)
    if p.style == "bun":
        c.oval(x, y - r * 1.2, r * 0.5, r * 0.46, fill)
    if p.style == "curly":
        for k in range(9):
            turn = math.pi * k / 8
            c.oval(x - math.cos(turn) * r * 0.98, y - math.sin(turn) * r * 0.8 - r * 0.08, r * 0.44, r * 0.44, fill)


def _hair_front(c: Canvas, p: Person, head: Point, r: float) -> None:
    fill, (x, y) = HAIR[p.hair], head
    w = r * 1.05
    c.shape(
        f"M{x - w:.2f} {y + r * 0.02:.2f}A{w:.2f} {w:.2f} 0 0 1 {x + w:.2f} {y + r * 0.02:.2f}"
        f"Q{x + r * 0.6:.2f} {y - r * 0.5:.2f} {x + r * 0.1:.2f} {y - r * 0.48:.2f}"
        f"Q{x - r * 0.6:.2f} {y - r * 0.46:.2f} {x - w:.2f} {y + r * 0.02:.2f}Z",
        fill,
    )
    c.reach(x - w, y - w, x + w, y)
    if p.style == "spiky":
        outline = (
            (-1, -0.35),
            (-0.95, -1.2),
            (-0.5, -0.95),
            (-0.1, -1.42),
            (0.3, -0.98),
            (0.85, -1.25),
            (1, -0.35),
            (0, -0.6),
        )
        c.poly([(x + a * r, y + b * r) for a, b in outline], fill, round=0.6)
    if p.style == "curly":
        for k in range(5):
            c.oval(x - r * 0.72 + k * r * 0.36, y - r * 0.72 + abs(k - 2) * r * 0.1, r * 0.3, r * 0.3, fill)


def _face(c: Canvas, p: Person, head: Point, r: float) -> None:
    (x, y), skin = head, SKINS[p.skin]
    for side in (-1, 1):
        c.oval(x + side * r * 0.98, y + r * 0.14, r * 0.2, r * 0.22, skin)
    c.oval(x, y, r, r * 0.96, skin)
    for side in (-1, 1):
        c.oval(x + side * r * 0.37, y + r * 0.12, r * 0.115, r * 0.16, "#2b2530")
        c.oval(x + side * r * 0.37 + r * 0.03, y + r * 0.06, r * 0.045, r * 0.045, "#ffffff")
        c.soft(x + side * r * 0.6, y + r * 0.42, r * 0.19, r * 0.13, "#f4776a", 0.45)
    c.curve((x - r * 0.24, y + r * 0.42), (x, y + r * 0.7), (x + r * 0.24, y + r * 0.42), "#8c3b3b", r * 0.1)
    if p.glasses:
        for side in (-1, 1):
            ring = [
                (x + side * r * 0.37 + r * 0.29 * math.cos(t), y + r * 0.12 + r * 0.29 * math.sin(t))
                for t in (math.tau * k / 14 for k in range(15))
            ]
            c.line(ring, "#37363f", r * 0.09)
        c.line(((x - r * 0.08, y + r * 0.12), (x + r * 0.08, y + r * 0.12)), "#37363f", r * 0.09)


def _arm(c: Canvas, p: Person, at: Joints, side: str) -> None:
    shoulder, elbow, wrist = (at[f"{side} {part}"] for part in ("shoulder", "elbow", "wrist"))
    skin, tall = SKINS[p.skin], p.height
    c.line((shoulder, elbow, wrist), skin, 0.062 * tall)
    c.line((shoulder, _between(shoulder, elbow, 0.8)), shade(PALETTE[p.shirt], -0.05), 0.082 * tall)
    c.oval(*wrist, 0.04 * tall, 0.04 * tall, skin)


def _legs(c: Canvas, p: Person, at: Joints) -> None:
    tall, bare = p.height, p.bottom in ("dress", "skirt", "shorts")
    for side in ("left", "right"):
        hip, knee, ankle = (at[f"{side} {part}"] for part in ("hip", "knee", "ankle"))
        c.line((hip, knee, ankle), SKINS[p.skin] if bare else PALETTE[p.trousers], 0.09 * tall)
        if p.bottom == "shorts":
            c.line((hip, _between(hip, knee, 0.75)), PALETTE[p.trousers], 0.105 * tall)
        out = 1 if ankle[0] > p.x else -1
        c.oval(ankle[0] + out * 0.018 * tall, ankle[1] + 0.012 * tall, 0.06 * tall, 0.036 * tall, SHOE)


def _clothes(c: Canvas, p: Person, at: Joints) -> None:
    tall, (x, neck) = p.height, at["neck"]
    hips, shirt = at["left hip"][1], PALETTE[p.shirt]
    c.rect(x - 0.035 * tall, neck - 0.05 * tall, 0.07 * tall, 0.09 * tall, shade(SKINS[p.skin], -0.06))
    if p.bottom == "dress":
        c.poly(
            (
                (x - 0.07 * tall, neck + 0.015 * tall),
                (x + 0.07 * tall, neck + 0.015 * tall),
                (x + 0.17 * tall, hips + 0.1 * tall),
                (x - 0.17 * tall, hips + 0.1 * tall),
            ),
            shirt,
            round=0.05 * tall,
        )
        return
    if p.bottom == "skirt":
        c.poly(
            (
                (x - 0.09 * tall, hips - 0.06 * tall),
                (x + 0.09 * tall, hips - 0.06 * tall),
                (x + 0.16 * tall, hips + 0.09 * tall),
                (x - 0.16 * tall, hips + 0.09 * tall),
            ),
            PALETTE[p.trousers],
            round=0.03 * tall,
        )
    else:
        c.rect(x - 0.112 * tall, hips - 0.045 * tall, 0.224 * tall, 0.09 * tall, PALETTE[p.trousers], round=0.04 * tall)
    c.poly(
        (
            (x - 0.07 * tall, neck + 0.02 * tall),
            (x + 0.07 * tall, neck + 0.02 * tall),
            (x + 0.09 * tall, hips + 0.005 * tall),
            (x - 0.09 * tall, hips + 0.005 * tall),
        ),
        shirt,
        round=0.055 * tall,
    )


def _hat(c: Canvas, p: Person, head: Point, r: float) -> None:
    x, y = head[0], head[1] - r * 0.55
    fill = PALETTE[p.hat_colour or "yellow"]
    if p.hat == "cap":
        c.oval(x, y - r * 0.1, r * 1.02, r * 0.62, fill)
        c.rect(x - r * (1.5 if p.flip else 0.2), y + r * 0.12, r * 1.7, r * 0.26, shade(fill, -0.08), round=r * 0.12)
    if p.hat == "beanie":
        c.oval(x, y - r * 0.1, r * 1.02, r * 0.75, fill)
        c.rect(x - r * 1.06, y - r * 0.06, r * 2.12, r * 0.36, shade(fill, 0.08), round=r * 0.16)
        c.oval(x, y - r * 0.9, r * 0.25, r * 0.25, shade(fill, 0.12))
    if p.hat == "hat":
        c.rect(x - r * 0.68, y - r * 1.2, r * 1.36, r * 1.3, fill, round=r * 0.12)
        c.rect(x - r * 0.68, y - r * 0.3, r * 1.36, r * 0.24, shade(fill, 0.15))
        c.rect(x - r * 1.2, y - r * 0.02, r * 2.4, r * 0.28, fill, round=r * 0.14)
    if p.hat == "crown":
        outline = ((-0.75, 0.1), (-0.85, -0.75), (-0.38, -0.35), (0, -0.9), (0.38, -0.35), (0.85, -0.75), (0.75, 0.1))
        c.poly([(x + a * r, y + b * r) for a, b in outline], fill, round=0.6)


def draw_person(c: Canvas, p: Person) -> None:
    """The whole figure, back to front; a raised arm passes in front of the head."""
    at, r = joints(p), HEAD * p.height
    raised = {side: at[f"{side} wrist"][1] < at["neck"][1] for side in ("left", "right")}
    _hair_behind(c, p, at["head"], r)
    _legs(c, p, at)
    for side in ("left", "right"):
        if not raised[side]:
            _arm(c, p, at, side)
    _clothes(c, p, at)
    _face(c, p, at["head"], r)
    for side in ("left", "right"):
        if raised[side]:
            _arm(c, p, at, side)
    _hair_front(c, p, at["head"], r)
    if p.hat:
        _hat(c, p, at["head"], r)
