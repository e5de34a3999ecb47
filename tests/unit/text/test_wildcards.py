"""Choices and wildcards are drawn by the seed alone, the same each time; files that are not there are named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fluxone.errors import BadFile, BadRequest
from fluxone.pipeline import Pipeline
from fluxone.prompts import each, settled
from fluxone.request import Request
from fluxone.text.wildcards import drawn
from unit.tiny import pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "animal.txt").write_text("# those that live here\nfox\n\n  red {cat|dog}\n__zoo/big-one__\n")
    (tmp_path / "zoo" / "big-one.txt").write_text("elephant\n")
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "loop.txt").write_text("a __loop__\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    return tmp_path


def test_every_choice_comes_about_as_often() -> None:
    found = Counter(drawn("{a|b|}", seed) for seed in range(600))
    assert set(found) == {"a", "b", ""} and min(found.values()) > 150


def test_a_seed_draws_the_same_each_time(folder: Path) -> None:
    prompt = "a {red|blue} __animal__ by a {tree|{big|small} house}"
    made = [drawn(prompt, seed, str(folder)) for seed in range(30)]
    assert made == [drawn(prompt, seed, str(folder)) for seed in range(30)]
    assert len(set(made)) > 10
    assert made[0] == "a blue elephant by a tree", "the way of drawing has changed: old pictures would too"
    assert all("{" not in text and "__" not in text for text in made)
    assert any("elephant" in text for text in made) and any("red cat" in text for text in made)


@pytest.mark.parametrize("text", ["{a}", "{}", '{"json": "x"}', "a|b", "}{", "{a|b", "__animal__ {x}", "_a_"])
def test_what_is_no_choice_stays(text: str) -> None:
    assert drawn(text, 3) == text


def test_escapes() -> None:
    assert drawn(r"\{a\|b\}", 0) == "{a|b}"
    assert drawn(r"{a\|b|a\|b}", 0) == "a|b"
    assert drawn("{a|a} {b}", 0) == "a {b}"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("__anmal__", r"no file .*did you mean __animal__"),
        ("__xyzzy__", "there are: animal"),
        ("__empty__", "no line to choose"),
        ("__bytes__", "UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(folder: Path, prompt: str, words: str) -> None:
    with pytest.raises(BadFile, match=words):
        drawn(prompt, 0, str(folder))


def test_files_that_never_end_are_refused(folder: Path) -> None:
    with pytest.raises(BadRequest, match="never end"):
        drawn("__loop__", 0, str(folder))
    assert drawn("__../secret__", 0, str(folder)) == "__../secret__", "names stay inside the folder"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("tiny"))


def test_each_picture_draws_by_its_own_seed(tiny: Pipeline) -> None:
    asked = Request(prompt="a {red|house|fox|snow} {car|fox}", wildcards="", seed=3, count=4, steps=1)
    alone = [tiny(Request(prompt=one.prompt, seed=3 + i, steps=1)) for i, one in enumerate(each(asked))]
    for batch in (1, 4):
        result = tiny(asked, batch=batch)
        assert result.prompts == [one.prompt for one in each(asked)] and len(set(result.prompts)) > 1
        pairs = zip(result.images, alone, strict=True)
        gaps = [np.abs(np.subtract(image, one.images[0], dtype=np.int16)).max() for image, one in pairs]
        assert max(gaps) <= (0 if batch == 1 else 1)


def test_the_request_that_comes_back_is_drawn(tiny: Pipeline) -> None:
    result = tiny(Request(prompt="a {red|blue} car", clip_prompt="{red|blue}", wildcards="", seed=5, steps=1))
    assert result.request.wildcards is None
    assert result.request.prompt == f"a {result.request.clip_prompt} car"
    assert settled(result.request, 99) == result.request
    assert tiny(result.request).images[0].tobytes() == result.images[0].tobytes()
    literal = Request(prompt="a {red|blue} car", steps=1)
    assert tiny(literal).request.prompt == literal.prompt
