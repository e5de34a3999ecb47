"""Several people, things in hands, three in a row, two sizes; and what signs say."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest

from fluxone import storybook
from fluxone.storybook import WORLDS
from fluxone.storybook.rig import joints
from fluxone.storybook.spec import Person, Sprite
from fluxone.storybook.texts import LONGEST, broken, text
from fluxone.train.tokenizer import CHARACTERS

FULL = WORLDS["full"]


@pytest.fixture(scope="module")
def scenes() -> list[storybook.Scene]:
    return [storybook.scene(seed, FULL) for seed in range(2500)]


def test_what_is_held_is_in_the_hand(scenes: list[storybook.Scene]) -> None:
    for scene in (s for s in scenes if s.kind == "holding"):
        person, thing = scene.items
        assert isinstance(person, Person) and isinstance(thing, Sprite) and thing.held
        x, y = joints(person)["right wrist"]
        left, top, right, bottom = (100 * v for v in scene.facts.things[1].box)
        assert left < x < right and top < y < bottom + 2
        assert scene.facts.relations[0].name == "holding"


def test_depth_has_the_held_thing_before_its_holder(scenes: list[storybook.Scene]) -> None:
    pytest.importorskip("resvg_py")
    scene = next(s for s in scenes if s.kind == "holding")
    depth = storybook.render(scene, 96, mode="depth")[..., 0]
    labels = storybook.render(scene, 96, mode="labels")
    assert np.median(depth[labels == 2]) > np.median(depth[labels == 1])


def test_sizes_differ_truly(scenes: list[storybook.Scene]) -> None:
    for scene in (s for s in scenes if s.kind == "sizes"):
        side = {t.detail("size"): max(t.box[2] - t.box[0], t.box[3] - t.box[1]) for t in scene.facts.things}
        assert side["big"] > 2 * side["small"], scene.seed
    sized = [t for s in scenes if s.kind == "one" for t in s.facts.things if t.detail("size")]
    assert {t.detail("size") for t in sized} == {"small", "big"}
    for t in sized:
        longest = max(t.box[2] - t.box[0], t.box[3] - t.box[1])
        assert longest < 0.3 if t.detail("size") == "small" else longest > 0.5


def test_the_size_is_said_of_the_right_thing(scenes: list[storybook.Scene]) -> None:
    for scene in (s for s in scenes if s.kind == "sizes"):
        words = storybook.words(scene.caption)
        assert len(set(words) & {"small", "little", "tiny"}) == 1
        assert len(set(words) & {"big", "large", "huge", "giant"}) == 1


def test_styles_come_as_often_as_the_world_says(scenes: list[storybook.Scene]) -> None:
    styles = Counter(s.style for s in scenes)
    assert 1 - styles[""] / len(scenes) == pytest.approx(0.2, abs=0.03)
    assert styles["photo"] / (len(scenes) - styles[""]) == pytest.approx(0.4, abs=0.07)
    assert not any(s.style == "night" and s.stage == "night" for s in scenes)


def test_signs_say_all_sorts() -> None:
    r = Random(0)
    said = [text(r, FULL) for _ in range(4000)]
    assert all(0 < len(t) <= LONGEST and set(t) <= set(CHARACTERS) and t == t.strip() for t in said)
    assert all("  " not in t for t in said)
    words = Counter(len(t.split()) for t in said)
    assert set(words) == {1, 2, 3, 4}
    assert sum(n for k, n in words.items() if k > 1) / 4000 == pytest.approx(0.36, abs=0.05)
    assert 0.04 < sum(t.isdigit() for t in said) / 4000 < 0.1
    assert all(any(t.isupper() for t in said) and any(f(t) for t in said) for f in (str.islower, str.istitle))
    assert len(set(said)) > 3200


@pytest.mark.parametrize(("said", "line"), [("to the moon", "to the"), ("happy birthday", "happy"), ("word", "")])
def test_lines_break_at_the_space_that_makes_them_alike(said: str, line: str) -> None:
    found = {said[: broken(Random(seed), said)] for seed in range(20)}
    assert line in found and found <= {line, ""}


def test_a_book_has_its_title_on_the_cover(scenes: list[storybook.Scene]) -> None:
    covers = [s for s in scenes if any(t.name == "book cover" for t in s.facts.things)]
    assert covers
    assert all("book" in s.caption and f'"{s.facts.texts[0]}"' in s.caption for s in covers)
