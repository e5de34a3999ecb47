"""Pairs for learning from references: one or two pictures, what to make of them in words, and the scene to be drawn.

    index ──▶ Pair(references=(View(scene, mode), ...), text, target)

The target shows the looks that the references show; all that the text does not ask for is kept or drawn anew by
chance. A pair is its index: any process makes the n-th without the ones before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from random import Random

from fluxone.errors import BadRequest
from fluxone.storybook.captions import LONGEST, caption, length
from fluxone.storybook.cast import Draft, Pick, choose, figure, place, someone, thing
from fluxone.storybook.edits import edit
from fluxone.storybook.gather import HANDY, NARROW, held
from fluxone.storybook.generate import HORIZONS, TRIES, VALIDATION, held_out, nth
from fluxone.storybook.idioms import PAIRS, STAGES_MORE
from fluxone.storybook.nouns import AN, article, noun
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.render import reach
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Crate, Facts, Item, Person, Relation, Scene, Sprite, Thing
from fluxone.storybook.stages import STAGES
from fluxone.storybook.worlds import World

PLAIN_REFERENCE = 0.5  # share of the references that show their one on a plain background


@dataclass(frozen=True, kw_only=True)
class View:
    """A picture of a scene: `mode` is a row of `render.MODES`."""

    scene: Scene
    mode: str = "rgb"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is given, what is asked, and what is to come out of it."""

    kind: str  # row of KINDS
    references: tuple[View, ...]  # one or two
    target: Scene
    text: str


Maker = Callable[[Random, int, World, bool], Pair]
Star = Person | Sprite  # who is kept over pictures


def pair(index: int, world: World, *, held_out: bool = False, kinds: Mapping[str, float] | None = None) -> Pair:
    """The pair number `index`: of combinations that are trained on, or with a target that is not.

    `kinds` are weights of rows of `KINDS`; `WEIGHTS` if not given.

    In training neither the target's combination nor that of a reference is held out.

    Raises:
        BadRequest: the world is so small that one side is empty.
    """
    kinds = kinds or WEIGHTS
    base = index * TRIES + (VALIDATION if held_out else 0)
    for seed in range(base, base + TRIES):
        r = Random(f"pair {seed}")  # from the bare number, scene `seed`'s kind and this one would be one draw
        kind = r.choices(tuple(kinds), weights=tuple(kinds.values()))[0]
        made = KINDS[kind](r, index, world, held_out)
        if _fits(made, held_out) and length(made.text) <= LONGEST:
            return made
    raise BadRequest(f"pair {index} cannot be made in this world", hint="give it more objects, colours or people")


def _fits(made: Pair, out: bool) -> bool:
    if made.kind == "edit" and out:
        return True  # the scene that is edited is one that was held out
    if out:
        return held_out(made.target)
    return not held_out(made.target) and not any(held_out(view.scene) for view in made.references)


def _edit(r: Random, index: int, world: World, out: bool) -> Pair:
    before = nth(world, index, held_out=out)
    after, text = edit(before, r.getrandbits(40), world=world)
    return Pair(kind="edit", references=(View(scene=before),), target=after, text=text)


def _staged(r: Random, world: World, kind: str, draft: Draft, *, plain: bool = False) -> Scene:
    """The draft in some place, without a style."""
    stage = "plain" if plain and "plain" in world.stages else r.choice(world.stages)
    facts = Facts(things=draft.things, relations=draft.relations, texts=draft.texts, stage=stage)
    scene = Scene(
        seed=r.getrandbits(48),
        kind=kind,
        items=draft.items,
        stage=stage,
        stage_seed=r.randrange(1 << 30),
        horizon=r.choice(HORIZONS),
        facts=facts,
        key=draft.key,
        fluent=world.fluent,
    )
    return replace(scene, caption=caption(scene, r))


def _star(r: Random, world: World) -> Star:
    """Someone or something with looks of its own."""
    if world.people and r.random() < 0.65:
        return someone(r, world, 50, 68)
    pick = choose(r, world, world.grounded())
    return Sprite(name=pick.name, colour=pick.colour, x=50, foot=84, size=46)


def _pick(star: Sprite) -> Pick:
    return Pick(name=star.name, colour=star.colour)


def _looks(star: Star) -> tuple[Hashable, ...]:
    return (star.who, star.hair, star.shirt) if isinstance(star, Person) else (_pick(star).label(),)


