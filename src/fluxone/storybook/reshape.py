"""Edits that change how many things there are, where they stand and how large they are; all else stays as it is."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from random import Random

from fluxone.storybook.cast import Pick, choose, place, thing
from fluxone.storybook.compose import BIG, ROWS, SMALL
from fluxone.storybook.idioms import SIZES
from fluxone.storybook.nouns import article
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.render import reach
from fluxone.storybook.spec import Item, Person, Relation, Scene, Sprite, Thing
from fluxone.storybook.wordings import NUMBERS
from fluxone.storybook.worlds import World

Edited = tuple[Scene, dict[str, str]]  # the new scene, and what fills the instruction's gaps
GAP, LEAST = 4.0, 17.0  # left free around a thing that is added; the least room it is given
ASIDE = 27.0  # where a thing is moved to, from the picture's edge
EXTRA = 29.0  # longest side of a thing that is added


def label(t: Thing, item: Item) -> str:
    """What a key calls the thing."""
    if isinstance(item, Sprite):
        return Pick(name=item.name, colour=item.colour).label()
    return f"{t.colour} {t.name}".strip()


def _whole(scene: Scene, kind: str, items: tuple[Item, ...], things: tuple[Thing, ...],
           relations: tuple[Relation, ...], key: tuple[Hashable, ...]) -> Scene:  # fmt: skip
    texts = tuple(t.text for t in things if t.text)
    facts = replace(scene.facts, things=things, relations=relations, texts=texts)
    return replace(scene, kind=kind, items=items, facts=facts, key=key)


def _who(person: Person) -> tuple[str, str, str]:
    return person.who, person.hair, person.shirt


def add(r: Random, scene: Scene, world: World) -> Edited | None:
    """One more thing, in the free room beside a lone thing or person."""
    if scene.kind not in ("one", "person"):
        return None
    old, item = scene.facts.things[0], scene.items[0]
    rooms = {"left": 100 * old.box[0], "right": 100 * (1 - old.box[2])}
    sides = [side for side, room in rooms.items() if room - GAP > LEAST]
    if not sides:
        return None
    side = r.choice(sides)
    room = min(rooms[side] - GAP, EXTRA + 6)
    pick = choose(r, world, world.objects, but=(old.name,))
    foot = (70 if OBJECTS[pick.name].floats else 88) + r.uniform(-2, 2)
    middle = rooms[side] / 2
    put = place(r, pick, middle if side == "left" else 100 - middle, foot, EXTRA, widest=room - 1)
    new = thing(world, pick, (put,), 1)
    things = (new, old) if side == "left" else (old, new)
    relation = (Relation(name="left of", subject=0, other=1),)
    gaps = {
        "other": article(f"{new.colour if not new.plain else ''} {pick.name}".strip()),
        "side": side,
        "thing": old.name,
    }
    if isinstance(item, Person):
        key: tuple[Hashable, ...] = ("company", *_who(item), pick.label())
        return _whole(scene, "company", (item, put), things, relation, key), gaps
    labels = (pick.label(), label(old, item)) if side == "left" else (label(old, item), pick.label())
    return _whole(scene, "side", (item, put), things, relation, ("pair", "left of", *labels)), gaps


def remove(r: Random, scene: Scene, world: World) -> Edited | None:
    """One of two things taken away."""
    if scene.kind not in ("side", "company", "stack", "sign") or len(scene.facts.things) != 2:
        return None
    able = [t for t in scene.facts.things if isinstance(scene.items[t.items[0]], Sprite)]
    if any(t.name == "speech bubble" for t in scene.facts.things):
        return None
    gone = r.choice(able)
    left = next(t for t in scene.facts.things if t is not gone)
    item = scene.items[left.items[0]]
    if isinstance(item, Person):
        kind = "person"
        key: tuple[Hashable, ...] = ("person", *_who(item), item.pose)
    elif left.text:
        kind, key = "sign", scene.key
    else:
        kind, key = "one", ("one", label(left, item))
    return _whole(scene, kind, (item,), (replace(left, items=(0,)),), (), key), {"thing": gone.name}


def count(r: Random, scene: Scene, world: World) -> Edited | None:
    """Another number of the same thing."""
    if scene.kind != "count":
        return None
    old, first = scene.facts.things[0], scene.items[0]
    assert isinstance(first, Sprite)
    number = r.choice([n for n in ROWS if n != old.count])
    pick = Pick(name=first.name, colour=first.colour)
    lift = 22.0 if OBJECTS[pick.name].floats else 0.0
    size, spots = ROWS[number]
    rows = (place(r, pick, x + r.uniform(-2, 2), foot - lift, size, widest=size * 1.05) for x, foot in spots)
    items = tuple(replace(row, size=min(row.size, size * 1.05), flip=first.flip) for row in rows)
    new = thing(world, pick, items, 0)
    many = OBJECTS[pick.name].many(pick.name)
    changed = _whole(scene, "count", items, (new,), (), ("count", number, pick.label()))
    return changed, {"number": f"{NUMBERS[number]} {many}", "thing": many}


def move(r: Random, scene: Scene, world: World) -> Edited | None:
    """A lone thing or person put on one side of the picture."""
    if scene.kind not in ("one", "person"):
        return None
    old, item = scene.facts.things[0], scene.items[0]
    assert isinstance(item, Sprite | Person)
    side = r.choice(("left", "right"))
    half = 50 * (old.box[2] - old.box[0])
    if half > ASIDE:
        return None
    at = max(half + 2, ASIDE - 3)
    put = replace(item, x=item.x + (at if side == "left" else 100 - at) - 50 * (old.box[0] + old.box[2]))
    new = replace(old, box=reach(put), details=(*(d for d in old.details if d[0] != "place"), ("place", side)))
    return _whole(scene, scene.kind, (put,), (new,), (), scene.key), {"thing": old.name, "side": side}


def exchange(r: Random, scene: Scene, world: World) -> Edited | None:
    """The two of a pair change places."""
    if scene.kind != "side" or len(scene.items) != 2:
        return None
    a, b = scene.items
    assert isinstance(a, Sprite) and isinstance(b, Sprite)
    if max(t.box[2] - t.box[0] for t in scene.facts.things) > 0.42:
        return None
    items: tuple[Item, ...] = (replace(a, x=b.x), replace(b, x=a.x))
    things = tuple(replace(t, box=reach(items[t.items[0]])) for t in scene.facts.things)
    relation = scene.facts.relations[0]
    key = scene.key
    if relation.name == "left of":
        things, key = (things[1], things[0]), (*key[:2], key[3], key[2])
    moved = r.choice(things)
    other = next(t for t in things if t is not moved)
    side = "left" if moved.box[0] < other.box[0] else "right"
    gaps = {"thing": moved.name, "other": other.name, "side": side}
    return _whole(scene, "side", items, things, (relation,), key), gaps


def size(r: Random, scene: Scene, world: World) -> Edited | None:
    """A lone thing made clearly smaller or bigger."""
    if scene.kind != "one":
        return None
    old, item = scene.facts.things[0], scene.items[0]
    assert isinstance(item, Sprite)
    now = old.detail("size")
    name = {"small": "big", "big": "small"}.get(now) or r.choice(("small", "big"))
    own = OBJECTS[old.name].size
    put = place(r, Pick(name=item.name, colour=item.colour), item.x, item.foot,
                (SMALL if name == "small" else min(BIG, item.foot - 5)) / own, widest=82)  # fmt: skip
    put = replace(put, flip=item.flip)
    new = replace(old, box=reach(put), details=(("size", name),))
    said = r.choice((*COMPARED[name], *SIZES[name]) if not now else COMPARED[name])
    return _whole(scene, "one", (put,), (new,), (), scene.key), {"thing": old.name, "size": said}


COMPARED = {"small": ("smaller", "much smaller"), "big": ("bigger", "larger", "much bigger")}
