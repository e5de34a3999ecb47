"""Prompts about one person in five places: in two poses, with a thing at either side, with a thing in the hand.

The person's looks are drawn from seeds that no training uses. They are so many that none of them was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from fluxone.evaluate.given import Given, Prompt
from fluxone.evaluate.search import Search
from fluxone.storybook import Facts, Relation, Scene, World
from fluxone.storybook.cast import Draft, choose, figure, place, someone, thing
from fluxone.storybook.gather import HANDY, NARROW, held
from fluxone.storybook.generate import HORIZONS, VALIDATION
from fluxone.storybook.idioms import PAIRS
from fluxone.storybook.nouns import AN, article
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Person
from fluxone.storybook.stages import STAGES

SCENES = 5  # of each character
Cast = tuple[str, Draft, str]  # the kind of scene, what is in it, and what a text says of that
Maker = Callable[[Random, World, Person], Cast]


def characters(search: Search, world: World, count: int) -> list[Prompt]:
    """Five prompts about each of `count` / 2 persons, with the person's picture as the reference."""
    found: list[Prompt] = []
    for group in range(-(-count // 2)):
        r = Random(VALIDATION + group)
        who = replace(someone(r, world, 50, 70), pose="standing")
        while not search.keep(first := _staged(r, world, "person", _alone(who, world), _plain(world))):
            who = replace(someone(r, world, 50, 70), pose="standing")
        stages = r.sample([name for name in world.stages if name != first.stage], SCENES)
        poses = r.sample([name for name in world.poses if name != "standing"], 2)
        makers: tuple[Maker, ...] = (*map(_posed, poses), _beside(left=True), _beside(left=False), _holds)
        for make, stage in zip(makers, stages, strict=True):
            kind, draft, what = make(r, world, who)
            scene = _staged(r, world, kind, draft, stage)
            said = f"{what} {r.choice(STAGES[stage].phrases)}"
            text = AN.sub("an ", r.choice(PAIRS["character"]).format(a=who.who, what=said))
            given = (Given(field="references", scene=first),)
            found.append(Prompt(text=text, scene=scene, given=given, sort=kind, group=group))
    return found


def _plain(world: World) -> str:
    return "plain" if "plain" in world.stages else world.stages[0]


def _staged(r: Random, world: World, kind: str, draft: Draft, stage: str) -> Scene:
    facts = Facts(things=draft.things, relations=draft.relations, texts=draft.texts, stage=stage)
    return Scene(
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


def _alone(who: Person, world: World) -> Draft:
    return Draft(items=(who,), things=(figure(who, world, 0),), key=("person", who.who, who.hair, who.shirt, who.pose))


def _posed(pose: str) -> Maker:
    def make(r: Random, world: World, who: Person) -> Cast:
        moved = replace(who, pose=pose, flip=r.random() < 0.5, x=50 + r.uniform(-5, 5))
        return "person", _alone(moved, world), r.choice(POSES[pose].phrases)

    return make


def _beside(*, left: bool) -> Maker:
    def make(r: Random, world: World, who: Person) -> Cast:
        x = 26.0 if left else 74.0
        stands = replace(who, x=x, height=58, pose=who.pose if who.pose in NARROW else "standing")
        pick = choose(r, world, world.objects)
        foot = (72 if OBJECTS[pick.name].floats else 90) + r.uniform(-1, 1)
        item = place(r, pick, 100 - x, foot, 36, widest=38)
        facts = (figure(stands, world, 0), thing(world, pick, (item,), 1))
        side = "to the left of" if left else "to the right of"
        relation = Relation(name="left of", subject=0, other=1)
        draft = Draft(
            items=(stands, item),
            things=facts if left else facts[::-1],
            relations=(relation,),
            key=("company", who.who, who.hair, who.shirt, pick.label()),
        )
        return "company", draft, f"{side} {article(pick.label())}"

    return make


def _holds(r: Random, world: World, who: Person) -> Cast:
    pick = choose(r, world, tuple(name for name in HANDY if name in world.objects))
    holder = replace(who, pose="holding", height=62, x=50 - (-1 if who.flip else 1) * 6)
    item = held(r, holder, pick.name, pick.colour)
    facts = (figure(holder, world, 0), thing(world, pick, (item,), 1))
    relation = Relation(name="holding", subject=0, other=1)
    key = ("holding", who.who, who.hair, who.shirt, pick.label())
    draft = Draft(items=(holder, item), things=facts, relations=(relation,), key=key)
    return "holding", draft, f"holding {article(pick.label())}"