def _alone(r: Random, world: World, star: Star) -> tuple[str, Draft]:
    """The star by itself."""
    if isinstance(star, Person):
        pose = star.pose if star.pose in world.poses else r.choice(world.poses)
        who = replace(star, x=50 + r.uniform(-6, 6), foot=91 + r.uniform(-1, 1), pose=pose, height=70)
        return "person", Draft(items=(who,), things=(figure(who, world, 0),), key=("person", *_looks(who), who.pose))
    item = place(r, _pick(star), 50 + r.uniform(-6, 6), 84 + r.uniform(-2, 2), 46)
    fact = thing(world, _pick(star), (item,), 0)
    return "one", Draft(items=(item,), things=(fact,), key=("one", _pick(star).label()))


def _reference(r: Random, world: World, star: Star) -> Scene:
    kind, draft = _alone(r, world, star)
    return _staged(r, world, kind, draft, plain=r.random() < PLAIN_REFERENCE)


def _beside(r: Random, world: World, star: Star, other: Pick | Person, left: bool) -> tuple[str, Draft]:
    """The star and someone or something else, side by side."""
    items: list[Item] = []
    facts: list[Thing] = []
    for one, at_left in ((star, left), (other, not left)):
        x = (26 if at_left else 74) + r.uniform(-1.5, 1.5)
        if isinstance(one, Person):
            pose = one.pose if one.pose in NARROW else "standing"
            who = replace(one, x=x, foot=91 + r.uniform(-1, 1), height=58, pose=pose)
            facts.append(figure(who, world, len(items)))
            items.append(who)
            continue
        pick = _pick(one) if isinstance(one, Sprite) else one
        foot = (72 if OBJECTS[pick.name].floats else 90) + r.uniform(-1, 1)
        item = place(r, pick, x, foot, 36, widest=38)
        facts.append(thing(world, pick, (item,), len(items)))
        items.append(item)
    order = facts if left else facts[::-1]
    people = [i for i in items if isinstance(i, Person)]
    labels = [Pick(name=i.name, colour=i.colour).label() for i in items if isinstance(i, Sprite)]
    key: tuple[Hashable, ...]
    if len(people) == 2:
        kind, key = "two", ("two", *_looks(people[0]), *_looks(people[1]))
    elif people:
        kind, key = "company", ("company", *_looks(people[0]), *labels)
    else:
        kind, key = "side", ("pair", "left of", *(labels if left else labels[::-1]))
    relation = Relation(name="left of", subject=0, other=1)
    return kind, Draft(items=tuple(items), things=tuple(order), relations=(relation,), key=key)


def _holds(r: Random, world: World, star: Person) -> tuple[str, Draft, str]:
    """The person with something in the hand."""
    pick = choose(r, world, tuple(name for name in HANDY if name in world.objects))
    side = -1 if star.flip else 1
    who = replace(star, pose="holding", height=62, x=50 - side * 6 + r.uniform(-3, 3), foot=91 + r.uniform(-1, 1))
    item = held(r, who, pick.name, pick.colour)
    facts = (figure(who, world, 0), thing(world, pick, (item,), 1))
    relation = Relation(name="holding", subject=0, other=1)
    key = ("holding", *_looks(who), pick.label())
    return "holding", Draft(items=(who, item), things=facts, relations=(relation,), key=key), article(noun(facts[1], r))


def _boxed(r: Random, world: World, star: Sprite) -> tuple[str, Draft, str]:
    """The star looking out of a box."""
    colour, rim = r.choice(world.colours), 58.0
    back = Crate(colour=colour, x=50, foot=90, width=54, height=32, part="back")
    item = place(r, _pick(star), 50 + r.uniform(-5, 5), rim + 11, 40, widest=42, shadow=False)
    fact = thing(world, _pick(star), (item,), 1)
    left, top, right, _ = fact.box
    hidden = replace(fact, box=(left, top, right, rim / 100))
    front = replace(back, part="front")
    box = Thing(name="box", colour=colour, box=reach(back, front), items=(0, 2))
    relation = Relation(name="inside", subject=0, other=1)
    key = ("pair", "inside", f"{fact.colour} {fact.name}".strip(), f"{colour} box")
    draft = Draft(items=(back, item, front), things=(hidden, box), relations=(relation,), key=key)
    return "inside", draft, article(f"{colour} box")


def _where(r: Random, world: World, stage: str) -> str:
    more = STAGES_MORE[stage] if world.fluent else ()
    return r.choice((*STAGES[stage].phrases, *more))


def _called(r: Random, star: Star) -> str:
    """What a text calls who is on the reference: the bare word, most of the time, for the picture tells the rest."""
    if isinstance(star, Person):
        return star.who
    return star.name if r.random() < 0.7 else f"{star.colour} {star.name}".strip()


