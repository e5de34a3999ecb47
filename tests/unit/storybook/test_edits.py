"""Edit pairs: one thing changes, the instruction names it, the rest of the picture stays."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fluxone import storybook
from fluxone.storybook import WORLDS
from fluxone.storybook.captions import LONGEST, length
from fluxone.storybook.edits import EDITS, named
from fluxone.storybook.spec import Person, Sign, Sprite
from fluxone.storybook.worlds import EVERY

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
        name, after, said = named(before, seed, world=world)
        if name in RESHAPING:
            continue
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
    done = Counter(named(storybook.scene(s, full), s)[0] for s in range(900))
    assert set(done) == set(EDITS) == set(EVERY)


def test_instructions_fit_the_tokens() -> None:
    full = WORLDS["full"]
    assert all(length(storybook.edit(storybook.scene(s, full), s)[1]) <= LONGEST for s in range(1500))


def _reshaped(name: str, count: int) -> list[tuple[storybook.Scene, storybook.Scene, str]]:
    """The first edits of that name, from scenes without a style."""
    full, found = WORLDS["full"], []
    for seed in range(6000):
        before = storybook.scene(seed, full)
        if before.style:
            continue
        done, after, said = named(before, seed, world=full)
        if done == name:
            found.append((before, after, said))
        if len(found) == count:
            break
    return found


def test_weights_say_which_of_the_edits_that_a_scene_allows() -> None:
    full = WORLDS["full"]
    plain, weighed = (
        Counter(named(storybook.scene(s, w), s, world=w)[0] for s in range(400))
        for w in (full, replace(full, edit_weights={"bare": 50.0, "text": 0.01}))
    )
    assert weighed["bare"] > 1.5 * plain["bare"] > 0 and weighed["text"] < 0.3 * plain["text"]


def test_what_is_added_stands_on_the_side_that_is_named() -> None:
    for before, after, said in _reshaped("add", 25):
        assert after.items[:-1] == before.items
        new = next(t for t in after.facts.things if len(after.items) - 1 in t.items)
        old = next(t for t in after.facts.things if t is not new)
        assert (new.box[2] <= old.box[0]) if "left" in said else (new.box[0] >= old.box[2]), said
        assert after.key[0] in ("pair", "company")


def test_removing_leaves_the_other_as_it_was() -> None:
    for before, after, said in _reshaped("remove", 25):
        assert len(after.items) == 1 and after.items[0] in before.items
        gone = {t.name for t in before.facts.things} - {t.name for t in after.facts.things}
        assert len(gone) == 1 and gone.pop() in said
        one, two = storybook.render(before, 64), storybook.render(after, 64)
        assert 0.4 < (one == two).all(-1).mean() < 1


def test_counts_moves_and_sizes_are_what_is_asked() -> None:
    for _, after, said in _reshaped("count", 12):
        assert f"{('two', 'three', 'four', 'five', 'six')[after.facts.things[0].count - 2]} " in said
    for _, after, said in _reshaped("move", 12):
        box = after.facts.things[0].box
        assert ((box[0] + box[2]) / 2 < 0.4) == ("left" in said)
        assert box[0] > 0 and box[2] < 1
    for before, after, said in _reshaped("size", 12):
        high = [s.facts.things[0].box[3] - s.facts.things[0].box[1] for s in (before, after)]
        smaller = any(w in said for w in ("small", "little", "tiny"))
        assert (high[1] < high[0] * 0.75) if smaller else (high[1] > high[0] * 1.2), said
    for before, after, _ in _reshaped("exchange", 12):
        assert [vars(i)["x"] for i in before.items] == [vars(i)["x"] for i in after.items][::-1]


def test_the_key_follows_the_edit(world: storybook.World) -> None:
    """An edited scene has the key of a drawn scene of the same combination."""
    for seed in range(800):
        before = storybook.scene(seed, world)
        name, after, said = named(before, seed, world=world)
        if name in RESHAPING:
            continue
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


RESHAPING = ("add", "remove", "count", "move", "exchange", "size")
ALLOWED = {
    Sprite.__name__: [{"name", "colour", "size"}, {"name", "size"}, {"name", "colour"}],
    Sign.__name__: [{"text", "em"}, {"text", "breaks"}, {"text", "em", "breaks"}],
    Person.__name__: [{"hat", "hat_colour"}],
}
