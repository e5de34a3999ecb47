"""Finds the prompts of a suite: scenes that no training saw, always the same ones, with a text that says all that is
judged; and what the model is given besides.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from random import Random

from fluxone.errors import BadRequest
from fluxone.evaluate.given import HOLE, Given, Prompt
from fluxone.evaluate.search import Search
from fluxone.storybook import Scene, Thing, World, caption, nth, words
from fluxone.storybook.edits import named
from fluxone.storybook.generate import VALIDATION, held_out
from fluxone.storybook.idioms import PAIRS, STAGES_MORE
from fluxone.storybook.pairs import KINDS
from fluxone.storybook.rig import POSES
from fluxone.storybook.stages import STAGES

WORDINGS = 64  # captions drawn in search of one that says everything
SEARCHED = 60  # scenes looked at for each prompt that is wanted
FIRST, ENOUGH = 600, 4000  # scenes looked at for edits: until every kind has occurred, and at most


Finder = Callable[[Search, World, int], list[Prompt]]


def captions(search: Search, world: World, count: int) -> list[Prompt]:
    """The first `count` held-out combinations, each on a stage once, with a caption that says all of it.

    Raises:
        BadRequest: the world holds fewer than one.
    """
    found: dict[Hashable, Prompt] = {}
    for scene in _scenes(search, world, SEARCHED * count):
        if (scene.key, scene.stage, scene.style) in found or not search.keep(scene):
            continue
        if text := full(scene):
            found[scene.key, scene.stage, scene.style] = Prompt(text=text, scene=scene, group=len(found))
        if len(found) == count:
            break
    return _some(list(found.values()), search)


def _some(found: list[Prompt], search: Search) -> list[Prompt]:
    if not found:
        kinds = " or ".join(search.kinds)
        raise BadRequest(f"this world holds out no scene of kind {kinds}", hint="leave the suite out")
    return found


def _scenes(search: Search, world: World, count: int) -> Iterator[Scene]:
    weights = search.weights or world.kinds
    kinds = {kind: weights[kind] for kind in search.kinds if kind in world.kinds}
    narrow = replace(world, kinds=kinds, styled=search.styled, sized=search.sized)
    return (nth(narrow, index, held_out=True) for index in range(count))


def full(scene: Scene) -> str:
    """A caption that says all that is judged; empty if none of those drawn does."""
    things = scene.facts.things
    for draw in range(WORDINGS):
        text = caption(scene, Random(draw))
        if staged(text, scene.stage) and all(told(text, t, alone=len(things) < 2) for t in things):
            return text
    return ""


def staged(text: str, stage: str) -> bool:
    """Whether the text says the stage."""
    row = STAGES[stage]
    return any(phrase in text for phrase in (*row.phrases, row.tag, *STAGES_MORE.get(stage, ())))


def told(text: str, thing: Thing, *, alone: bool) -> bool:
    """Whether the text says the thing's colour; of a person the shirt, and if it is alone all that can be said."""
    if not thing.detail("pose"):
        return not thing.colour or thing.colour in words(text)
    top = "dress" if thing.detail("bottom") == "dress" else "shirt"
    said = [f"{thing.detail('shirt')} {top}"]
    if alone:
        said += _worn(thing)
    return all(part in text for part in said) and (not alone or (_haired(text, thing) and _posed(text, thing)))


def _worn(thing: Thing) -> list[str]:
    lower = thing.detail("bottom")
    below = [f"{thing.detail('trousers')} {lower}"] if lower and lower != "dress" else []
    hat = [f"{thing.detail('hat colour')} {thing.detail('hat')}".strip()] if thing.detail("hat") else []
    return [*below, *hat, *([thing.detail("glasses")] if thing.detail("glasses") else [])]


def _haired(text: str, thing: Thing) -> bool:
    hair, cut = thing.detail("hair"), thing.detail("style")
    return any(part in text for part in (f"{hair} hair", f"{hair} {cut} hair", f"{cut} {hair} hair"))


def _posed(text: str, thing: Thing) -> bool:
    return any(phrase in text for phrase in POSES[thing.detail("pose")].phrases)


def edits(search: Search, world: World, count: int) -> list[Prompt]:
    """Instructions of every kind of edit that occurs, about 2 * `count` in all, each about a held-out combination."""
    rows: dict[str, list[Prompt]] = {}
    plain = replace(world, styled=0.0)
    for index in range(ENOUGH):
        each = max(1, 2 * count // max(1, len(rows)))
        if index >= FIRST and all(len(row) >= each for row in rows.values()):
            break
        scene = nth(plain, index, held_out=True)
        name, changed, text = named(scene, index, world=world)
        if search.keep(scene):
            given = (Given(field="references", scene=scene),)
            rows.setdefault(name, []).append(Prompt(text=text, scene=changed, given=given, sort=name))
    found = [p for name in world.edits for p in rows.get(name, ())[:each]]
    return _some([replace(p, group=n) for n, p in enumerate(found)], search)


def both(search: Search, world: World, count: int) -> list[Prompt]:
    """Two pictures of one each, and a text that puts the two into one; the combination is held out."""
    found: list[Prompt] = []
    cast = world if "person" in world.kinds else replace(world, people=())
    for n in range(SEARCHED * count):
        made = KINDS["both"](Random(VALIDATION + n), n, cast, True)
        if held_out(made.target) and search.keep(made.target):
            given = tuple(Given(field="references", scene=view.scene, mode=view.mode) for view in made.references)
            found.append(Prompt(text=made.text, scene=made.target, given=given, group=len(found)))
        if len(found) == count:
            break
    return _some(found, search)


def along(field: str, mode: str) -> Finder:
    """Captions with a picture of their scene, seen so, in a field of the request."""

    def find(search: Search, world: World, count: int) -> list[Prompt]:
        given = captions(search, world, count)
        return [replace(p, given=(Given(field=field, scene=p.scene, mode=mode),)) for p in given]

    return find


def posed(field: str) -> Finder:
    """Captions that ask for the pose of a skeleton in a field of the request."""

    def find(search: Search, world: World, count: int) -> list[Prompt]:
        rows, texts = along(field, "pose")(search, world, count), PAIRS["pose"]
        return [replace(p, text=texts[n % len(texts)].format(caption=p.text)) for n, p in enumerate(rows)]

    return find


def holes(search: Search, world: World, count: int) -> list[Prompt]:
    """Captions with their picture, of which the first thing is hidden by a hole."""
    given = captions(search, world, count)
    return [
        replace(p, given=(Given(field="init", scene=p.scene), Given(field="mask", scene=p.scene, mode=HOLE)))
        for p in given
    ]


def wordless(search: Search, world: World, count: int) -> list[Prompt]:
    """Pictures without a word."""
    given = captions(search, world, count)
    return [replace(p, text="", given=(Given(field="image_prompts", scene=p.scene),)) for p in given]
