"""Brackets become weights by the stated rule; weights move T5's rows alone; plain prompts stay to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fluxone import FluxPipeline
from fluxone.pipeline import Pipeline
from fluxone.request import EMPHASES, Request
from fluxone.text.emphasis import Weighted, read
from unit.tiny import pipeline


def parts(prompt: str, emphasis: str = "auto") -> list[tuple[str, float]]:
    """Runs of letters of one weight."""
    found = read(prompt, emphasis)
    runs: list[tuple[str, float]] = []
    for letter, weight in zip(found.text, found.weights or [1.0] * len(found.text), strict=True):
        if runs and runs[-1][1] == pytest.approx(weight):
            runs[-1] = (runs[-1][0] + letter, runs[-1][1])
        else:
            runs.append((letter, pytest.approx(weight)))
    return runs


@pytest.mark.parametrize(
    ("prompt", "runs"),
    [
        ("a (red:1.3) car", [("a ", 1), ("red", 1.3), (" car", 1)]),
        ("(a (red:2) car:0.5)", [("a ", 0.5), ("red", 1.0), (" car", 0.5)]),
        ("((a)) [b] (c: -.5)", [("a", 1.21), (" ", 1), ("b", 1 / 1.1), (" ", 1), ("c", -0.5)]),
        (r"(a\) b:1.5) \(c\) \\", [("a) b", 1.5), (" (c) \\", 1)]),
        ("(red:1.3 car", [("(red:1.3 car", 1)]),
        ("(a:1.5) ) ] (b", [("a", 1.5), (" ) ] (b", 1)]),
        ("(a:1.5) [c) d", [("a", 1.5), (" [c) d", 1)]),
        ("(a:1.5) 日本(語:0.8)", [("a", 1.5), (" 日本", 1), ("語", 0.8)]),
    ],
)
def test_brackets_become_weights(prompt: str, runs: list[tuple[str, float]]) -> None:
    assert parts(prompt) == runs


@pytest.mark.parametrize(
    "prompt",
    ["a cat (sitting) [asleep]", r"C:\(x\) [y]", "(16:9) at (12:30)", "(big:11)", "(:1.2)", "", "((", "f(x)[0]"],
)
def test_what_is_no_weight_stays_as_it_is(prompt: str) -> None:
    assert read(prompt, "auto") == Weighted(prompt)
    assert read(f"{prompt} (a:1.2)", "off") == Weighted(f"{prompt} (a:1.2)")


def test_on_reads_brackets_without_numbers() -> None:
    assert parts("a (red) [car]", "on") == [("a ", 1), ("red", 1.1), (" ", 1), ("car", 1 / 1.1)]
    assert read("(a:1.0) b", "auto") == Weighted("a b"), "a weight of 1 is none"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("tiny"))


def test_weights_move_the_rows_of_their_words_from_the_empty_prompt(tiny: Pipeline) -> None:
    plain, empty = tiny.encode(["a red car"], [None], 8), tiny.encode([""], [None], 8)
    weighed = tiny.encode(["a (red:1.5) car"], [None], 8, "auto")
    wanted = plain.txt.clone()
    wanted[0, 1] = empty.txt[0, 1] + 1.5 * (plain.txt[0, 1] - empty.txt[0, 1])
    assert torch.allclose(weighed.txt, wanted, atol=1e-6)
    assert torch.equal(weighed.txt[:, [0, *range(2, 8)]], plain.txt[:, [0, *range(2, 8)]])
    assert torch.equal(weighed.pooled, plain.pooled), "CLIP reads the words without weights"
    assert not torch.allclose(weighed.txt[0, 1], plain.txt[0, 1], atol=1e-3)
    none = tiny.encode(["a (red:0) car"], [None], 8, "auto")
    assert torch.allclose(none.txt[0, 1], empty.txt[0, 1], atol=1e-6)


@pytest.mark.parametrize("emphasis", sorted(EMPHASES))
def test_plain_prompts_stay_to_the_bit(tiny: Pipeline, emphasis: str) -> None:
    plain = tiny.encode(["a red car"], [None], 8)
    assert torch.equal(tiny.encode(["a red car"], [None], 8, emphasis).txt, plain.txt)


def test_a_request_weighs_its_prompts(tiny: Pipeline) -> None:
    def last(**fields: object) -> torch.Tensor:
        return [step.x for step in tiny.steps(Request(steps=2, **fields))][-1]

    plain = last(prompt="a red car")
    assert torch.equal(last(prompt="a (red:1.0) car"), plain)
    assert not torch.allclose(last(prompt="a (red:1.6) car"), plain, atol=1e-3)
    assert not torch.allclose(last(prompt="a (red:1.6) car", emphasis="off"), plain, atol=1e-3)


def test_a_token_cut_off_the_end_weighs_nothing(tmp_path: Path, tiny: Pipeline) -> None:
    long = "a red car in the snow a (fox:1.5)"
    assert torch.equal(
        tiny.encode([long], [None], 4, "auto").txt, tiny.encode([long.replace("(fox:1.5)", "fox")], [None], 4).txt
    )


def test_the_door_weighs_words_when_asked(tiny: Pipeline) -> None:
    door = FluxPipeline(tiny)

    def made(prompt: str, **more: str) -> torch.Tensor:
        images = door(prompt, seed=0, num_inference_steps=1, output_type="latent", **more).images
        assert isinstance(images, torch.Tensor)
        return images

    weighed = made("a (red:1.6) car", emphasis="auto")
    assert not torch.allclose(weighed, made("a red car", emphasis="auto"), atol=1e-3)
    assert torch.equal(made("a (red:1.0) car", emphasis="auto"), made("a red car"))
    assert not torch.allclose(weighed, made("a (red:1.6) car"), atol=1e-3)
