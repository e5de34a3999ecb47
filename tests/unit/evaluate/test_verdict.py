"""Right is right, and each wrong picture fails in its own part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fluxone import storybook
from fluxone.evaluate.judge import Seen
from fluxone.evaluate.suites import SUITES
from fluxone.evaluate.truth import Spot, spots
from fluxone.evaluate.verdict import alike, judged
from fluxone.storybook import WORLDS, Scene
from unit.evaluate.known import perfect

KINDS = sorted({kind for suite in SUITES.values() for kind in suite.search.kinds if kind in WORLDS["full"].kinds})


def scenes(kind: str, count: int = 25) -> list[Scene]:
    narrow = replace(WORLDS["full"], kinds={kind: 1.0})
    return [storybook.scene(seed, narrow) for seed in range(count)]


def coloured(scene: Scene) -> Scene:
    return next(s for s in [scene, *scenes(scene.kind)] if all(t.colour for t in s.facts.things))


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_right_in_every_part(kind: str) -> None:
    for scene in scenes(kind):
        parts = judged(scene, perfect(scene)).parts
        assert all(parts.values()), (scene.caption, parts)


def swapped(seen: Seen) -> Seen:
    a, b = seen.spots[:2]
    return replace(seen, spots=(replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y), *seen.spots[2:]))


EXTRA = Spot(name="cactus", colour="green", x=0.5, y=0.2)
WRONG: list[tuple[str, str, Callable[[Seen], Seen]]] = [
    ("one", "things", lambda seen: replace(seen, spots=(*seen.spots, EXTRA))),
    ("one", "things", lambda seen: replace(seen, spots=())),
    ("one", "things", lambda seen: replace(seen, spots=(replace(seen.spots[0], name=""),))),
    ("one", "stage", lambda seen: replace(seen, stage="city" if seen.stage != "city" else "beach")),
    ("one", "colours", lambda seen: replace(seen, spots=(replace(seen.spots[0], colour="none"),))),
    ("count", "things", lambda seen: replace(seen, spots=seen.spots[1:])),
    ("count", "things", lambda seen: replace(seen, spots=(*seen.spots, seen.spots[0]))),
    ("side", "places", swapped),
    ("stack", "places", swapped),
    ("inside", "places", swapped),
    ("hiding", "places", swapped),
    ("reading", "places", swapped),
    ("sign", "word", lambda seen: replace(seen, text=seen.text[1:])),
    ("sign", "word", lambda seen: replace(seen, text=f"{seen.text}s")),
]


@pytest.mark.parametrize(("kind", "part", "spoil"), WRONG, ids=[f"{w[0]}-{w[1]}-{i}" for i, w in enumerate(WRONG)])
def test_a_wrong_picture_fails_in_its_part(kind: str, part: str, spoil: Callable[[Seen], Seen]) -> None:
    for scene in scenes(kind, 12):
        if {r.name for r in scene.facts.relations} & {"next to"}:
            continue
        if part == "colours":
            scene = coloured(scene)
        parts = judged(scene, spoil(perfect(scene))).parts
        assert not parts[part], scene.caption


def test_two_colours_exchanged_are_wrong() -> None:
    both = [scene for scene in scenes("side", 60) if all(thing.colour for thing in scene.facts.things)]
    scene = next(scene for scene in both if len({thing.colour for thing in scene.facts.things}) == 2)
    a, b = spots(scene)
    mixed = Seen(spots=(replace(a, colour=b.colour), replace(b, colour=a.colour)), stage=scene.facts.stage)
    parts = judged(scene, mixed).parts
    assert parts["things"] and parts["places"] and not parts["colours"]


@pytest.mark.parametrize(
    ("word", "text", "value"),
    [("open", "open", 1.0), ("open", "oben", 0.75), ("open", "pen", 0.75), ("open", "", 0.0), ("no", "nothing", 0.0)],
)
def test_letters_that_are_right(word: str, text: str, value: float) -> None:
    assert alike(word, text) == value
