"""Chooses what a scene is made of: an object and its colour, a word on a sign, a person; and says so as facts.

All numbers are picture units (0..100).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from random import Random

from fluxone.storybook.library import CAPITALS, drawing, lettering
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.people import SKINS, STYLES
from fluxone.storybook.props import LEADING
from fluxone.storybook.render import reach
from fluxone.storybook.spec import Item, Person, Relation, Sign, Sprite, Thing
from fluxone.storybook.texts import broken
from fluxone.storybook.words import invented, lettered
from fluxone.storybook.worlds import World

COLOURED = 0.6  # share of the tintable things drawn in another colour than their own
COLOURED_SIGNS = ("banner", "neon sign", "book cover", "poster")
HUNG = ("banner", "speech bubble")  # signs that leave room for what is below them
LARGEST, LARGEST_OF_TWO, COVER = 24.0, 17.0, 60.0  # em of one line and of two; a book's width
LEGIBLE = 9.0  # em below which a text is not used: 16 px capitals at 256 px


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A scene before it gets a place and a caption."""

    items: tuple[Item, ...]
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...] = ()
    texts: tuple[str, ...] = ()
    key: tuple[Hashable, ...]


@dataclass(frozen=True, kw_only=True)
class Pick:
    """An object and the colour it is drawn in; no colour means its own."""

    name: str
    colour: str = ""

    def word(self, world: World) -> str:
        """The colour word that is true of it, if the world has one."""
        natural = OBJECTS[self.name].natural
        return self.colour or (natural if natural in world.colours else "")

    def label(self) -> str:
        """What a key calls it."""
        return f"{self.colour or OBJECTS[self.name].natural} {self.name}".strip()


def choose(r: Random, world: World, names: Sequence[str], *, but: Sequence[str] = ()) -> Pick:
    """An object that is none of `but`, in its own colour or in one of the world's."""
    name = r.choice([n for n in names if n not in but])
    row = OBJECTS[name]
    if not row.tint or r.random() > COLOURED:
        return Pick(name=name)
    colour = r.choice(world.colours)
    return Pick(name=name, colour="" if colour == row.natural else colour)


def place(
    r: Random, pick: Pick, x: float, foot: float, size: float, *, widest: float = 100.0, shadow: bool = True
) -> Sprite:
    """The object at (x, foot), `size` times its own proportion, no wider than `widest`."""
    row = OBJECTS[pick.name]
    left, top, right, bottom = drawing(row.icon).box
    long = size * row.size
    across = (right - left) / max(right - left, bottom - top)
    long = min(long, widest / across)
    return Sprite(
        name=pick.name,
        colour=pick.colour,
        x=x,
        foot=foot,
        size=long,
        flip=r.random() < 0.5,
        shadow=shadow and not row.floats,
    )


def thing(world: World, pick: Pick, items: Sequence[Item], first: int) -> Thing:
    """The fact about one or more equal objects, the first of which is `items[first]` of the scene."""
    return Thing(
        name=pick.name,
        colour=pick.word(world),
        plain=not pick.colour,
        count=len(items),
        box=reach(*items),
        items=tuple(range(first, first + len(items))),
    )


def word(r: Random, world: World) -> str:
    """A word for a sign, in the case it is written in."""
    if r.random() < world.random_words:
        return lettered(r, invented(r, r.randint(3, world.max_letters)))
    return lettered(r, r.choice([w for w in world.words if len(w) <= world.max_letters]))


def lettered_sign(r: Random, world: World, kind: str, text: str, y: float, foot: float) -> Sign:
    """A sign of the kind, as wide as its text needs, in a font that can show the case of the text."""
    font = r.choice([name for name in world.fonts if text.isupper() or name not in CAPITALS])
    breaks = broken(r, text) if " " in text else 0
    wide = across(text, font, breaks)
    cover = kind == "book cover"
    tallest = LARGEST if not breaks else LARGEST_OF_TWO * (0.78 if kind in HUNG else 1)
    em = min(tallest, (COVER if cover else 72.0) / wide)
    height = (2 * LEADING - 0.05 if breaks else 0.95) * max(em, 16.0 if not breaks else 11.0) + 7
    width = max(wide * em + 10, 38.0)
    colour = r.choice([c for c in world.colours if c != "black"]) if kind in COLOURED_SIGNS else ""
    at = 50 + r.uniform(-2, 2)
    if cover:
        width = max(width + 2, 40.0)
        height = max(height + 14, width * 1.15)
        y = foot - height / 2
    return Sign(
        kind=kind,
        text=text,
        font=font,
        colour=colour,
        x=at,
        y=y,
        width=width,
        height=height,
        em=em,
        foot=foot,
        breaks=breaks,
    )


def across(text: str, font: str, breaks: int) -> float:
    """How wide the text is in em, the wider of its lines."""
    parts = (text[:breaks], text[breaks + 1 :]) if breaks else (text,)
    return max(lettering(part, font).width for part in parts)


def someone(r: Random, world: World, x: float, height: float) -> Person:
    """A figure with the looks that the world allows."""
    who = r.choice(world.people)
    bottoms = ("trousers", "shorts") if who in ("boy", "man") else ("trousers", "skirt", "dress")
    bottom = r.choice(bottoms) if world.outfits else "trousers"
    shirt = r.choice(world.colours)
    trousers = r.choice([c for c in world.colours if c != shirt]) if world.outfits else "blue"
    hat = r.choice(("", "", "", "cap", "beanie", "hat", "crown")) if world.outfits else ""
    hat_colour = "" if hat in ("", "crown") else r.choice(world.colours)
    pose = r.choice(world.poses)
    return Person(
        who=who,
        x=x,
        foot=91 + r.uniform(-1, 1),
        height=height,
        skin=r.randrange(len(SKINS)),
        hair=r.choice(world.hair),
        style=r.choice(STYLES[who]) if world.outfits else STYLES[who][0],
        shirt=shirt,
        trousers=trousers,
        bottom=bottom,
        hat=hat,
        hat_colour=hat_colour,
        glasses=world.outfits and r.random() < 0.15,
        pose=pose,
        flip=r.random() < 0.5,
    )


def figure(person: Person, world: World, index: int) -> Thing:
    """The fact about a person; details that the world keeps fixed are not spoken of."""
    details = {"hair": person.hair, "shirt": person.shirt, "pose": person.pose}
    if world.outfits:
        details |= {
            "style": person.style,
            "bottom": person.bottom,
            "trousers": person.trousers,
            "hat": person.hat,
            "hat colour": person.hat_colour,
            "glasses": "glasses" if person.glasses else "",
        }
    return Thing(name=person.who, box=reach(person), items=(index,), details=tuple(details.items()))
