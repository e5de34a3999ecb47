"""Guessed steps: which, by what; nothing remembered beyond a walk; off, nothing changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fluxone.cache.drift import DRIFTS, within
from fluxone.cache.rules import MOST, RULES, WARM, read
from fluxone.cache.runner import Cached, along
from fluxone.cli.main import run
from fluxone.errors import BadRequest, UnknownName
from fluxone.pipeline import Pipeline
from fluxone.recipe import CACHES, Recipe
from fluxone.request import Request
from unit.tiny import pipeline

ASKED = Request(prompt="a red car", steps=12, seed=3)


def last(pipe: Pipeline, request: Request = ASKED) -> Tensor:
    *_, step = pipe.steps(request)
    return step.x


def counted(pipe: Pipeline) -> Counter[str]:
    """How often the first and the last block compute."""
    calls: Counter[str] = Counter()
    for name, block in (("first", pipe.transformer.double_blocks[0]), ("last", pipe.transformer.single_blocks[-1])):
        block.register_forward_hook(lambda *given, name=name: calls.update([name]))
    return calls


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_both_tables_have_the_same_rows() -> None:
    assert list(CACHES) == list(RULES)


@pytest.mark.parametrize("words", ["first-block:0.9", "teacache:0.9", "taylor:3"])
def test_steps_are_guessed_and_pictures_stay_near(words: str, tmp_path: Path) -> None:
    plain = last(pipeline(tmp_path))
    pipe = pipeline(tmp_path, cache=words)
    calls = counted(pipe)
    found = last(pipe)
    assert calls["last"] < 9 and calls["first"] == (12 if words.startswith("first") else calls["last"])
    assert 1e-6 < error(found, plain) < 0.5
    assert torch.equal(last(pipe), found), "nothing is remembered from the walk before"
    assert torch.equal(last(pipeline(tmp_path)), plain)


@pytest.mark.parametrize("words", ["first-block:0.000001", "teacache:0.000001", "taylor:1"])
def test_a_limit_that_nothing_meets_changes_not_one_bit(words: str, tmp_path: Path) -> None:
    assert torch.equal(last(pipeline(tmp_path, cache=words)), last(pipeline(tmp_path)))


def test_taylor_computes_the_first_the_last_and_every_third(tmp_path: Path) -> None:
    pipe = pipeline(tmp_path, cache="taylor:3")
    computed: list[int] = []
    pipe.transformer.single_blocks[-1].register_forward_hook(lambda *given: computed.append(len(steps)))
    steps: list[object] = []
    for step in pipe.steps(ASKED):
        steps.append(step)
    assert computed == [0, 1, 4, 7, 10, 11]


def test_a_walk_with_a_negative_prompt_has_two_memories(tmp_path: Path) -> None:
    asked = replace(ASKED, negative="snow", cfg=2.0)
    found = last(pipeline(tmp_path, cache="taylor:2"), asked)
    assert error(found, last(pipeline(tmp_path), asked)) < 0.4


def test_few_steps_are_all_computed(tmp_path: Path) -> None:
    few = replace(ASKED, steps=WARM + 1)
    assert torch.equal(last(pipeline(tmp_path, cache="teacache:90"), few), last(pipeline(tmp_path), few))


def test_guesses_in_a_row_end(tmp_path: Path) -> None:
    pipe = pipeline(tmp_path, cache="teacache:90")
    calls = counted(pipe)
    last(pipe)
    assert calls["last"] == WARM + 1 + (12 - WARM - 1) // (MOST + 1)


def test_a_guess_goes_on_along_a_parabola() -> None:
    def value(t: int) -> Tensor:
        return torch.tensor([3.0, 1.0 + 2 * t, t * t - 4.0 * t])

    known = [(time, value(time)) for time in (7, 4, 2)]
    torch.testing.assert_close(along(known, 9), value(9))
    torch.testing.assert_close(along(known[:1], 9), value(7))


def test_the_decision_looks_at_the_changes_of_the_steps_before() -> None:
    cached = Cached(read("teacache:0.3")[0], 0.3, steps=99)
    cached.computed = 5
    cached._note(torch.tensor([10.0]), guess=False)
    cached._note(torch.tensor([11.0]), guess=False)  # 0.1
    assert cached._decide()
    cached._note(torch.tensor([12.1]), guess=True)  # 0.1 since, and as much is expected
    assert cached._decide()
    cached._note(torch.tensor([13.31]), guess=True)
    assert not cached._decide()
    cached._note(torch.tensor([14.641]), guess=False)
    assert cached._decide()


def test_the_quickest_within_a_drift() -> None:
    assert within(None) is within(0.0) is None
    for limit in (0.02, 0.05, 0.1, 1.0):
        chosen = next(row for row in DRIFTS if row.cache == within(limit))
        assert chosen.worst <= limit and all(row.time >= chosen.time for row in DRIFTS if row.worst <= limit)
        read(chosen.cache)


def test_mistakes_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownName, match="did you mean 'taylor'"):
        Recipe(cache="tailor:2")
    with pytest.raises(BadRequest, match="write taylor:3"):
        pipeline(tmp_path, cache="taylor:many")
    with pytest.raises(BadRequest, match="max_drift is -1"):
        Recipe(max_drift=-1.0)
    assert run(["generate", "a", "--cache", "nothing", "-o", str(tmp_path / "x.png")]) == 2


def test_the_command_line_guesses(tmp_path: Path) -> None:
    out = str(tmp_path / "x.png")
    line = ["generate", "a red car", "--steps", "6", "--size", "64x64", "--device", "cpu", "--quiet"]
    assert run([*line, "-o", out, "--max-drift", "0.05"]) == 0
    assert run(["replay", out, "--quiet"]) == 0
