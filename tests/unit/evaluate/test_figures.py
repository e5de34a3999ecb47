"""People are found and read from rendered pictures, whatever they wear; nobody is found where nobody is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")

from fluxone import storybook
from fluxone.evaluate import judge, witness
from fluxone.evaluate.figures import find, without
from fluxone.evaluate.given import shown
from fluxone.evaluate.judge import Seen, Sees
from fluxone.evaluate.suites import SUITES, Suite, missing
from fluxone.evaluate.truth import looks
from fluxone.evaluate.verdict import judged
from fluxone.storybook import WORLDS, Scene
from fluxone.storybook.spec import Person
from fluxone.variants import VARIANTS

SIZE = 128
WORLD = WORLDS["mini"]
COUNTS = {"people": 8, "together": 6, "character": 4}
CHANGES: tuple[dict[str, object], ...] = (
    {"hair": "black"}, {"hair": "blond"}, {"shirt": "teal"}, {"skin": 4}, {"skin": 0}, {"pose": "cheering"},
    {"pose": "walking"}, {"style": "pigtails"}, {"bottom": "dress"}, {"bottom": "shorts"}, {"trousers": "green"},
    {"hat": "crown"}, {"hat": "cap", "hat_colour": "purple"}, {"hat": "hat", "hat_colour": "blue"}, {"glasses": True},
)  # fmt: skip


def asked(name: str) -> list[Scene]:
    return [p.scene for p in SUITES[name].find(SUITES[name].search, WORLD, COUNTS[name])]


def told(person: Person) -> dict[str, str]:
    return {**dict(looks(person)), "who": person.who, "shirt": person.shirt}


def right(suite: Suite, scene: Scene, seen: Seen) -> bool:
    parts = judged(scene, seen).parts
    return all(parts[part] for part in suite.parts)


@pytest.fixture(scope="module")
def look() -> Sees:
    return witness.Witness(judge.shipped())


@pytest.fixture(scope="module")
def seen(look: Sees) -> dict[str, list[tuple[Scene, Seen]]]:
    rows = {name: asked(name) for name in COUNTS}
    return {
        name: list(zip(row, look.look([shown(scene, "rgb", SIZE) for scene in row]), strict=True))
        for name, row in rows.items()
    }


def test_everyone_is_read_as_they_truly_look(seen: dict[str, list[tuple[Scene, Seen]]]) -> None:
    wrong, count = [], 0
    for scene, one in (pair for row in seen.values() for pair in row):
        people = [item for item in scene.items if isinstance(item, Person)]
        spots = [spot for spot in one.spots if spot.details]
        count += len(people)
        rows = [{**dict(spot.details), "who": spot.name, "shirt": spot.colour} for spot in spots]
        if sorted(map(repr, map(told, people))) != sorted(map(repr, rows)):
            wrong.append((scene.kind, [told(person) for person in people], rows))
    assert count > 20 and len(wrong) <= 0.02 * count, wrong


def test_suites_of_people_are_right_about_the_truth(seen: dict[str, list[tuple[Scene, Seen]]]) -> None:
    for name, row in seen.items():
        wrong = [judged(scene, one) for scene, one in row if not right(SUITES[name], scene, one)]
        assert len(wrong) <= 0.15 * len(row), (name, wrong)


def test_another_scenes_picture_is_wrong(seen: dict[str, list[tuple[Scene, Seen]]]) -> None:
    for name, row in seen.items():
        for (scene, _), (other, one) in zip(row, row[1:] + row[:1], strict=True):
            if other.key != scene.key and name != "character":
                assert not right(SUITES[name], scene, one)


def test_a_changed_attribute_is_read_and_fails(look: Sees) -> None:
    scenes = asked("people")
    made = []
    for n, change in enumerate(CHANGES):
        scene = scenes[n % len(scenes)]
        (old,) = scene.items
        assert isinstance(old, Person)
        made.append((scene, old, replace(old, **change)))  # type: ignore[arg-type]
    pictures = [storybook.render(replace(scene, items=(new,)), SIZE) for scene, _, new in made]
    passed = 0
    for (scene, old, new), one in zip(made, look.look(pictures), strict=True):
        parts = judged(scene, one).parts
        changed = dict(looks(new)) != dict(looks(old)) or new.shirt != old.shirt
        passed += changed and parts["person"] and parts["looks"] and parts["colours"]
    assert not passed


def test_nobody_is_found_where_nobody_is(look: Sees) -> None:
    scenes = [p.scene for name in ("objects", "reading") for p in SUITES[name].find(SUITES[name].search, WORLD, 3)]
    pictures = [shown(scene, "rgb", SIZE) for scene in scenes]
    assert look.look(pictures) == judge.shipped().look(pictures)
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    for picture in (np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE, 3), 200, np.uint8), noise):
        assert find(Image.fromarray(picture)) == []


def test_pictures_of_any_size_and_what_is_left_of_them() -> None:
    scene = asked("people")[0]
    (true,) = scene.items
    assert isinstance(true, Person)
    picture = shown(scene, "rgb", 256)
    (one,) = find(picture)
    assert told(one.person) == told(true)
    assert find(without(picture, [one])) == []


def test_suites_of_people_are_scored_with_the_reader_of_people(look: Sees) -> None:
    model = replace(VARIANTS["mini"], takes=())
    assert missing(SUITES["people"], WORLD, model, look.tables) == ""
    assert witness.shipped().tables.details
