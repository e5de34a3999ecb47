"""Seed -> scene; which combinations are held out; endless streams of scenes, and scenes by index.

Any process can draw the n-th training or validation scene without drawing the ones before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator
from dataclasses import replace
from random import Random

from fluxone.errors import BadRequest, pick
from fluxone.storybook.captions import caption
from fluxone.storybook.compose import KINDS
from fluxone.storybook.spec import Facts, Person, Scene, Sprite
from fluxone.storybook.worlds import World

HELD_OUT = 0.05  # share of the combinations that training never sees
TRIES = 1 << 10  # seeds kept for an index; a scene of the wrong side of the hold-out is drawn again
VALIDATION = 1 << 50  # seeds from here on are never trained on
HORIZONS = (59.0, 61.0, 63.0)


def scene(seed: int, world: World) -> Scene:
    """The scene of that seed: the same on every machine, for ever, as long as the tables stay."""
    r = Random(seed)
    kind = r.choices(tuple(world.kinds), weights=tuple(world.kinds.values()))[0]
    draft = pick(KINDS, kind, "kind of storybook scene")(r, world)
    stage = r.choice(world.stages)
    facts = Facts(things=draft.things, relations=draft.relations, texts=draft.texts, stage=stage)
    bare = Scene(
        seed=seed,
        kind=kind,
        items=draft.items,
        stage=stage,
        stage_seed=r.randrange(1 << 30),
        horizon=r.choice(HORIZONS),
        facts=facts,
        key=draft.key,
        fluent=world.fluent,
    )
    if world.styles and r.random() < world.styled:
        style = r.choice(world.styles)
        bare = replace(bare, style="" if style == stage else style)  # moonlight adds nothing to a night
    if not world.mirrored:
        items = (replace(item, flip=False) if isinstance(item, Sprite) else item for item in bare.items)
        bare = replace(bare, items=tuple(items))
    return replace(bare, caption=caption(bare, r))


def held_out(scene: Scene) -> bool:
    """Whether the scene's combination, or the looks of anybody in it, belong to the share that training must not see.

    A thing alone, in the colours that it always has, combines nothing: held out, it would never be learnt.
    """
    if any(_apart(("looks", *looks(item))) for item in scene.items if isinstance(item, Person)):
        return True
    if scene.key[0] == "one" and not scene.facts.things[0].colour:
        return False
    return _apart(scene.key)


def looks(person: Person) -> tuple[str, ...]:
    """What a person can be told by in any scene."""
    return person.who, person.hair, person.style, person.shirt, person.bottom, person.hat


def _apart(key: tuple[Hashable, ...]) -> bool:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64


def stream(world: World, *, seed: int, held_out: bool = False) -> Iterator[Scene]:
    """Endless scenes: those that may be trained on, or only the held-out ones."""
    r = Random(seed)
    while True:
        found = scene(r.getrandbits(48), world)
        if _is_held_out(found) is held_out:
            yield found


def nth(world: World, index: int, *, held_out: bool = False) -> Scene:
    """The scene number `index`: of combinations that are trained on, or only of those held out.

    Raises:
        BadRequest: the world is so small that one side is empty.
    """
    base = index * TRIES + (VALIDATION if held_out else 0)
    for seed in range(base, base + TRIES):
        found = scene(seed, world)
        if _is_held_out(found) == held_out:
            return found
    side = "held out" if held_out else "trained on"
    raise BadRequest(f"none of {TRIES} scenes of this world is {side}", hint="give it more objects, colours or words")


_is_held_out = held_out  # `stream` and `nth` have an argument of that name
