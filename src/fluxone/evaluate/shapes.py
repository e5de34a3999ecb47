"""A figure as a map of what its parts are made of: the renderer's own drawing, with numbers in the place of colours.

    Person -- draw --> fills --> numbers of `PARTS` --> where each part is, px from the middle of the head

A part is drawn in one of its material's colours (skin, hair, shirt ...), a little lighter or darker, or always in the
same one (eyes, shoes). `INKS` is all these colours; which of them a picture shows there tells the figure's looks. What
is translucent, and what is too small to be told, belongs to no part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from fluxone.storybook.canvas import SPAN, Canvas
from fluxone.storybook.colours import PALETTE, shade
from fluxone.storybook.engines import ENGINES
from fluxone.storybook.people import HAIR, SHOE, SKINS, STYLES
from fluxone.storybook.render import draw
from fluxone.storybook.rig import joints
from fluxone.storybook.spec import Person

TALL, FRAME = 60.0, 110.0  # height of the figures that shapes are taken from, and of their drawings, picture units
MASTER = 192  # px of `SPAN` in these drawings
FILL = re.compile(r'"(#[0-9a-f]{6})"')
TRANSLUCENT = re.compile(r"<[^>]*fill-opacity[^>]*/>")
EYE, MOUTH, RING = "#2b2530", "#8c3b3b", "#37363f"
TONES = tuple(str(tone) for tone in range(len(SKINS)))
MATERIALS: dict[str, dict[str, str]] = {  # what can be of several colours, and which
    "skin": dict(zip(TONES, SKINS, strict=True)),
    "hair": HAIR,
    "shirt": PALETTE,
    "trousers": PALETTE,
    "hat colour": PALETTE,
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is of one colour: its material and how much lighter it is, or the colour itself."""

    material: str = ""
    lighter: float = 0.0
    colour: str = ""


PARTS: tuple[Part, ...] = (
    Part(material="skin"),
    Part(material="skin", lighter=-0.06),
    Part(material="hair"),
    Part(material="hair", lighter=-0.05),
    Part(material="shirt"),
    Part(material="shirt", lighter=-0.05),
    Part(material="trousers"),
    Part(material="hat colour"),
    Part(material="hat colour", lighter=-0.08),
    Part(material="hat colour", lighter=0.08),
    Part(material="hat colour", lighter=0.12),
    Part(material="hat colour", lighter=0.15),
    Part(colour=SHOE),
    Part(colour=EYE),
    Part(colour=MOUTH),
    Part(colour=RING),
)
SOLID = sum(bool(part.material) for part in PARTS)  # the first so many are large: of them px at an edge do not count
CORNERS = tuple((x, y) for x in (-0.4, 0.4) for y in (-0.4, 0.4))
PROBE = Person(who="", x=FRAME / 2, foot=0, height=TALL, skin=0, hair="brown", style="short", shirt="green",
               trousers="blue", pose="standing", hat_colour="orange")  # fmt: skip
PROBED = {"skin": SKINS[0], "hair": HAIR["brown"], "shirt": PALETTE["green"], "trousers": PALETTE["blue"],
          "hat colour": PALETTE["orange"]}  # fmt: skip
NUMBERS = {part.colour or shade(PROBED[part.material], part.lighter): n for n, part in enumerate(PARTS)} | {
    PROBED[material]: n for n, part in enumerate(PARTS) if (material := part.material) and not part.lighter
}


def _inks(part: Part) -> list[str]:
    if part.colour:
        return [part.colour]
    colours = MATERIALS[part.material].values()
    return [shade(colour, part.lighter) if part.lighter else colour for colour in colours]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