def _character(r: Random, index: int, world: World, out: bool) -> Pair:
    """The same one elsewhere, doing something else, or with something."""
    star = _star(r, world)
    reference = _reference(r, world, star)
    draw, moved = r.random(), star
    if isinstance(star, Person) and draw < 0.4:
        moved = replace(star, pose=r.choice([pose for pose in world.poses if pose != star.pose]), flip=r.random() < 0.5)
        kind, draft = _alone(r, world, moved)
        what = r.choice(POSES[moved.pose].phrases)
    elif isinstance(star, Person) and draw < 0.7:
        kind, draft, other = _holds(r, world, star)
        what = f"holding {other}"
    elif isinstance(star, Sprite) and draw < 0.3 and star.size * OBJECTS[star.name].size <= 49:
        kind, draft, other = _boxed(r, world, star)
        what = f"{r.choice(('in', 'inside'))} {other}"
    elif draw < 0.92:
        pick = choose(r, world, world.objects, but=(star.name,) if isinstance(star, Sprite) else ())
        left = r.random() < 0.5
        kind, draft = _beside(r, world, star, pick, left)
        fact = next(t for t in draft.things if t.name == pick.name)
        side = "to the left of" if left else "to the right of"
        what = f"{r.choice(('next to', 'beside', side, side))} {article(noun(fact, r))}"
    else:
        kind, draft = _alone(r, world, star)
        what = ""
    target = _staged(r, world, kind, draft)
    template, called = r.choice(PAIRS["character"]), _called(r, star)
    text = template.format(a=called, what=f"{what} {_where(r, world, target.stage)}".strip())
    return Pair(kind="character", references=(View(scene=reference),), target=target, text=text)


def _both(r: Random, index: int, world: World, out: bool) -> Pair:
    """The one of the first picture and the one of the second, in one picture."""
    first, second = _star(r, world), _star(r, world)
    while type(first) is type(second) and _called_alike(first, second):
        second = _star(r, world)
    references = tuple(View(scene=_reference(r, world, star)) for star in (first, second))
    sided = r.random() < 0.3
    left = sided or r.random() < 0.5
    kind, draft = _beside(r, world, first, second if isinstance(second, Person) else _pick(second), left)
    target = _staged(r, world, kind, draft)
    text = r.choice(PAIRS["left" if sided else "both"])
    text = text.format(a=_called(r, first), b=_called(r, second), stage=_where(r, world, target.stage))
    return Pair(kind="both", references=references, target=target, text=text)


def _called_alike(a: Star, b: Star) -> bool:
    return (a.who if isinstance(a, Person) else a.name) == (b.who if isinstance(b, Person) else b.name)


def _depth(r: Random, index: int, world: World, out: bool) -> Pair:
    """A depth map, and a caption of what it is the depth of."""
    target = nth(world, index, held_out=out)
    text = r.choice(PAIRS["depth"]).format(caption=caption(target, r))
    return Pair(kind="depth", references=(View(scene=target, mode="depth"),), target=target, text=text)


def _pose(r: Random, index: int, world: World, out: bool) -> Pair:
    """The sticks of a pose, and who is to take it."""
    star = someone(r, world, 50, 70)
    draw = r.random()
    if draw < 0.65:
        kind, draft = _alone(r, world, star)
    elif draw < 0.85:
        kind, draft = _beside(r, world, star, choose(r, world, world.objects), r.random() < 0.5)
    else:
        kind, draft = _beside(r, world, star, someone(r, world, 50, 58), True)
    target = _staged(r, world, kind, draft)
    if kind == "person" and r.random() < 0.6:
        dress = star.bottom == "dress"
        top = f"{star.shirt} {'dress' if dress else 'shirt'}"
        looks = r.choice((f"{star.who} in a {top}", f"{star.who} with {star.hair} hair and a {top}", star.who))
        text = r.choice(PAIRS["posed"]).format(looks=looks, stage=_where(r, world, target.stage))
    else:
        text = r.choice(PAIRS["pose"]).format(caption=caption(target, r))
    return Pair(kind="pose", references=(View(scene=target, mode="pose"),), target=target, text=AN.sub("an ", text))


KINDS: dict[str, Maker] = {"edit": _edit, "character": _character, "both": _both, "depth": _depth, "pose": _pose}
WEIGHTS: dict[str, float] = {"edit": 0.55, "character": 0.2, "both": 0.1, "depth": 0.075, "pose": 0.075}
