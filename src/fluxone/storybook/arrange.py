"""Lays out the kinds of scene in which things stand before, on, under or in one another.

All numbers are picture units (0..100).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fluxone.storybook.cast import Draft, Pick, choose, figure, place, someone, thing
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.render import reach
from fluxone.storybook.spec import Book, Box, Crate, Item, Peek, Relation, Sprite, Table, Thing
from fluxone.storybook.worlds import World

READERS = ("fox", "owl", "penguin", "cat", "dog", "rabbit", "bear", "panda", "frog", "lion", "monkey", "mouse")
SHADY = ("tree", "palm tree", "pine tree")
LARGE = ("house", "castle", "tent", "church", "tree", "pine tree", "palm tree", "fountain", "bus", "truck")
HIDERS: dict[str, tuple[str, ...]] = {
    "cat": ("tail", "ears"),
    "dog": ("tail", "ears"),
    "fox": ("tail", "ears"),
    "rabbit": ("ears",),
    "mouse": ("ears",),
}


def _among(world: World, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in world.objects)


def _small(world: World, *, but: Sequence[str] = LARGE) -> tuple[str, ...]:
    return tuple(name for name in world.grounded() if OBJECTS[name].size <= 1.05 and name not in but)


def _cut(box: Box, bottom: float) -> Box:
    """The box down to a height in picture units: what is below is hidden."""
    return box[0], box[1], box[2], min(box[3], bottom / 100)


def reading(r: Random, world: World) -> Draft:
    """An animal behind an open book, half of the time under a tree."""
    who = choose(r, world, _among(world, READERS))
    colour = r.choice(world.colours)
    shaded = "tree" in world.objects and r.random() < 0.5
    x, foot = (64 if shaded else 50) + r.uniform(-4, 4), 88 + r.uniform(-1, 1)
    animal = place(r, who, x, foot, 36 if shaded else 44, widest=44)
    book = Book(colour=colour, x=x, foot=foot + 4, width=24 if shaded else 30)
    facts: tuple[Thing, ...] = (
        thing(world, who, (animal,), 0),
        Thing(name="book", colour=colour, plain=True, box=reach(book), items=(1,)),
    )
    key = ("reading", who.label(), colour, Pick(name="tree").label() if shaded else "")
    relation = Relation(name="reading", subject=0, other=1)
    if not shaded:
        return Draft(items=(animal, book), things=facts, relations=(relation,), key=key)
    trunk = place(r, Pick(name="tree"), x - 31, foot - 5, 57)
    facts = tuple(shifted(fact, 1) for fact in facts)
    return Draft(
        items=(trunk, animal, book),
        things=(*facts, thing(world, Pick(name="tree"), (trunk,), 0)),
        relations=(relation, Relation(name="shaded by", subject=0, other=2)),
        key=key,
    )


def shifted(fact: Thing, by: int) -> Thing:
    """The fact when `by` items are drawn before."""
    return Thing(
        name=fact.name, colour=fact.colour, plain=fact.plain, count=fact.count, box=fact.box, text=fact.text,
        items=tuple(i + by for i in fact.items), details=fact.details,
    )  # fmt: skip


def tree(r: Random, world: World) -> Draft:
    """A small thing under a tree, beside its trunk."""
    above = choose(r, world, _among(world, SHADY))
    below = choose(r, world, _small(world))
    x = 50 + r.uniform(-5, 5)
    items = (
        place(r, above, x, 86 + r.uniform(-1, 1), 66),
        place(r, below, x + r.choice((-1, 1)) * r.uniform(19, 23), 93 + r.uniform(-1, 1), 27, widest=27),
    )
    return Draft(
        items=items,
        things=(thing(world, below, items[1:], 1), thing(world, above, items[:1], 0)),
        relations=(Relation(name="shaded by", subject=0, other=1),),
        key=("pair", "shaded by", below.label(), above.label()),
    )


def front(r: Random, world: World) -> Draft:
    """A small thing in front of a large one, or the large one in front of the small."""
    large = choose(r, world, _among(world, LARGE))
    small = choose(r, world, _small(world))
    x, side = 50 + r.uniform(-4, 4), r.choice((-1, 1))
    near = r.random() < 0.6
    big = place(r, large, x, 82 if near else 90, 58, widest=62 if near else 46)
    half = (reach(big)[2] - reach(big)[0]) * 50
    if near:
        little = place(r, small, x + side * r.uniform(10, 16), 95 + r.uniform(-1, 1), 27, widest=28)
        items, things = (big, little), (thing(world, small, (little,), 1), thing(world, large, (big,), 0))
    else:
        little = place(r, small, x + side * (half + 2), 80, 28, widest=28)
        items, things = (little, big), (thing(world, large, (big,), 1), thing(world, small, (little,), 0))
    first, second = (small, large) if near else (large, small)
    return Draft(
        items=items,
        things=things,
        relations=(Relation(name="in front of", subject=0, other=1),),
        key=("pair", "in front of", first.label(), second.label()),
    )


def table(r: Random, world: World) -> Draft:
    """A thing on a coloured table, or under it."""
    pick, colour = choose(r, world, _small(world)), r.choice(world.colours)
    on, x = r.random() < 0.6, 50 + r.uniform(-4, 4)
    top = (66 if on else 50) + r.uniform(-1, 1)
    desk = Table(colour=colour, x=x, top=top, foot=92, width=74)
    at = x + r.uniform(-12, 12)
    item = place(r, pick, at, top + 0.6, 36, shadow=False) if on else place(r, pick, at, 93, 31, widest=40)
    fact = Thing(name="table", colour=colour, box=reach(desk), items=(0,))
    name = "on" if on else "below"
    return Draft(
        items=(desk, item),
        things=(thing(world, pick, (item,), 1), fact),
        relations=(Relation(name=name, subject=0, other=1),),
        key=("pair", name, pick.label(), f"{colour} table"),
    )


def _crate(r: Random, world: World) -> tuple[Crate, Crate]:
    colour, x, foot = r.choice(world.colours), 50 + r.uniform(-4, 4), 90 + r.uniform(-1, 1)
    back = Crate(colour=colour, x=x, foot=foot, width=54, height=32, part="back")
    return back, Crate(colour=colour, x=x, foot=foot, width=54, height=32, part="front")


def _in_crate(r: Random, crate: tuple[Crate, Crate], item: Item, fact: Thing, relation: str) -> Draft:
    back, cover = crate
    box = Thing(name="box", colour=cover.colour, box=reach(back, cover), items=(0, 2))
    hidden = Thing(
        name=fact.name, colour=fact.colour, plain=fact.plain, items=(1,), details=fact.details,
        box=_cut(fact.box, cover.foot - cover.height),
    )  # fmt: skip
    label = f"{fact.colour} {fact.name}".strip()
    return Draft(
        items=(back, item, cover),
        things=(hidden, box),
        relations=(Relation(name=relation, subject=0, other=1),),
        key=("pair", relation, label, f"{cover.colour} box"),
    )


def inside(r: Random, world: World) -> Draft:
    """A thing that looks out of an open box."""
    crate = _crate(r, world)
    pick = choose(r, world, _small(world))
    rim = crate[0].foot - crate[0].height
    row = place(r, pick, crate[0].x + r.uniform(-5, 5), rim, 40, widest=42, shadow=False)
    sprite = Sprite(name=row.name, colour=row.colour, x=row.x, foot=rim + 11, size=row.size, flip=row.flip,
                    shadow=False)  # fmt: skip
    return _in_crate(r, crate, sprite, thing(world, pick, (sprite,), 1), "inside")


def hiding(r: Random, world: World) -> Draft:
    """An animal in a box, of which only the tail or the ears can be seen."""
    crate = _crate(r, world)
    animal = r.choice(_among(world, tuple(HIDERS)))
    part, colour = r.choice(HIDERS[animal]), r.choice(world.colours)
    rim = crate[0].foot - crate[0].height
    peek = Peek(animal=animal, part=part, colour=colour, x=crate[0].x + r.uniform(-9, 9), rim=rim)
    fact = Thing(name=animal, colour=colour, box=reach(peek), items=(1,), details=(("visible", part),))
    return _in_crate(r, crate, peek, fact, part)


def two(r: Random, world: World) -> Draft:
    """Two people side by side."""
    a, b = (someone(r, world, x + r.uniform(-1.5, 1.5), 58) for x in (26.0, 74.0))
    return Draft(
        items=(a, b),
        things=(figure(a, world, 0), figure(b, world, 1)),
        relations=(Relation(name="left of", subject=0, other=1),),
        key=("two", a.who, a.hair, a.shirt, b.who, b.hair, b.shirt),
    )