INKS: Float[np.ndarray, "inks 3"] = np.array([_rgb(ink) for part in PARTS for ink in _inks(part)], np.float32)
ENDS = np.cumsum([0, *(len(_inks(part)) for part in PARTS)])
SPANS = tuple(slice(int(a), int(b)) for a, b in pairwise(ENDS))  # each part's rows of `INKS`


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Where each part of a figure is, px right of and below the middle of its head."""

    parts: tuple[int, ...]  # those that can be seen, numbers in `PARTS`
    starts: Int[np.ndarray, " parts"]  # of each of them in the two rows below
    across: Int[np.ndarray, " px"]
    down: Int[np.ndarray, " px"]

    def at(self, x: int | NDArray[np.intp], y: int | NDArray[np.intp], size: int) -> NDArray[np.intp]:
        """The number of each px in a picture with the head at (x, y), row after row; `size` squared is outside."""
        across, down = self.across + x, self.down + y
        inside = (across >= 0) & (across < size) & (down >= 0) & (down < size)
        found: NDArray[np.intp] = np.where(inside, down * size + across, size * size)
        return found

    def spans(self) -> list[tuple[int, slice]]:
        """Each part with where its px are in the rows."""
        ends = (*self.starts[1:].tolist(), len(self.across))
        return [(part, slice(a, b)) for part, a, b in zip(self.parts, self.starts.tolist(), ends, strict=True)]


@lru_cache(maxsize=8192)
def shape(person: Person, size: int, phase: tuple[float, float] = (0.0, 0.0)) -> Shape:
    """The shape of a figure in the probe's colours in pictures of `size` px; whatever else changes, its head stays.

    Args:
        phase: how far right of and below the middle of its px the middle of the head is, px.

    Raises:
        MissingExtra: what draws it is not installed.
    """
    master = _master(replace(person, height=TALL))
    scale = person.height / TALL * size / MASTER  # px here for a px there
    reach = int(scale * len(master) / 2)
    steps = np.arange(-reach, reach + 1)
    middle, last = (len(master) - 1) / 2, len(master) - 1

    def sampled(right: float, below: float) -> NDArray[np.uint8]:
        columns, rows = (
            np.round(middle + (steps - by + beside) / scale).astype(np.intp).clip(0, last)
            for by, beside in zip(phase, (right, below), strict=True)
        )
        found: NDArray[np.uint8] = master[rows[:, None], columns]
        return found

    labels = sampled(0, 0)
    mixed = np.logical_or.reduce([sampled(*corner) != labels for corner in CORNERS])
    labels = np.where(mixed & (labels <= SOLID), 0, labels)
    rows, columns = np.nonzero(labels)
    found = labels[rows, columns] - 1
    order = np.argsort(found, kind="stable")
    parts, starts = np.unique(found[order], return_index=True)
    return Shape(parts=tuple(map(int, parts)), starts=starts, across=columns[order] - reach, down=rows[order] - reach)


@lru_cache(maxsize=1024)
def _master(person: Person) -> NDArray[np.uint8]:
    """The number of the part in every px, from 1, of a figure of `TALL`; 0 is none. The head is in the middle."""
    canvas = Canvas()
    draw(replace(person, foot=FRAME / 2 - head(person)), canvas)
    body = FILL.sub(lambda m: f'"#0000{NUMBERS.get(m[1], len(PARTS)) + 1:02x}"', TRANSLUCENT.sub("", canvas.body))
    px = round(MASTER * FRAME / SPAN)
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{px}" height="{px}" viewBox="0 0 {FRAME:g} {FRAME:g}"'
    drawn = ENGINES["resvg"](f'{frame} shape-rendering="crispEdges">{body}</svg>', px)
    labels: NDArray[np.uint8] = np.where((drawn[..., 3] > 0) & (drawn[..., 2] <= len(PARTS)), drawn[..., 2], 0)
    return labels


def head(person: Person) -> float:
    """How far the middle of the head is below where the figure would stand at 0, picture units: less than 0."""
    return joints(replace(person, foot=0.0))["head"][1]


def called(person: Person) -> str:
    """Boy or girl, as the storybook draws them: by the cut of the hair, and where that tells nothing by the clothes."""
    girls = {*STYLES["girl"], *STYLES["woman"]}
    if person.style in girls and person.style not in STYLES["boy"]:
        return "girl"
    return "girl" if person.bottom in ("skirt", "dress") else "boy"
