"""The table of suites: what each asks for, from which kinds of scene, what the model is given, what must be right.

A suite that a model's world cannot show, that the judge knows no names for, or that the model takes no pictures for,
is named with its reason and not scored.
"""

from __future__ import annotations

from dataclasses import dataclass

from fluxone.evaluate.characters import characters
from fluxone.evaluate.given import EDGES
from fluxone.evaluate.labels import Tables
from fluxone.evaluate.prompts import Finder, along, both, captions, edits, holes, posed, wordless
from fluxone.evaluate.search import Search
from fluxone.storybook import Scene, World
from fluxone.storybook.compose import PEOPLED
from fluxone.variants import Kind, Variant


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One row.

    Attributes:
        search: which scenes.
        parts: of a verdict, rows of `follow.FOLLOWED`, or `change`, all of which must be right.
        also: the same, told and not asked for.
        find: makes prompts of them.
        takes: what the model is given besides words; None is words alone.
        map: what the control picture shows.
        world: what a world must have besides the kinds of scene: a field that is not empty.
    """

    title: str
    search: Search
    parts: tuple[str, ...]
    find: Finder = captions
    takes: Kind | None = None
    map: str = ""
    also: tuple[str, ...] = ()
    world: str = ""


def missing(suite: Suite, world: World, variant: Variant, tables: Tables) -> str:
    """Why the suite cannot be scored; empty if it can."""
    if suite.takes is not None and suite.takes not in variant.takes:
        return f"it takes no {suite.takes.value}"
    if suite.map and variant.maps and suite.map not in variant.maps:
        return f"its control pictures show {' or '.join(variant.maps)}"
    if variant.wide is not None and suite.takes is not variant.wide:
        return f"it cannot draw without a {variant.wide.value}"
    if not set(suite.search.kinds) & set(world.kinds):
        return f"its world has no scenes of kind {' or '.join(suite.search.kinds)}"
    if suite.world and not getattr(world, suite.world):
        return f"its world has no {suite.world}"
    if unknown := [name for name in (*world.objects, *world.signs) if name not in tables.names]:
        return f"the judge does not know {len(unknown)} of its world's things: {', '.join(unknown[:3])} ..."
    if unknown := [name for name in (*world.colours, *world.stages) if name not in (*tables.colours, *tables.stages)]:
        return f"the judge does not know {', '.join(unknown)}"
    people = {"person", "looks"} & {*suite.parts, *suite.also} or set(suite.search.kinds) <= set(PEOPLED)
    if people and not tables.details:
        return "the judge does not know how people look"
    return ""


def _told(scene: Scene) -> bool:
    """Whether the caption says where the two things are."""
    return any(relation.name != "next to" for relation in scene.facts.relations)


def _text(scene: Scene) -> str:
    return scene.facts.texts[0] if scene.facts.texts else ""


def _word(scene: Scene) -> bool:
    return _text(scene).isalpha() and len(_text(scene)) <= 8


def _phrase(scene: Scene) -> bool:
    return " " in _text(scene)


def _number(scene: Scene) -> bool:
    return any(letter.isdigit() for letter in _text(scene))


def _lasting(scene: Scene) -> bool:
    """Whether it is drawn as it was when the mini and the first judge learnt: a fox has got ears of its own since."""
    return not any(thing.name == "fox" and thing.detail("visible") == "ears" for thing in scene.facts.things)


def _clear(scene: Scene) -> bool:
    """Whether one can tell who it is: a curly woman in trousers is drawn as a curly man."""
    rows = [dict(thing.details) for thing in scene.facts.things]
    return not any(
        thing.name == "woman" and row.get("style") == "curly" and row.get("bottom") == "trousers"
        for thing, row in zip(scene.facts.things, rows, strict=True)
    )


def _beside(scene: Scene) -> bool:
    return _told(scene) and _clear(scene)


def _sized(scene: Scene) -> bool:
    return any(thing.detail("size") for thing in scene.facts.things)


THINGS = ("things", "colours")
PLACED = (*THINGS, "places")
ALL = (*PLACED, "stage", "style", "sizes", "person", "looks", "word")
MANY = ("one", "side", "stack", "count", "person", "company", "inside", "table", "front")
SHAPES = ("one", "side", "stack", "person", "company", "inside", "table")
SUITES: dict[str, Suite] = {
    "objects": Suite(
        title="one object, its colour and stage", search=Search(kinds=("one",)), parts=(*THINGS, "stage")
    ),
    "relations": Suite(
        title="two objects, left and right, above",
        search=Search(kinds=("side", "stack"), keep=_told),
        parts=PLACED,
    ),
    "depths": Suite(
        title="before, behind, on, under", search=Search(kinds=("front", "table", "tree"), keep=_told), parts=PLACED
    ),
    "rows": Suite(title="three things in a row", search=Search(kinds=("between",)), parts=PLACED),
    "counts": Suite(
        title="one to six of a thing",
        search=Search(kinds=("count", "one"), weights={"count": 5.0, "one": 1.0}),
        parts=THINGS,
    ),
    "sizes": Suite(
        title="small and big",
        search=Search(kinds=("sizes", "one"), keep=_sized, weights={"sizes": 1.0, "one": 1.0}, sized=1.0),
        parts=(*THINGS, "sizes"),
        world="sized",
    ),
    "reading": Suite(title="an animal with a book", search=Search(kinds=("reading",)), parts=PLACED),
    "inside": Suite(title="something in a box", search=Search(kinds=("inside",)), parts=PLACED),
    "hidden": Suite(
        title="only its tail or ears visible", search=Search(kinds=("hiding",), keep=_lasting), parts=PLACED
    ),
    "people": Suite(
        title="someone, all that is said",
        search=Search(kinds=("person",), keep=_clear),
        parts=(*THINGS, "person"),
    ),
    "company": Suite(
        title="people beside people and things",
        search=Search(kinds=("two", "three", "company"), keep=_beside),
        parts=PLACED,
    ),
    "holding": Suite(
        title="someone with a thing in the hand", search=Search(kinds=("holding",), keep=_clear), parts=PLACED
    ),
    "styles": Suite(
        title="a thing in a style",
        search=Search(kinds=("one", "side"), keep=lambda scene: scene.style != "", styled=1.0),
        parts=(*THINGS, "style"),
        world="styles",
    ),
    "typography": Suite(
        title="a word on a sign", search=Search(kinds=("sign", "saying"), keep=_word), parts=("word",)
    ),
    "phrases": Suite(
        title="two to four words on a sign",
        search=Search(kinds=("sign", "saying"), keep=_phrase),
        parts=("word",),
        world="phrases",
    ),
    "numbers": Suite(
        title="a number on a sign", search=Search(kinds=("sign", "saying"), keep=_number), parts=("word",),
        world="numbers",
    ),
    "edits": Suite(
        title="the asked change, all else kept",
        search=Search(kinds=MANY, keep=_clear),
        parts=("change", "kept"),
        also=(*ALL, "where"),
        find=edits,
        takes=Kind.REFERENCE,
    ),
    "character": Suite(
        title="the same one in five scenes",
        search=Search(kinds=("person",), keep=_clear),
        parts=("things", "colours", "looks"),
        find=characters,
        takes=Kind.REFERENCE,
    ),
    "together": Suite(
        title="the ones of two pictures in one",
        search=Search(kinds=("two", "company", "side"), keep=_clear),
        parts=("things", "colours", "looks"),
        find=both,
        takes=Kind.REFERENCE,
    ),
    "given-depth": Suite(
        title="a depth map as the reference",
        search=Search(kinds=SHAPES, keep=_clear),
        parts=(*THINGS, "outlines"),
        find=along("references", "depth"),
        takes=Kind.REFERENCE,
    ),
    "given-pose": Suite(
        title="a skeleton as the reference",
        search=Search(kinds=("person", "two", "company"), keep=_clear),
        parts=(*THINGS, "stance"),
        find=posed("references"),
        takes=Kind.REFERENCE,
    ),
    "fill": Suite(
        title="a hole in a picture filled", search=Search(kinds=MANY, keep=_clear), parts=PLACED, find=holes,
        also=("kept",), takes=Kind.FILL,
    ),
    "depth": Suite(
        title="a depth map followed",
        search=Search(kinds=SHAPES, keep=_clear),
        parts=(*THINGS, "outlines"),
        find=along("control", "depth"),
        takes=Kind.CONTROL,
        map="depth",
    ),
    "canny": Suite(
        title="edges followed",
        search=Search(kinds=SHAPES, keep=_clear),
        parts=(*THINGS, "edges"),
        find=along("control", EDGES),
        takes=Kind.CONTROL,
        map="canny",
    ),
    "pose": Suite(
        title="a skeleton followed",
        search=Search(kinds=("person", "two", "company"), keep=_clear),
        parts=(*THINGS, "stance"),
        find=along("control", "pose"),
        takes=Kind.CONTROL,
        map="pose",
    ),
    "variations": Suite(
        title="the same again, from a picture without words",
        search=Search(kinds=("one", "side", "person"), keep=_clear),
        parts=(*THINGS, "stage"),
        find=wordless,
        takes=Kind.PROMPT,
    ),
}  # fmt: skip
