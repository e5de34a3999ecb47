"""Lays out the simple kinds of scene; the table at the bottom holds all kinds.

All numbers are picture units (0..100). Places jitter little, so that "left" looks alike in every picture.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from random import Random

from fluxone.storybook.arrange import front, hiding, inside, reading, table, tree, two
from fluxone.storybook.cast import (
    HUNG,
    LEGIBLE,
    Draft,
    Pick,
    choose,
    figure,
    lettered_sign,
    place,
    someone,
    thing,
    word,
)
from fluxone.storybook.gather import between, company, holding, saying, sizes, three
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.render import reach
from fluxone.storybook.spec import Relation, Sprite, Thing
from fluxone.storybook.texts import text as worded
from fluxone.storybook.worlds import World

LEFT, RIGHT = 27.0, 73.0  # where the two of a pair stand
FLOOR = 84.0  # where a lone thing stands
SMALL, BIG = 21.0, 74.0  # longest sides of a lone thing that is called small or big
WIDEST = 40.0  # of one of a pair, so that the two never touch


def one(r: Random, world: World) -> Draft:
    """One object, large, in the middle."""
    pick = choose(r, world, world.objects)
    foot = r.uniform(62, 66) if OBJECTS[pick.name].floats else FLOOR + r.uniform(-2, 2)
    if world.sized and r.random() < world.sized:
        return _sized(r, world, pick, foot)
    item = place(r, pick, 50 + r.uniform(-6, 6), foot, 46)
    return Draft(items=(item,), things=(thing(world, pick, (item,), 0),), key=("one", pick.label()))


def _sized(r: Random, world: World, pick: Pick, foot: float) -> Draft:
    """One object that is smaller or larger than usual."""
    small = r.random() < 0.5
    own = OBJECTS[pick.name].size
    foot = foot if small else max(foot + 6, 90.0)
    item = place(r, pick, 50 + r.uniform(-6, 6), foot, (SMALL if small else BIG) / own, widest=82)
    fact = replace(thing(world, pick, (item,), 0), details=(("size", "small" if small else "big"),))
    return Draft(items=(item,), things=(fact,), key=("one", pick.label()))


def side(r: Random, world: World) -> Draft:
    """Two objects side by side; a third of the time the caption does not say which is where."""
    a = choose(r, world, world.objects)
    b = choose(r, world, world.objects, but=(a.name,))
    foot = FLOOR + r.uniform(-2, 2)
    items = tuple(
        place(
            r,
            pick,
            x + r.uniform(-3, 3),
            foot - 16 if OBJECTS[pick.name].floats else foot + r.uniform(-1, 1),
            36,
            widest=WIDEST,
        )
        for pick, x in ((a, LEFT), (b, RIGHT))
    )
    things = (thing(world, a, items[:1], 0), thing(world, b, items[1:], 1))
    if r.random() < 0.3:
        key: tuple[Hashable, ...] = ("pair", "next to", *sorted((a.label(), b.label())))
        return Draft(items=items, things=things, relations=(Relation(name="next to", subject=0, other=1),), key=key)
    return Draft(
        items=items,
        things=things,
        relations=(Relation(name="left of", subject=0, other=1),),
        key=("pair", "left of", a.label(), b.label()),
    )


def stack(r: Random, world: World) -> Draft:
    """Something in the air above something on the ground."""
    low = choose(r, world, world.grounded())
    high = choose(r, world, world.floating(), but=(low.name,))
    x = 50 + r.uniform(-6, 6)
    items = (
        place(r, low, x, 91 + r.uniform(-1, 1), 40),
        place(r, high, x + r.uniform(-6, 6), 39 + r.uniform(-1, 1), 32),
    )
    things = (thing(world, high, items[1:], 1), thing(world, low, items[:1], 0))
    return Draft(
        items=items,
        things=things,
        relations=(Relation(name="above", subject=0, other=1),),
        key=("pair", "above", high.label(), low.label()),
    )


def count(r: Random, world: World) -> Draft:
    """Two to six of the same."""
    pick = choose(r, world, world.objects)
    number = r.choice(tuple(ROWS))
    lift = 22.0 if OBJECTS[pick.name].floats else 0.0
    size, spots = ROWS[number]
    items = tuple(
        place(r, pick, x + r.uniform(-2, 2), foot - lift + r.uniform(-1, 1), size, widest=size * 1.05)
        for x, foot in spots
    )
    flip = items[0].flip  # all look the same way: a row of twins reads at a glance
    items = tuple(
        Sprite(
            name=i.name, colour=i.colour, x=i.x, foot=i.foot, size=min(i.size, size * 1.05), flip=flip, shadow=i.shadow
        )
        for i in items
    )
    return Draft(items=items, things=(thing(world, pick, items, 0),), key=("count", number, pick.label()))


def sign(r: Random, world: World) -> Draft:
    """A word on a sign, alone or with an object that stands by it."""
    text = worded(r, world) if world.fluent else word(r, world)
    kind = r.choice(world.signs)
    hung = kind in HUNG
    board = lettered_sign(r, world, kind, text, (26 if hung else 34) + r.uniform(-2, 2), 86 + r.uniform(-1, 1))
    while world.fluent and board.em < LEGIBLE:
        text = worded(r, world)
        board = lettered_sign(r, world, kind, text, board.y, board.foot)
    fact = Thing(name=kind, colour=board.colour, box=reach(board), items=(0,), text=text)
    key = ("sign", text.lower())
    if kind == "book cover" or (kind != "speech bubble" and r.random() < 0.5):
        return Draft(items=(board,), things=(fact,), texts=(text,), key=key)
    speaks = kind == "speech bubble"
    names = [n for n in world.grounded() if OBJECTS[n].animal or not speaks]
    pick = choose(r, world, names)
    if hung:
        item = place(r, pick, 50 + r.uniform(-5, 5), 90 + r.uniform(-1, 1), 42)
    else:
        item = place(r, pick, r.choice((22.0, 78.0)) + r.uniform(-2, 2), 92 + r.uniform(-1, 1), 34, widest=34)
    relation = "saying" if speaks else "under" if hung else "next to"
    return Draft(
        items=(board, item),
        things=(thing(world, pick, (item,), 1), fact),
        texts=(text,),
        key=key,
        relations=(Relation(name=relation, subject=0, other=1),),
    )


def person(r: Random, world: World) -> Draft:
    """One person, standing or doing something."""
    who = someone(r, world, 50 + r.uniform(-5, 5), 70 if world.outfits else 76)  # hats need room
    return Draft(items=(who,), things=(figure(who, world, 0),), key=("person", who.who, who.hair, who.shirt, who.pose))


ROWS: dict[int, tuple[float, tuple[tuple[float, float], ...]]] = {
    2: (36, ((28, 84), (72, 84))),
    3: (27, ((19, 82), (50, 86), (81, 82))),
    4: (25, ((29, 66), (71, 66), (29, 94), (71, 94))),
    5: (21, ((20, 64), (50, 61), (80, 64), (34, 92), (66, 92))),
    6: (21, ((20, 64), (50, 64), (80, 64), (20, 93), (50, 93), (80, 93))),
}
PEOPLED = ("person", "two", "three", "company", "holding")  # kinds of scene that are about people
Maker = Callable[[Random, World], Draft]
KINDS: dict[str, Maker] = {
    "one": one,
    "side": side,
    "stack": stack,
    "count": count,
    "sign": sign,
    "person": person,
    "two": two,
    "reading": reading,
    "tree": tree,
    "front": front,
    "table": table,
    "inside": inside,
    "hiding": hiding,
    "three": three,
    "company": company,
    "holding": holding,
    "saying": saying,
    "between": between,
    "sizes": sizes,
}
