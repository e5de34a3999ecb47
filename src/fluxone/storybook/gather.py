"""Lays out the kinds of scene that hold several people, three things, things held in a hand, and things of two sizes.

All numbers are picture units (0..100).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from fluxone.storybook.cast import LEGIBLE, Draft, Pick, choose, figure, lettered_sign, place, someone, thing
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.render import reach
from fluxone.storybook.rig import joints
from fluxone.storybook.spec import Item, Person, Relation, Sprite, Thing
from fluxone.storybook.texts import text
from fluxone.storybook.worlds import World

THIRDS = (18.0, 50.0, 82.0)  # where the three of a row stand
HANDY = (
    "balloon", "umbrella", "apple", "star", "tulip", "rose", "sunflower", "book", "key", "trophy", "banana", "pear",
    "lemon", "strawberry", "carrot", "cupcake", "donut", "lollipop", "cookie", "pizza", "hamburger", "gift", "football",
    "basketball", "guitar", "trumpet", "bell", "crown", "teddy bear", "camera", "candle", "clock", "diamond", "lantern",
    "heart", "kite", "mushroom", "bucket", "teapot", "cake", "snowflake",
)  # fmt: skip
LIFTED = ("balloon", "umbrella", "kite", "lantern")  # larger than what lies in a hand
GRIPPED = 0.55  # of a handled thing's height is above the hand's middle: the fingers reach into it


def _row(r: Random, world: World, places: Sequence[float], size: float) -> tuple[tuple[Sprite, ...], tuple[Thing, ...]]:
    """One different object at each place, none wider than leaves the others free."""
    picks: list[Pick] = []
    for _ in places:
        picks.append(choose(r, world, world.objects, but=tuple(p.name for p in picks)))
    foot = 84 + r.uniform(-2, 2)
    items = tuple(
        place(r, pick, x + r.uniform(-1.5, 1.5), foot - 18 if OBJECTS[pick.name].floats else foot, size, widest=size)
        for pick, x in zip(picks, places, strict=True)
    )
    return items, tuple(thing(world, pick, items[k : k + 1], k) for k, pick in enumerate(picks))


def between(r: Random, world: World) -> Draft:
    """Three things in a row: the caption speaks of the middle one, or of all from left to right."""
    items, things = _row(r, world, THIRDS, 27)
    left, middle, right = (f"{t.colour} {t.name}".strip() for t in things)
    if r.random() < 0.65:
        relation = Relation(name="between", subject=0, other=1, third=2)
        key = ("between", middle, *sorted((left, right)))
        return Draft(items=items, things=(things[1], things[0], things[2]), relations=(relation,), key=key)
    relation = Relation(name="in a row", subject=0, other=1, third=2)
    return Draft(items=items, things=things, relations=(relation,), key=("in a row", left, middle, right))


def three(r: Random, world: World) -> Draft:
    """Three people in a row."""
    people = tuple(someone(r, world, x + r.uniform(-0.5, 0.5), 44) for x in (18.5, 50.0, 81.5))
    people = tuple(replace(p, pose=p.pose if p.pose in NARROW else "standing") for p in people)
    things = tuple(figure(p, world, k) for k, p in enumerate(people))
    key = ("three", *((p.who, p.hair, p.shirt) for p in people))
    if r.random() < 0.4:
        relation = Relation(name="between", subject=0, other=1, third=2)
        return Draft(items=people, things=(things[1], things[0], things[2]), relations=(relation,), key=key)
    return Draft(
        items=people, things=things, relations=(Relation(name="in a row", subject=0, other=1, third=2),), key=key
    )


def company(r: Random, world: World) -> Draft:
    """A person beside an animal or a thing."""
    left = r.random() < 0.5
    who = someone(r, world, (27 if left else 73) + r.uniform(-1.5, 1.5), 60)
    animals = tuple(n for n in world.objects if OBJECTS[n].animal)
    pick = choose(r, world, animals if r.random() < 0.5 else world.objects)
    foot = (74 if OBJECTS[pick.name].floats else 91) + r.uniform(-1, 1)
    item = place(r, pick, (76 if left else 24) + r.uniform(-1.5, 1.5), foot, 35, widest=36)
    items: tuple[Item, ...] = (who, item)
    facts = (figure(who, world, 0), thing(world, pick, (item,), 1))
    label = pick.label()
    if r.random() < 0.5:
        relation = Relation(name="next to", subject=0, other=1)
    else:
        facts = facts if left else (facts[1], facts[0])
        relation = Relation(name="left of", subject=0, other=1)
    return Draft(items=items, things=facts, relations=(relation,), key=("company", who.who, who.hair, who.shirt, label))


def held(r: Random, person: Person, name: str, colour: str) -> Sprite:
    """The object in the person's raised hand."""
    x, y = joints(person)["right wrist"]
    long = (27.0 if name in LIFTED else 19.0) * person.height / 62
    put = place(r, Pick(name=name, colour=colour), x, 50, long, widest=long * 1.1, shadow=False)
    box = reach(put)
    high = (box[3] - box[1]) * 100
    sunk = 1.5 if name in LIFTED else (1 - GRIPPED) * high * 0.35
    return replace(put, foot=y + sunk, held=True, size=put.size)


