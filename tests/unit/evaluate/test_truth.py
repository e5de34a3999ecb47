"""What is said to be on a picture is on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluxone import storybook
from fluxone.evaluate.truth import COLOURS, NAMES, STAGES, spots
from fluxone.storybook import WORLDS, Scene


def scenes(world: str, kind: str, count: int = 40) -> list[Scene]:
    narrow = replace(WORLDS[world], kinds={kind: 1.0})
    return [storybook.scene(seed, narrow) for seed in range(count)]


@pytest.mark.parametrize("world", ["first", "mini"])
def test_the_judge_knows_the_worlds_that_it_is_for(world: str) -> None:
    row = WORLDS[world]
    assert set(row.objects) <= set(NAMES) and set(row.stages) <= set(STAGES) and set(row.colours) <= set(COLOURS)
    for kind in row.kinds:
        for scene in scenes(world, kind):
            for spot in spots(scene):
                assert spot.name in NAMES and spot.colour in COLOURS
                assert 0 < spot.x < 1 and 0 < spot.y < 1


def test_each_of_several_is_there() -> None:
    for scene in scenes("mini", "count"):
        (thing,) = scene.facts.things
        found = spots(scene)
        assert len(found) == thing.count
        assert len({(round(s.x, 2), round(s.y, 2)) for s in found}) == thing.count


def test_left_and_above_are_in_the_numbers() -> None:
    for scene in scenes("mini", "side"):
        a, b = spots(scene)
        assert a.x < b.x - 0.3
    for scene in scenes("mini", "stack"):
        a, b = spots(scene)
        assert a.y < b.y - 0.2


def test_a_hidden_animal_is_its_visible_part_and_the_box_is_one_thing() -> None:
    for scene in scenes("mini", "hiding"):
        part, box = spots(scene)
        assert part.name.split()[-1] in ("tail", "ears")
        assert (box.name, box.colour) == ("box", scene.facts.things[1].colour)
        assert part.y < box.y


def test_colours_are_those_of_the_picture_also_where_the_world_lacks_the_word() -> None:
    white = [s for scene in scenes("mini", "one", 300) for s in spots(scene) if s.name == "rabbit"]
    assert "white" in {s.colour for s in white}
    assert "white" not in WORLDS["mini"].colours
