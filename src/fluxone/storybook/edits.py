"""Pairs for learning to edit: the same scene with exactly one attribute changed, and the instruction that asks for it.

Everything that the instruction does not name keeps its place, so the difference of the two pictures is the edit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from random import Random

from fluxone.storybook import reshape
from fluxone.storybook.captions import LONGEST, caption, length
from fluxone.storybook.cast import LARGEST, LARGEST_OF_TWO, Pick, across, figure, place, thing, word
from fluxone.storybook.gather import NARROW
from fluxone.storybook.library import CAPITALS, lettering
from fluxone.storybook.nouns import AN, article
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.props import LEADING
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Book, Crate, Item, Person, Scene, Sign, Sprite, Table, Thing
from fluxone.storybook.stages import STAGES
from fluxone.storybook.styles import STYLES
from fluxone.storybook.texts import broken
from fluxone.storybook.texts import text as worded
from fluxone.storybook.wordings import INSTRUCTIONS
from fluxone.storybook.worlds import WORLDS, World

Edited = tuple[Scene, dict[str, str]]  # the new scene, and what fills the instruction's gaps
Editor = Callable[[Random, Scene, World], Edited | None]
SMALLEST_EM, SMALLEST = 14.0, 9.0  # a new word, or a phrase, must fit the old sign at a size that can be read
DRAWS = 40  # texts tried


def _called(t: Thing) -> str:
    return OBJECTS[t.name].many(t.name) if t.count > 1 else t.name


def _other(r: Random, options: Sequence[str], *but: str) -> str:
    return r.choice([option for option in options if option not in but])


def _swapped(scene: Scene, old: Thing, new: Thing, items: dict[int, Item], key: tuple[Hashable, ...]) -> Scene:
    """The scene with one thing and its items exchanged."""
    things = tuple(new if t is old else t for t in scene.facts.things)
    kept = tuple(items.get(i, item) for i, item in enumerate(scene.items))
    texts = tuple(t.text for t in things if t.text)
    return replace(scene, items=kept, facts=replace(scene.facts, things=things, texts=texts), key=key)


def _renamed(key: tuple[Hashable, ...], old: str, new: str) -> tuple[Hashable, ...]:
    """The combination with one part exchanged; parts without an order stay sorted."""
    parts = [new if part == old else part for part in key]
    if parts[:2] == ["pair", "next to"] or parts[0] == "between":
        parts[2:] = sorted(map(str, parts[2:]))
    return tuple(parts)


def _label(t: Thing, item: Item) -> str:
    """What a key calls the thing."""
    match item:
        case Sprite():
            return Pick(name=item.name, colour=item.colour).label()
        case Book():
            return item.colour
        case _:
            return f"{t.colour} {t.name}"


def _colour(r: Random, scene: Scene, world: World) -> Edited | None:
    """Another colour for one thing that can have any."""
    able = [t for t in scene.facts.things if _tintable(scene.items[t.items[0]])]
    if not able:
        return None
    old = r.choice(able)
    first = scene.items[old.items[0]]
    natural = OBJECTS[first.name].natural if isinstance(first, Sprite) else ""
    colour = _other(r, world.colours, old.colour, natural if old.plain else "")
    tint = "" if colour == natural else colour
    items: dict[int, Item] = {}
    for index in old.items:
        item = scene.items[index]
        assert isinstance(item, Sprite | Sign | Table | Crate | Book)
        items[index] = replace(item, colour=tint)
    plain = tint == "" if isinstance(first, Sprite) else old.plain
    new = replace(old, colour=colour, plain=plain)
    key = _renamed(scene.key, _label(old, first), _label(new, items[old.items[0]]))
    return _swapped(scene, old, new, items, key), {"thing": _called(old), "colour": colour}


def _tintable(item: Item) -> bool:
    match item:
        case Sprite():
            return OBJECTS[item.name].tint
        case Sign():
            return bool(item.colour)
        case Table() | Crate() | Book():
            return True
        case _:
            return False


def _stage(r: Random, scene: Scene, world: World) -> Edited:
    """Another place around the same things."""
    name = _other(r, world.stages, scene.stage, scene.style)
    row = STAGES[name]
    moved = replace(scene, stage=name, facts=replace(scene.facts, stage=name))
    return moved, {"place": row.place, "stage": r.choice(row.phrases)}


def _style(r: Random, scene: Scene, world: World) -> Edited | None:
    """The same picture in another style."""
    options = [name for name in world.styles if name not in (scene.style, scene.stage)]
    if not options:
        return None
    name = r.choice(options)
    return replace(scene, style=name), {"style": r.choice([said for said in STYLES[name].phrases if " " in said])}


def _text(r: Random, scene: Scene, world: World) -> Edited | None:
    """Another word on the same sign."""
    old = next((t for t in scene.facts.things if t.text), None)
    if old is None:
        return None
    sign = scene.items[old.items[0]]
    assert isinstance(sign, Sign)
    lettered = _rewritten(r, sign, world) if world.fluent else _reworded(r, sign, world)
    if lettered is None:
        return None
    key = ("sign", lettered.text.lower())
    changed = _swapped(scene, old, replace(old, text=lettered.text), {old.items[0]: lettered}, key)
    return changed, {"old": old.text, "new": lettered.text, "thing": old.name}


def _reworded(r: Random, sign: Sign, world: World) -> Sign | None:
    """The sign with another word, in its font and no larger."""
    room = sign.width - 10
    drawn = (word(r, world) for _ in range(DRAWS))
    cased = (w.upper() if sign.text.isupper() else w for w in drawn)  # some fonts have capitals only
    fitting = (w for w in cased if room / lettering(w, sign.font).width > SMALLEST_EM)
    text = next((w for w in fitting if w != sign.text), None)
    if text is None:
        return None
    return replace(sign, text=text, em=min(sign.em, room / lettering(text, sign.font).width))


def _rewritten(r: Random, sign: Sign, world: World) -> Sign | None:
    """The sign with another text in one line or two, as large as it fits."""
    room, high = sign.width - (12 if sign.kind == "book cover" else 10), sign.height - 6
    for _ in range(DRAWS):
        text = worded(r, world)
        text = text.upper() if sign.font in CAPITALS else text
        breaks = broken(r, text)
        em = min(
            LARGEST_OF_TWO if breaks else LARGEST,
            room / across(text, sign.font, breaks),
            high / (2 * LEADING - 0.05 if breaks else 0.95),
        )
        if text != sign.text and em > SMALLEST:
            return replace(sign, text=text, breaks=breaks, em=em)
    return None


def _swap(r: Random, scene: Scene, world: World) -> Edited | None:
    """Another object in the place of one."""
    if scene.kind not in ("one", "side", "stack", "sign", "company"):
        return None
    able = [t for t in scene.facts.things if isinstance(scene.items[t.items[0]], Sprite)]
    if not able:
        return None
    old = r.choice(able)
    item = scene.items[old.items[0]]
    assert isinstance(item, Sprite)
    same = world.floating() if OBJECTS[old.name].floats else world.grounded()
    if any(t.name == "speech bubble" for t in scene.facts.things):
        same = tuple(name for name in same if OBJECTS[name].animal)
    options = [name for name in same if name not in {t.name for t in scene.facts.things}]
    if not options:
        return None
    pick = Pick(name=r.choice(options))
    across = (old.box[2] - old.box[0]) * 100
    put = place(r, pick, item.x, item.foot, item.size / OBJECTS[old.name].size, widest=max(across, 34.0))
    put = replace(put, flip=item.flip)
    new = thing(world, pick, (put,), old.items[0])
    key = _renamed(scene.key, _label(old, item), pick.label())
    return _swapped(scene, old, new, {old.items[0]: put}, key), {"thing": old.name, "other": article(pick.name)}


def _lone_person(scene: Scene) -> Person | None:
    people = [item for item in scene.items if isinstance(item, Person)]
    return people[0] if len(people) == 1 else None


def _changed(scene: Scene, world: World, new: Person) -> Scene:
    index = next(i for i, item in enumerate(scene.items) if isinstance(item, Person))
    old = next(t for t in scene.facts.things if index in t.items)
    match scene.kind:
        case "person":
            key: tuple[Hashable, ...] = ("person", new.who, new.hair, new.shirt, new.pose)
        case "company" | "holding":
            key = (scene.kind, new.who, new.hair, new.shirt, scene.key[-1])
        case _:
            key = scene.key
    return _swapped(scene, old, figure(new, world, index), {index: new}, key)


def _shirt(r: Random, scene: Scene, world: World) -> Edited | None:
    if (p := _lone_person(scene)) is None:
        return None
    colour = _other(r, world.colours, p.shirt)
    gaps = {"thing": p.who, "colour": colour, "top": "dress" if p.bottom == "dress" else "shirt"}
    return _changed(scene, world, replace(p, shirt=colour)), gaps


def _hair(r: Random, scene: Scene, world: World) -> Edited | None:
    if (p := _lone_person(scene)) is None:
        return None
    colour = _other(r, world.hair, p.hair)
    return _changed(scene, world, replace(p, hair=colour)), {"thing": p.who, "colour": colour}


def _pose(r: Random, scene: Scene, world: World) -> Edited | None:
    p = _lone_person(scene)
    if p is None or p.pose == "holding":
        return None
    beside = scene.kind != "person"
    pose = _other(r, [name for name in world.poses if not beside or name in NARROW], p.pose)
    gaps = {"thing": p.who, "pose": r.choice(POSES[pose].phrases)}
    return _changed(scene, world, replace(p, pose=pose)), gaps


def _wear(r: Random, scene: Scene, world: World) -> Edited | None:
    p = _lone_person(scene)
    if p is None or not world.outfits or (p.hat and p.glasses) or scene.kind == "saying":
        return None
    if p.hat or (not p.glasses and r.random() < 0.3):
        return _changed(scene, world, replace(p, glasses=True)), {"thing": p.who, "other": "glasses"}
    hat = r.choice(("cap", "beanie", "hat", "crown"))
    colour = "" if hat == "crown" else r.choice(world.colours)
    new = replace(p, hat=hat, hat_colour=colour)
    return _changed(scene, world, new), {"thing": p.who, "other": article(f"{colour} {hat}".strip())}


def _bare(r: Random, scene: Scene, world: World) -> Edited | None:
    p = _lone_person(scene)
    if p is None or not (p.hat or p.glasses):
        return None
    if p.hat:
        return _changed(scene, world, replace(p, hat="", hat_colour="")), {"other": p.hat}
    return _changed(scene, world, replace(p, glasses=False)), {"other": "glasses"}


EDITS: dict[str, Editor] = {
    "colour": _colour,
    "stage": _stage,
    "style": _style,
    "text": _text,
    "swap": _swap,
    "shirt": _shirt,
    "hair": _hair,
    "pose": _pose,
    "wear": _wear,
    "bare": _bare,
    "add": reshape.add,
    "remove": reshape.remove,
    "count": reshape.count,
    "move": reshape.move,
    "exchange": reshape.exchange,
    "size": reshape.size,
}
WEIGHTS = {  # of those that a scene allows
    "text": 3.0, "colour": 2.0, "pose": 2.0, "stage": 0.7, "style": 0.5, "add": 0.9, "remove": 1.2, "move": 0.6,
    "size": 0.6,
}  # fmt: skip


def edit(scene: Scene, seed: int, *, world: World = WORLDS["full"]) -> tuple[Scene, str]:
    """The scene with one attribute changed within `world`, and an instruction that says which.

    The new scene's key is that of its own combination: a trainer that must not see held-out combinations asks
    `held_out` about both.
    """
    return named(scene, seed, world=world)[1:]


def named(scene: Scene, seed: int, *, world: World = WORLDS["full"]) -> tuple[str, Scene, str]:
    """As `edit`, with the row of `EDITS` that made the change before the two."""
    r = Random(seed)
    weights = {**WEIGHTS, **world.edit_weights}
    for name in sorted(world.edits, key=lambda name: r.random() ** (1 / weights.get(name, 1.0)), reverse=True):
        found = EDITS[name](r, scene, world)
        if found is not None:
            changed, gaps = found
            options = [text.format(**gaps) for text in INSTRUCTIONS[name]]
            said = r.choice([text for text in options if not world.fluent or length(text) <= LONGEST])
            return name, replace(changed, caption=caption(changed, r)), AN.sub("an ", said)
    raise AssertionError("every scene has a stage that can be changed")
