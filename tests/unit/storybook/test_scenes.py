"""Seeds, hold-out and layout of the storybook, without pictures."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from fluxone import storybook
from fluxone.errors import UnknownName
from fluxone.storybook import WORLDS, nth, pair
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.spec import Person, Sprite
from fluxone.storybook.texts import LONGEST
from fluxone.train.tokenizer import CHARACTERS

SOME = 600


@pytest.fixture(scope="module", params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> storybook.World:
    return WORLDS[request.param]


@pytest.fixture(scope="module")
def scenes(world: storybook.World) -> list[storybook.Scene]:
    return [storybook.scene(seed, world) for seed in range(SOME)]


def test_a_seed_is_a_scene(world: storybook.World, scenes: list[storybook.Scene]) -> None:
    assert [storybook.scene(seed, world) for seed in range(40)] == scenes[:40]
    assert len({s.caption for s in scenes}) > SOME * 0.8
    assert {s.kind for s in scenes} == set(world.kinds)


def test_the_shipped_world_stays_as_it_is() -> None:
    """The shipped model learnt this world: a changed table or draw moves its seeds, captions and hold-out.

    If this fails on purpose, the model and what is measured of it need to be made again.
    """
    captions = "\n".join(storybook.scene(seed, WORLDS["mini"]).caption for seed in range(300))
    assert hashlib.sha256(captions.encode()).hexdigest()[:16] == "dfce20eb13f41624"


def test_the_full_world_stays_as_it_is() -> None:
    """The 256 px family learns this world: what moves its scenes or pairs makes its figures another world's."""
    full = WORLDS["full"]
    scenes, pairs = [nth(full, i) for i in range(300)], [pair(i, full) for i in range(300)]
    said: list[tuple[object, ...]] = [(s.caption, s.key, s.stage, s.style) for s in scenes]
    said += [(p.text, p.target.key, p.kind) for p in pairs]
    assert hashlib.sha256(repr(said).encode()).hexdigest()[:16] == "a05f109efa32a1d0"


def test_worlds_are_the_sizes_they_promise() -> None:
    first, full = WORLDS["first"], WORLDS["full"]
    assert len(first.objects) == 33 and len(first.colours) == 8 and len(first.stages) == 8
    assert len(full.objects) >= 100 and len(full.colours) == 12 and len(full.stages) >= 10
    assert sum(first.kinds.values()) == pytest.approx(1)


def test_only_the_world_occurs(world: storybook.World, scenes: list[storybook.Scene]) -> None:
    for scene in scenes:
        assert scene.stage in world.stages
        for thing in scene.facts.things:
            if thing.name in OBJECTS:
                assert thing.name in world.objects
                assert thing.colour in ("", *world.colours)
                assert OBJECTS[thing.name].tint or thing.plain
        if not world.fluent:
            assert all(3 <= len(t) <= world.max_letters or t.lower() in world.words for t in scene.facts.texts)
        assert all(set(text) <= set(CHARACTERS) and len(text) <= LONGEST for text in scene.facts.texts)


def test_looks_are_held_out_whatever_the_scene() -> None:
    mini = WORLDS["mini"]
    bare = next(s for n in range(400) if (s := nth(mini, n)).kind == "side")  # a combination that is trained on

    def apart(scene: storybook.Scene) -> list[bool]:
        people = [item for item in scene.items if isinstance(item, Person)]
        return [storybook.held_out(replace(bare, items=(one,))) for one in people]

    drawn = [storybook.scene(seed, mini) for seed in range(3000)]
    assert 0.02 < np.mean([one for scene in drawn for one in apart(scene)]) < 0.09
    assert not any(any(apart(nth(mini, n))) for n in range(400))
    pairs = [pair(n, mini) for n in range(400)]
    assert not any(any(apart(scene)) for p in pairs for scene in (p.target, *(view.scene for view in p.references)))


def test_about_a_twentieth_is_held_out(scenes: list[storybook.Scene]) -> None:
    keys = {s.key: storybook.held_out(s) for s in scenes}
    assert 0.02 < sum(keys.values()) / len(keys) < 0.09


def test_streams_share_no_combination() -> None:
    first = WORLDS["first"]
    kept = {s.key for s in islice(storybook.stream(first, seed=1), 800)}
    out = {s.key for s in islice(storybook.stream(first, seed=1, held_out=True), 100)}
    assert not kept & out
    assert len(out) > 60


def test_a_pair_has_one_key_however_it_is_said() -> None:
    """Left of and right of are one relation; the place is not part of the combination."""
    pairs = [s for s in islice(storybook.stream(WORLDS["first"], seed=2), 900) if s.kind == "side"]
    assert {s.key[1] for s in pairs} == {"left of", "next to"}
    for scene in pairs:
        assert not set(scene.key) & set(WORLDS["first"].stages)
        if scene.key[1] == "next to":
            assert list(scene.key[2:]) == sorted(map(str, scene.key[2:]))


def test_left_is_left_and_above_is_above(scenes: list[storybook.Scene]) -> None:
    seen = set()
    for scene in scenes:
        for relation in scene.facts.relations:
            a, b = scene.facts.things[relation.subject].box, scene.facts.things[relation.other].box
            if relation.name == "left of":
                assert a[2] < b[0] + 0.02
            if relation.name == "above":
                assert a[3] < b[1] + 0.12 and (a[1] + a[3]) / 2 < (b[1] + b[3]) / 2 - 0.2
            if relation.name in ("between", "in a row"):
                assert relation.third is not None
                three = [scene.facts.things[i].box for i in (relation.other, relation.subject, relation.third)]
                three = three if relation.name == "between" else [three[1], three[0], three[2]]
                assert three[0][2] < three[1][0] + 0.03 and three[1][2] < three[2][0] + 0.03, scene.seed
            seen.add(relation.name)
    assert {"left of", "next to", "above", "under"} <= seen


def test_nothing_is_cut_off(scenes: list[storybook.Scene]) -> None:
    for scene in scenes:
        for thing in scene.facts.things:
            left, top, right, bottom = thing.box
            assert left > 0 and top > 0 and right < 1 and bottom < 1, (scene.seed, thing)


def test_an_unknown_kind_teaches() -> None:
    odd = storybook.World(objects=("cat",), colours=("red",), stages=("snow",), kinds={"on": 1.0})
    with pytest.raises(UnknownName, match="one"):
        storybook.scene(0, odd)


def test_an_unmirrored_world_differs_in_nothing_but_the_way_things_look() -> None:
    world = storybook.WORLDS["first"]
    one_way = replace(world, mirrored=False)
    turned = 0
    for seed in range(60):
        free, fixed = storybook.scene(seed, world), storybook.scene(seed, one_way)
        sprites = [item for item in fixed.items if isinstance(item, Sprite)]
        assert not any(item.flip for item in sprites)
        assert (free.caption, free.facts, free.key) == (fixed.caption, fixed.facts, fixed.key)
        turned += free.items != fixed.items
    assert turned > 15
