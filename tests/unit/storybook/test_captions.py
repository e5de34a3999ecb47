"""What scenes are called: closed vocabulary, both phrasings, colours that are true."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fluxone import storybook
from fluxone.storybook import WORLDS
from fluxone.storybook.captions import LONGEST, QUOTED, length
from fluxone.storybook.idioms import SYNONYMS
from fluxone.storybook.nouns import article
from fluxone.storybook.objects import OBJECTS
from fluxone.train import tokenizer

FIRST = WORLDS["first"]


@pytest.fixture(scope="module", params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> storybook.World:
    return WORLDS[request.param]


def test_the_vocabulary_is_closed(world: storybook.World) -> None:
    known = set(storybook.vocabulary(world))
    said: set[str] = set()
    for seed in range(4000):
        said.update(storybook.words(storybook.scene(seed, world).caption))
    assert said <= known
    assert len(said) > 0.7 * len(known), sorted(known - said)


def test_captions_are_plain(world: storybook.World) -> None:
    for seed in range(1500):
        caption = storybook.scene(seed, world).caption
        bare = QUOTED.sub("", caption)
        assert bare == bare.lower()
        assert "{" not in bare and "  " not in caption and ",," not in bare.replace(" ", "")
        assert not bare.endswith((",", " ,"))
        for vowel in "aeiou":
            assert f" a {vowel}" not in f" {bare}", caption


def test_quoted_text_is_on_the_sign() -> None:
    signs = [s for s in (storybook.scene(i, FIRST) for i in range(800)) if s.kind == "sign"]
    assert len(signs) > 100
    for scene in signs:
        assert f'"{scene.facts.texts[0]}"' in scene.caption


def test_wordings_are_many() -> None:
    scene = next(s for s in (storybook.scene(i, FIRST) for i in range(500)) if s.key[1] == "left of")
    said = Counter(storybook.caption(scene, random.Random(i)) for i in range(800))
    assert len(said) >= 20
    assert any("right of" in c for c in said) and any("left of" in c for c in said)
    tagged = sum(n for c, n in said.items() if c.endswith(("storybook", "colors", ", illustration")))
    assert 0.05 < tagged / 800 < 0.16


def test_the_brief_prompt_is_of_the_world() -> None:
    """A prompt a stranger would type is made of templates and words of the first world."""
    known = set(storybook.vocabulary(FIRST))
    assert set(storybook.words("a red car to the left of a house in the snow")) <= known


def test_only_true_colours_are_said() -> None:
    for seed in range(3000):
        scene = storybook.scene(seed, FIRST)
        if scene.kind == "one" and scene.facts.things[0].plain:
            thing = scene.facts.things[0]
            said = set(storybook.words(scene.caption)) & set(FIRST.colours)
            said -= {"green"} if "green meadow" in scene.caption and thing.colour != "green" else set()
            assert said <= {thing.colour}, scene.caption


@pytest.mark.parametrize(("phrase", "whole"), [("owl", "an owl"), ("red owl", "a red owl")])
def test_article(phrase: str, whole: str) -> None:
    assert article(phrase) == whole


def test_captions_fit_the_tokens() -> None:
    """No caption of the full world is longer than the mini's 48 tokens, as its tokenizer counts them."""
    full = WORLDS["full"]
    known = tokenizer.build(storybook.vocabulary(full))
    unknown = known.token_to_id(tokenizer.UNKNOWN)
    for seed in range(2500):
        caption = storybook.scene(seed, full).caption
        ids = known.encode(caption).ids
        assert len(ids) == length(caption) <= LONGEST, caption
        assert unknown not in ids, caption


def test_no_synonym_is_the_name_of_something_else() -> None:
    names = {*OBJECTS, "box", "table"}
    assert not names & {other for name, others in SYNONYMS.items() for other in others if other not in SHARED}


SHARED = ("book",)  # a book whose cover has a title is a book
