"""Edit pairs: one thing changes, the instruction names it, the rest of the picture stays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fluxone import storybook
from fluxone.storybook import WORLDS
from fluxone.storybook.edits import EDITS
from fluxone.storybook.spec import Person, Sign, Sprite

pytest.importorskip("resvg_py")


@pytest.fixture(scope="module", params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> storybook.World:
    return WORLDS[request.param]


def test_an_edit_is_its_seed(world: storybook.World) -> None:
    scene = storybook.scene(5, world)
    assert storybook.edit(scene, 3, world=world) == storybook.edit(scene, 3, world=world)


def test_instructions_use_the_vocabulary(world: storybook.World) -> None:
    known = set(storybook.vocabulary(world))
    for seed in range(1500):
        scene, said = storybook.edit(storybook.scene(seed, world), seed, world=world)
        assert set(storybook.words(said)) <= known, said
        assert set(storybook.words(scene.caption)) <= known, scene.caption
        assert "{" not in said and " a a" not in said


def test_one_thing_changes(world: storybook.World) -> None:
    """Either the stage, or the items of one thing in one field."""
    for seed in range(1200):
        before = storybook.scene(seed, world)
        after, said = storybook.edit(before, seed, world=world)
        assert len(after.items) == len(before.items)
        changed = [i for i, pair in enumerate(zip(before.items, after.items, strict=True)) if pair[0] != pair[1]]
        if after.stage != before.stage:
            assert not changed and after.facts.stage == after.stage
            continue
        if after.style != before.style:
            assert not changed
            continue
        owners = {k for k, t in enumerate(before.facts.things) for i in changed if i in t.items}
        assert len(owners) == 1, said
        for index in changed:
            old, new = vars(before.items[index]), vars(after.items[index])
            fields = {name for name in old if old[name] != new[name]}
            assert fields in ALLOWED.get(type(before.items[index]).__name__, []) or len(fields) == 1, (said, fields)


def test_the_rest_of_the_picture_stays() -> None:
    first = WORLDS["first"]
    for seed in range(60):
        before = storybook.scene(seed, first)
        after, said = storybook.edit(before, seed, world=first)
        one, two = storybook.render(before, 96), storybook.render(after, 96)
        differ = (one != two).any(-1)
        assert differ.any(), said
        if after.stage == before.stage:
            assert differ.mean() < 0.4, said
            assert not differ[:3].any() and not differ[-2:].any()
        else:
            labels = storybook.render(before, 96, mode="labels")
            assert np.array_equal(labels, storybook.render(after, 96, mode="labels"))


def test_every_kind_of_edit_happens() -> None:
    full = WORLDS["full"]
    said = Counter(storybook.edit(storybook.scene(s, full), s)[1].split()[0] for s in range(900))
    assert {"make", "change", "replace", "give", "add", "put", "move", "remove", "turn"} <= set(said)
    assert len(EDITS) == 10


def test_the_key_follows_the_edit(world: storybook.World) -> None:
    """An edited scene has the key of a drawn scene of the same combination."""
    for seed in range(800):
        before = storybook.scene(seed, world)
        after, said = storybook.edit(before, seed, world=world)
        if (after.stage, after.style) == (before.stage, before.style) and not any(
            isinstance(i, Person) for i in after.items
        ):
            assert after.key != before.key or "glasses" in said or _same_word(before, after), (said, before.key)
        assert len(after.key) == len(before.key)
        assert after.key[0] == before.key[0]


def _same_word(before: storybook.Scene, after: storybook.Scene) -> bool:
    """Signs are held out by their word alone: other changes keep the key."""
    return before.key[0] == "sign" and [t.text.lower() for t in before.facts.things] == [
        t.text.lower() for t in after.facts.things
    ]


ALLOWED = {
    Sprite.__name__: [{"name", "colour", "size"}, {"name", "size"}, {"name", "colour"}],
    Sign.__name__: [{"text", "em"}],
    Person.__name__: [{"hat", "hat_colour"}],
}
