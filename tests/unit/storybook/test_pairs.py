"""Pairs with references: the same looks elsewhere, two in one picture, depth and pose to follow."""

from __future__ import annotations

from collections import Counter

import pytest

from fluxone import storybook
from fluxone.storybook import WORLDS
from fluxone.storybook.captions import LONGEST, length
from fluxone.storybook.pairs import KINDS, WEIGHTS, Pair, pair
from fluxone.storybook.render import MODES
from fluxone.storybook.spec import Item, Person, Sprite

FULL = WORLDS["full"]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [pair(index, FULL) for index in range(1200)]


def looks(item: Item) -> tuple[object, ...]:
    """All that makes one recognisable."""
    if isinstance(item, Person):
        dress = (item.shirt, item.trousers, item.bottom, item.hat, item.hat_colour, item.glasses)
        return item.who, item.skin, item.hair, item.style, *dress
    assert isinstance(item, Sprite)
    return item.name, item.colour


def seen(scene: storybook.Scene) -> set[tuple[object, ...]]:
    return {looks(item) for item in scene.items if isinstance(item, Person | Sprite)}


def test_a_pair_is_its_index(pairs: list[Pair]) -> None:
    assert [pair(index, FULL) for index in range(30)] == pairs[:30]
    assert len({p.text for p in pairs}) > 900


def test_kinds_come_as_often_as_they_weigh(pairs: list[Pair]) -> None:
    assert set(WEIGHTS) == set(KINDS)
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    for kind, number in Counter(p.kind for p in pairs).items():
        assert number / len(pairs) == pytest.approx(WEIGHTS[kind], abs=0.05)


def test_what_is_edited_does_not_depend_on_being_edited() -> None:
    """A pair's number is also its scene's: were both drawn from it alike, edits would never show people."""
    world, count = WORLDS["mini"], 1500
    found = [pair(index, world) for index in range(count)]
    for kind in ("edit", "depth"):
        scenes = Counter(p.target.kind for p in found if p.kind == kind)
        for name, share in world.kinds.items():
            sigma = (share * (1 - share) / scenes.total()) ** 0.5
            assert scenes[name] / scenes.total() == pytest.approx(share, abs=5 * sigma), (kind, name)


def test_nothing_held_out_is_trained_on(pairs: list[Pair]) -> None:
    for p in pairs:
        assert not any(storybook.held_out(s) for s in (p.target, *(view.scene for view in p.references)))


def test_held_out_pairs_are() -> None:
    for index in range(150):
        p = pair(index, FULL, held_out=True)
        assert storybook.held_out(p.references[0].scene if p.kind == "edit" else p.target)


def test_texts_are_of_the_vocabulary_and_fit(pairs: list[Pair]) -> None:
    known = set(storybook.vocabulary(FULL))
    for p in pairs:
        assert set(storybook.words(p.text)) <= known, p.text
        assert length(p.text) <= LONGEST
        assert "{" not in p.text and "  " not in p.text


def test_modes_and_numbers_of_references(pairs: list[Pair]) -> None:
    for p in pairs:
        assert len(p.references) == (2 if p.kind == "both" else 1)
        mode = p.kind if p.kind in ("depth", "pose") else "rgb"
        assert {view.mode for view in p.references} == {mode} and mode in MODES
        if mode != "rgb":
            assert p.references[0].scene == p.target


def test_who_is_on_the_reference_is_on_the_target(pairs: list[Pair]) -> None:
    for p in pairs:
        if p.kind in ("character", "both"):
            for view in p.references:
                assert len(view.scene.items) == 1
                assert seen(view.scene) <= seen(p.target), p.text
        if p.kind == "character":
            assert p.target.items != p.references[0].scene.items


def test_what_is_asked_is_what_is_drawn(pairs: list[Pair]) -> None:
    for p in pairs:
        if p.kind == "character" and " the left of " in p.text:
            assert p.target.facts.relations[0].name == "left of"
            assert looks(p.references[0].scene.items[0]) == looks(p.target.items[p.target.facts.things[0].items[0]])
        if p.kind == "both" and "on the left and" in p.text:
            first = p.target.items[p.target.facts.things[0].items[0]]
            assert looks(first) == looks(p.references[0].scene.items[0])


def test_things_of_a_target_are_inside_the_picture(pairs: list[Pair]) -> None:
    for p in pairs:
        for thing in p.target.facts.things:
            left, top, right, bottom = thing.box
            assert left > 0 and top > 0 and right < 1 and bottom < 1, (p.kind, p.text)
