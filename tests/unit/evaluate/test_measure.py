"""Whole suites over pictures that are made up, so that the figures are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")

from fluxone import storybook
from fluxone.evaluate import report, steps, variety
from fluxone.evaluate.bench import Ask, Bench, Drawing, bend
from fluxone.evaluate.given import Prompt
from fluxone.evaluate.judge import shipped
from fluxone.evaluate.measure import score
from fluxone.evaluate.run import MEASURES
from fluxone.evaluate.suites import SUITES, Suite
from fluxone.nn.tokens import unpack
from fluxone.storybook import nth
from fluxone.variants import MINI, Variant
from unit.evaluate.known import WORLD

SIDE = 8  # px of a cell


@dataclass
class Lossless:
    """As much of a pipeline as a bench whose pictures are all there needs: an autoencoder that loses nothing."""

    variant: Variant = field(default=MINI)

    def encode_pixels(self, pixels: Tensor, sources: None, *, posterior: bool) -> Tensor:
        return F.pixel_unshuffle(pixels, SIDE)

    def decode(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return F.pixel_shuffle(unpack(x, *grid), SIDE)


samplers: set[str | None] = set()  # that pictures of the last bench were asked of


def bench(draw: Callable[[str, int, int], Drawing], *, prompts: int = 4, seeds: int = 2) -> Bench:
    samplers.clear()

    class Known(dict):  # type: ignore[type-arg]
        def __contains__(self, key: object) -> bool:
            return True

        def __getitem__(self, key: Ask) -> Drawing:
            prompt, seed, steps, sampler = key
            samplers.add(sampler)
            return draw(prompt.text, seed, steps)

    return Bench(pipeline=Lossless(), world=WORLD, judge=shipped(), prompts=prompts, seeds=seeds, drawn=Known())  # type: ignore[arg-type]


def prompts(suite: Suite, count: int) -> list[Prompt]:
    return suite.find(suite.search, WORLD, count)


def true_pictures(count: int = 4) -> dict[str, Image.Image]:
    """The right picture of every prompt of every suite."""
    return {
        prompt.text: Image.fromarray(storybook.render(prompt.scene, MINI.size))
        for name in ("objects", "relations", "typography")
        for prompt in prompts(SUITES[name], count)
    }


@pytest.fixture(scope="module")
def truth() -> dict[str, Image.Image]:
    return true_pictures()


@pytest.mark.parametrize("name", ["objects", "relations", "typography"])
def test_true_pictures_score_all_and_others_nothing(name: str, truth: dict[str, Image.Image]) -> None:
    best = score(name, SUITES[name], bench(lambda prompt, seed, n: Drawing(image=truth[prompt], bend=0)))
    line = best.lines[0]
    assert (line.name, line.figure.value, line.truth, line.rebuilt) == ("right", 1.0, 1.0, 1.0)
    assert line.figure.pictures == 8 and line.figure.low < 0.6
    blank = Drawing(image=Image.new("RGB", (128, 128), "white"), bend=0)
    worst = score(name, SUITES[name], bench(lambda prompt, seed, n: blank))
    assert worst.lines[0].figure.value == 0
    assert worst.lines[0].truth == 1.0
    assert not any(shot.right for shot in worst.shots)


def test_a_suite_that_the_world_lacks_is_not_scored() -> None:
    found = score("holding", SUITES["holding"], bench(lambda prompt, seed, n: Drawing(image=None, bend=0)))  # type: ignore[arg-type]
    assert not found.lines and "of kind holding" in found.skipped
    assert any("not scored" in cell for row in report.table([found]) for cell in row)


def test_diversity(truth: dict[str, Image.Image]) -> None:
    same = variety.diversity("diversity", bench(lambda prompt, seed, n: Drawing(image=truth[prompt], bend=0)))
    assert same.lines[0].figure.value == 0
    asked = {p.text: p.scene for p in prompts(SUITES["objects"], 4)}

    def other(prompt: str, seed: int, n: int) -> Drawing:
        scene = variety.alike(asked[prompt], WORLD)[-1 - seed]
        return Drawing(image=Image.fromarray(storybook.render(scene, MINI.size)), bend=0)

    own = variety.diversity("diversity", bench(other))
    assert 0.5 < own.lines[0].figure.value < 2


def test_copies_are_found(truth: dict[str, Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variety, "TRAINED", 60)
    new = variety.copying("copying", bench(lambda prompt, seed, n: Drawing(image=truth[prompt], bend=0)))
    assert [line.figure.value for line in new.lines] == pytest.approx([1.0, 0.0])
    trained = [nth(WORLD, index) for index in range(60)]
    asked = {p.text: p for name in ("objects", "relations") for p in prompts(SUITES[name], 4)}

    def copy(prompt: str, seed: int, n: int) -> Drawing:
        scene = variety.nearest(asked[prompt], trained)[0]
        return Drawing(image=Image.fromarray(storybook.render(scene, MINI.size)), bend=0)

    old = variety.copying("copying", bench(copy))
    assert old.lines[0].figure.value < 0.2
    assert old.lines[1].figure.value == 1.0


def test_steps(truth: dict[str, Image.Image]) -> None:
    blank = Image.new("RGB", (128, 128), "white")

    def draw(prompt: str, seed: int, n: int) -> Drawing:
        return Drawing(image=truth[prompt] if n >= 4 else blank, bend=1 / n)

    found, points = steps.few("steps", bench(draw, prompts=2))
    assert samplers == {"euler"}  # fresh noise would bend the walk
    assert [point.steps for point in points] == [1, 2, 4, 8, 20]
    assert [point.right.value for point in points] == [0, 0, 1, 1, 1]
    assert points[2].near.value == 99 and points[0].near.value < 20
    assert points[0].same.value == 0 and points[3].same.value == 1
    assert report.plot(points).startswith(b"\x89PNG")
    assert {line.name for line in found.lines} >= {"right, 1 step", "bend, 20 steps"}


def test_a_straight_walk_has_no_bend() -> None:
    start, end = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    sigmas = [1.0, 0.7, 0.2, 0.0]
    straight = [start * s + end * (1 - s) for s in sigmas]
    assert bend(straight, sigmas) == pytest.approx(0, abs=1e-10)
    bent = [*straight[:2], straight[2] + 0.5, straight[3]]
    assert bend(bent, sigmas) > 0.01
    assert bend([3 * point for point in bent], sigmas) == pytest.approx(bend(bent, sigmas))


def test_table_document_and_sheet(truth: dict[str, Image.Image]) -> None:
    found = score("objects", SUITES["objects"], bench(lambda p, s, n: Drawing(image=truth[p], bend=0)))
    rows = report.table([found])
    assert all(len(row) == len(report.HEAD) for row in rows)
    assert rows[1][:3] == ("objects", "right", "100.0 %")
    (entry,) = report.document([found])
    assert len(entry["pictures"]) == 8 and all(picture["right"] for picture in entry["pictures"])
    page = report.sheet([found])
    assert page.width > report.SHOWN * report.SHEET
    assert set(MEASURES) == {"diversity", "copying"}