def holding(r: Random, world: World) -> Draft:
    """A person with a thing in one raised hand."""
    pick = choose(r, world, tuple(name for name in HANDY if name in world.objects))
    who = replace(someone(r, world, 50, 62), pose="holding")
    side = -1 if who.flip else 1
    who = replace(who, x=50 - side * 6 + r.uniform(-3, 3))
    item = held(r, who, pick.name, pick.colour)
    return Draft(
        items=(who, item),
        things=(figure(who, world, 0), thing(world, pick, (item,), 1)),
        relations=(Relation(name="holding", subject=0, other=1),),
        key=("holding", who.who, who.hair, who.shirt, pick.label()),
    )


def saying(r: Random, world: World) -> Draft:
    """A person under a speech bubble."""
    said = text(r, world)
    board = lettered_sign(r, world, "speech bubble", said, 0, 86)
    while board.em < LEGIBLE:
        said = text(r, world)
        board = lettered_sign(r, world, "speech bubble", said, 0, 86)
    board = replace(board, y=board.height / 2 + 4 + r.uniform(-1, 1))
    who = someone(r, world, 50 + r.uniform(-4, 4), 52)
    who = replace(who, pose=who.pose if who.pose in NARROW else "standing", foot=93, hat="", hat_colour="")
    return Draft(
        items=(board, who),
        things=(
            figure(who, world, 1),
            Thing(name="speech bubble", colour="", box=reach(board), items=(0,), text=said),
        ),
        texts=(said,),
        relations=(Relation(name="saying", subject=0, other=1),),
        key=("sign", said.lower()),
    )


def sizes(r: Random, world: World) -> Draft:
    """A small thing next to a big one."""
    names = world.grounded()
    a = choose(r, world, names)
    b = choose(r, world, names, but=(a.name,))
    left = r.random() < 0.5
    foot = 88 + r.uniform(-1.5, 1.5)
    small = place(r, a, (19 if left else 81) + r.uniform(-2, 2), foot, 17, widest=18)
    small = replace(small, size=small.size / OBJECTS[a.name].size)
    big = place(r, b, (63 if left else 37) + r.uniform(-1.5, 1.5), foot, 54, widest=52)
    facts = (
        replace(thing(world, a, (small,), 0), details=(("size", "small"),)),
        replace(thing(world, b, (big,), 1), details=(("size", "big"),)),
    )
    if r.random() < 0.4:
        relation = Relation(name="next to", subject=0, other=1)
        name = "next to"
    else:
        facts = facts if left else (facts[1], facts[0])
        relation, name = Relation(name="left of", subject=0, other=1), "left of" if left else "right of"
    return Draft(items=(small, big), things=facts, relations=(relation,), key=("sizes", name, a.label(), b.label()))


NARROW = ("standing", "waving", "walking", "cheering", "posing")  # poses that leave the neighbours alone
