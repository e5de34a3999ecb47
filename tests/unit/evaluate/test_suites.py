"""Prompts: held out, always the same, saying all that is judged, with what the model is given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluxone import storybook
from fluxone.evaluate import first
from fluxone.evaluate.characters import SCENES
from fluxone.evaluate.labels import TABLES
from fluxone.evaluate.prompts import captions, edits, full, told
from fluxone.evaluate.search import Search
from fluxone.evaluate.suites import SUITES, missing
from fluxone.storybook import WORLDS, Scene
from fluxone.storybook.idioms import STAGES_MORE
from fluxone.storybook.rig import POSES
from fluxone.storybook.stages import STAGES
from fluxone.variants import VARIANTS, Kind

MINI, FULL = WORLDS["mini"], WORLDS["full"]
ANY = replace(VARIANTS["mini"], takes=())
WORDS = [name for name, suite in SUITES.items() if suite.find is captions]


def staged(text: str, scene: Scene) -> bool:
    row = STAGES[scene.stage]
    return any(phrase in text for phrase in (*row.phrases, row.tag, *STAGES_MORE[scene.stage]))


@pytest.mark.parametrize("world", [MINI, FULL], ids=["mini", "full"])
@pytest.mark.parametrize("name", WORDS)
def test_prompts_of_words(name: str, world: storybook.World) -> None:
    suite = SUITES[name]
    if missing(suite, world, ANY, TABLES):
        return
    found = suite.find(suite.search, world, 6)
    assert len(found) == len({(p.scene.key, p.scene.stage, p.scene.style) for p in found}) == 6
    assert found == suite.find(suite.search, world, 6)
    for prompt in found:
        scene = prompt.scene
        assert storybook.held_out(scene) and scene.kind in suite.search.kinds and not prompt.given
        assert staged(prompt.text, scene)
        for thing in scene.facts.things:
            assert not thing.colour or thing.colour in prompt.text
            assert not thing.text or f'"{thing.text}"' in prompt.text
            assert not thing.detail("shirt") or thing.detail("shirt") in prompt.text


def test_a_lone_persons_caption_says_everything() -> None:
    for prompt in captions(Search(kinds=("person",)), FULL, 8):
        (thing,) = prompt.scene.facts.things
        for detail in ("hair", "shirt", "hat", "hat colour", "glasses"):
            assert thing.detail(detail) in prompt.text
        assert any(phrase in prompt.text for phrase in POSES[thing.detail("pose")].phrases)
        assert not told("a girl on the beach", thing, alone=True)


def test_every_relation_that_is_asked_for_is_told() -> None:
    said = {"left", "right", "above", "below", "over", "under", "beneath", "underneath", "top", "flying", "hovering"}
    for world in (MINI, FULL):
        for prompt in captions(SUITES["relations"].search, world, 12):
            assert said & set(storybook.words(prompt.text)), prompt.text


def test_texts_are_of_their_suites_kind() -> None:
    for name, fits in (
        ("typography", lambda text: text.isalpha() and len(text) <= 8),
        ("phrases", lambda text: 2 <= len(text.split()) <= 4),
        ("numbers", lambda text: any(letter.isdigit() for letter in text)),
    ):
        for prompt in captions(SUITES[name].search, FULL, 6):
            assert fits(prompt.scene.facts.texts[0])


def test_counts_go_from_one_to_six() -> None:
    found = captions(SUITES["counts"].search, FULL, 40)
    assert {prompt.scene.facts.things[0].count for prompt in found} == {1, 2, 3, 4, 5, 6}


def test_every_kind_of_edit_is_asked_for_with_the_picture_before() -> None:
    found = edits(Search(kinds=()), FULL, 1)
    assert [prompt.sort for prompt in found] == list(FULL.edits)
    for prompt in found:
        (given,) = prompt.given
        assert given.field == "references" and given.scene != prompt.scene and storybook.held_out(given.scene)


def test_a_character_keeps_its_looks_over_five_places() -> None:
    found = SUITES["character"].find(SUITES["character"].search, FULL, 4)
    assert [prompt.group for prompt in found] == [0] * SCENES + [1] * SCENES
    for prompt in found:
        (given,) = prompt.given
        (first_thing,) = given.scene.facts.things
        thing = next(t for t in prompt.scene.facts.things if t.detail("pose"))
        for detail in ("hair", "style", "shirt", "bottom", "trousers", "hat", "hat colour", "glasses"):
            assert thing.detail(detail) == first_thing.detail(detail)
        assert thing.name in prompt.text
    assert len({prompt.scene.stage for prompt in found[:SCENES]}) == SCENES


@pytest.mark.parametrize("name", [name for name in SUITES if SUITES[name].takes is not None])
def test_what_is_given_is_what_the_suite_takes(name: str) -> None:
    suite = SUITES[name]
    fields = {
        Kind.REFERENCE: {"references"},
        Kind.CONTROL: {"control"},
        Kind.FILL: {"init", "mask"},
        Kind.PROMPT: {"image_prompts"},
    }
    for prompt in suite.find(suite.search, FULL, 4):
        assert {given.field for given in prompt.given} == fields[suite.takes]  # type: ignore[index]
        assert bool(prompt.text) == (suite.takes is not Kind.PROMPT)


def test_no_caption_says_what_was_not_drawn() -> None:
    scene = captions(Search(kinds=("one",)), FULL, 1)[0].scene
    assert full(scene) == full(scene) != ""


def test_what_cannot_be_scored_says_why() -> None:
    assert "holding" in missing(SUITES["holding"], MINI, ANY, TABLES)
    for name in ("people", "company"):
        assert "how people look" in missing(SUITES[name], MINI, ANY, first.TABLES)
    assert "judge" in missing(SUITES["objects"], FULL, ANY, first.TABLES)
    assert "styles" in missing(SUITES["styles"], MINI, ANY, TABLES)
    depth = replace(ANY, takes=(Kind.CONTROL,), maps=("depth",))
    assert "control picture" in missing(SUITES["depth"], FULL, ANY, TABLES)
    assert missing(SUITES["depth"], FULL, depth, TABLES) == ""
    assert "depth" in missing(SUITES["canny"], FULL, depth, TABLES)
    assert "cannot draw without" in missing(SUITES["objects"], FULL, depth, TABLES)
    assert missing(SUITES["objects"], FULL, ANY, TABLES) == ""
