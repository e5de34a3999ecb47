"""The table of suites: what each asks for, from which kinds of scene, and what must be right.

A suite that a model's world cannot show, that the judge knows no names for, or that the model takes no pictures for,
is named with its reason and not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from random import Random

from fluxone.errors import BadRequest
from fluxone.evaluate.labels import Tables
from fluxone.storybook import Scene, World, caption, nth, words
from fluxone.storybook.stages import STAGES as PLACES
from fluxone.variants import Kind

WORDINGS = 64  # captions drawn in search of one that says everything
SEARCHED = 40  # scenes looked at for each prompt that is wanted


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One row.

    Attributes:
        kinds: kinds of scene, in the weights that the world gives them.
        parts: of a verdict, all of which must be right.
        keep: which scenes of these kinds are asked for.
        takes: what the model must be given besides words.
    """

    title: str
    kinds: tuple[str, ...]
    parts: tuple[str, ...]
    keep: Callable[[Scene], bool] = lambda scene: True
    takes: tuple[Kind, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A scene that no training saw, and a caption that says all that is judged."""

    text: str
    scene: Scene


def missing(suite: Suite, world: World, takes: tuple[Kind, ...], tables: Tables) -> str:
    """Why the suite cannot be scored; empty if it can."""
    if not set(suite.kinds) & set(world.kinds):
        return f"its world has no scenes of kind {' or '.join(suite.kinds)}"
    if unknown := [name for name in world.objects if name not in tables.names]:
        return f"the judge does not know {len(unknown)} of its world's things: {', '.join(unknown[:3])} ..."
    if unknown := [name for name in (*world.colours, *world.stages) if name not in (*tables.colours, *tables.stages)]:
        return f"the judge does not know {', '.join(unknown)}"
    if absent := [kind.value for kind in suite.takes if kind not in takes]:
        return f"it takes no {', '.join(absent)}"
    return ""


def prompts(suite: Suite, world: World, count: int) -> list[Prompt]:
    """The first `count` held-out combinations of the suite, each on a stage once, always the same ones.

    Raises:
        BadRequest: the world holds fewer than one.
    """
    kinds = {kind: weight for kind, weight in world.kinds.items() if kind in suite.kinds}
    found: dict[Hashable, Prompt] = {}
    for scene in _scenes(replace(world, kinds=kinds, styles=()), SEARCHED * count):
        if (scene.key, scene.stage) in found or not suite.keep(scene):
            continue
        if text := _full(scene):
            found[scene.key, scene.stage] = Prompt(text=text, scene=scene)
        if len(found) == count:
            break
    if not found:
        raise BadRequest(f"this world holds out nothing for {suite.title}", hint="leave the suite out")
    return list(found.values())


def _scenes(world: World, count: int) -> Iterator[Scene]:
    return (nth(world, index, held_out=True) for index in range(count))


def _full(scene: Scene) -> str:
    """A caption that names every colour and the stage; empty if none of those drawn does."""
    place = PLACES[scene.stage]
    colours = {thing.colour for thing in scene.facts.things if thing.colour}
    for draw in range(WORDINGS):
        text = caption(scene, Random(draw))
        said = any(phrase in text for phrase in (*place.phrases, place.tag))
        if said and colours <= set(words(text)):
            return text
    return ""


def _told(scene: Scene) -> bool:
    """Whether the caption says where the two things are."""
    return any(relation.name != "next to" for relation in scene.facts.relations)


THINGS = ("things", "colours")
SUITES: dict[str, Suite] = {
    "objects": Suite(title="one object, its colour and stage", kinds=("one",), parts=(*THINGS, "stage")),
    "relations": Suite(
        title="two objects, left and right, above", kinds=("side", "stack"), parts=(*THINGS, "places"), keep=_told
    ),
    "counts": Suite(title="two to six of a thing", kinds=("count",), parts=THINGS),
    "reading": Suite(title="an animal with a book", kinds=("reading",), parts=(*THINGS, "places")),
    "inside": Suite(title="something in a box", kinds=("inside",), parts=(*THINGS, "places")),
    "hidden": Suite(title="only its tail or ears visible", kinds=("hiding",), parts=(*THINGS, "places")),
    "people": Suite(title="a child and the shirt", kinds=("person",), parts=THINGS),
    "typography": Suite(title="a word on a sign", kinds=("sign",), parts=("word",)),
}
