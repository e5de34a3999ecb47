"""What a scene is: items to draw, and facts to check a picture against. No drawing, no words."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """One object: where its foot stands and how long its longest side is, in picture units (0..100)."""

    name: str
    colour: str = ""  # a palette colour, or as drawn
    x: float
    foot: float
    size: float
    flip: bool = False
    shadow: bool = True
    held: bool = False  # in a hand: as near as who holds it


@dataclass(frozen=True, kw_only=True)
class Person:
    """One figure: the foot's place, the height, the looks and the pose."""

    who: str
    x: float
    foot: float
    height: float
    skin: int
    hair: str  # a hair colour
    style: str  # a hair style
    shirt: str
    trousers: str
    pose: str
    bottom: str = "trousers"
    hat: str = ""
    hat_colour: str = ""
    glasses: bool = False
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Something with text on it, centred at (x, y)."""

    kind: str
    text: str
    font: str
    colour: str = ""
    x: float
    y: float
    width: float
    height: float
    em: float
    foot: float = 90.0
    breaks: int = 0  # index of the space at which the second line starts; 0 is one line


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table seen from the side: its top's height and its feet's."""

    colour: str
    x: float
    top: float
    foot: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Crate:
    """An open box; drawn in two parts, so that something can stand between them."""

    colour: str
    x: float
    foot: float
    width: float
    height: float
    part: Literal["back", "front"]


@dataclass(frozen=True, kw_only=True)
class Book:
    """An open book held up to its reader, seen from the outside."""

    colour: str
    x: float
    foot: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Peek:
    """The visible part of an animal that hides: its tail or its ears, above `rim`."""

    animal: str
    part: str  # tail or ears
    colour: str
    x: float
    rim: float


Item = Sprite | Person | Sign | Table | Crate | Book | Peek


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing the caption may speak of; `items` are its indices in `Scene.items`."""

    name: str
    colour: str = ""  # the colour word that is true of the picture; empty when none is
    plain: bool = False  # true when a caption may leave the colour out: it is the thing's usual one
    count: int = 1
    box: Box  # in 0..1
    items: tuple[int, ...]
    text: str = ""
    details: tuple[tuple[str, str], ...] = ()

    def detail(self, name: str) -> str:
        """The detail called `name`, or an empty string."""
        return dict(self.details).get(name, "")


@dataclass(frozen=True, kw_only=True)
class Relation:
    """`things[subject]` is `name` of `things[other]`, and of `things[third]` where it takes three."""

    name: str
    subject: int
    other: int
    third: int | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Ground truth of a scene."""

    things: tuple[Thing, ...]
    relations: tuple[Relation, ...] = ()
    texts: tuple[str, ...] = ()
    stage: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One picture: drawn back to front from `items`, described by `caption`, checked by `facts`."""

    seed: int
    kind: str
    items: tuple[Item, ...]
    stage: str
    stage_seed: int
    horizon: float
    facts: Facts
    key: tuple[Hashable, ...]
    style: str = ""  # a row of styles.STYLES, or as drawn
    caption: str = ""
    fluent: bool = False  # whether captions may use the synonyms and wordings of idioms.py
