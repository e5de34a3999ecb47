"""Prompts: held out, each combination once, always the same, and saying all that is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluxone import storybook
from fluxone.evaluate import first
from fluxone.evaluate.labels import TABLES
from fluxone.evaluate.suites import SUITES, missing, prompts
from fluxone.storybook import WORLDS
from fluxone.storybook.stages import STAGES
from fluxone.variants import Kind

MINI = WORLDS["mini"]


@pytest.mark.parametrize("name", [name for name in SUITES if not missing(SUITES[name], MINI, (), TABLES)])
def test_prompts(name: str) -> None:
    suite = SUITES[name]
    found = prompts(suite, MINI, 6)
    assert len(found) == len({(prompt.scene.key, prompt.scene.stage) for prompt in found}) == 6
    assert found == prompts(suite, MINI, 6)
    for prompt in found:
        scene = prompt.scene
        assert storybook.held_out(scene)
        assert scene.kind in suite.kinds
        place = STAGES[scene.stage]
        assert any(phrase in prompt.text for phrase in (*place.phrases, place.tag))
        for thing in scene.facts.things:
            assert not thing.colour or thing.colour in prompt.text
            assert not thing.text or f'"{thing.text}"' in prompt.text


def test_every_relation_that_is_asked_for_is_told() -> None:
    for prompt in prompts(SUITES["relations"], MINI, 12):
        assert {"left", "right", "above", "below", "over", "under"} & set(storybook.words(prompt.text))


def test_what_cannot_be_scored_says_why() -> None:
    assert "person" in missing(SUITES["people"], MINI, (), TABLES)
    assert "judge" in missing(SUITES["objects"], WORLDS["full"], (), first.TABLES)
    asks = replace(SUITES["objects"], takes=(Kind.CONTROL,))
    assert "control picture" in missing(asks, MINI, (), TABLES)
    assert missing(asks, MINI, (Kind.CONTROL,), TABLES) == ""
