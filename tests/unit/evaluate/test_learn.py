"""What the judge is taught: the answers are those of the pictures, and learning lowers the loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")

from fluxone import storybook
from fluxone.errors import BadWeights
from fluxone.evaluate import judge, losses, wear
from fluxone.evaluate.answers import LINES, SPOTS, targets
from fluxone.evaluate.labels import LETTERS, TABLES
from fluxone.evaluate.learn import Learner, pace
from fluxone.evaluate.network import GRID, Looker, Reader, cut, runs, window
from fluxone.evaluate.truth import spots, written
from fluxone.storybook import WORLDS, Scene

CPU = torch.device("cpu")
FULL = WORLDS["full"]


def scenes(kind: str, count: int) -> list[Scene]:
    return [storybook.scene(seed, replace(FULL, kinds={kind: 1.0})) for seed in range(count)]


def stacked(found: list[Scene]) -> dict[str, Tensor]:
    rows = [targets(scene) for scene in found]
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


@pytest.fixture(scope="module")
def shown() -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures of twelve scenes of all sorts, and the answers."""
    found = [*scenes("sign", 4), *scenes("side", 4), *scenes("person", 4)]
    return torch.from_numpy(np.stack([storybook.render(scene, 256) for scene in found])), stacked(found)


@pytest.mark.parametrize("kind", sorted(FULL.kinds))
def test_the_answers_have_one_shape_whatever_the_scene(kind: str) -> None:
    for scene in scenes(kind, 10):
        found = targets(scene)
        assert {name: (value.shape, str(value.dtype)) for name, value in found.items()} == {
            "places": ((SPOTS, 4), "float32"),
            "names": ((SPOTS,), "int16"),
            "colours": ((SPOTS,), "int16"),
            "details": ((SPOTS, len(TABLES.details)), "int16"),
            "whole": ((2,), "int16"),
            "lines": ((LINES, 4), "float32"),
            "letters": ((LINES, 24), "int16"),
            "ends": ((LINES, 25), "float32"),
        }
        assert (found["names"] >= 0).sum() == len(spots(scene)) <= SPOTS
        assert (found["lines"][:, 3] > 0).sum() == len(written(scene)) <= LINES


def test_the_columns_spell_the_text() -> None:
    found = scenes("sign", 30)
    windows, columns = losses.lines(stacked(found * losses.READ * LINES), wear.still(30 * 4 * LINES, CPU), None)
    assert len(columns) >= 30
    for picture, real, numbers in zip(windows.picture.tolist(), windows.real.tolist(), columns, strict=True):
        text = judge.spelt(F.one_hot(numbers, len(LETTERS)).T.float())
        assert not real or text in [line.text for line in written(found[picture % 30])]


@pytest.mark.parametrize(("scale", "shift"), [(1.0, (0.0, 0.0)), (0.9, (0.1, -0.02))])
def test_the_cells_are_where_things_are(scale: float, shift: tuple[float, float]) -> None:
    found = scenes("count", 8)
    answers = stacked(found)
    moved = wear.Moved(shift=torch.tensor([shift] * 8), scale=torch.full((8, 1), scale))
    there = answers["names"] >= 0
    sure, which = losses.heat(moved.place(answers["places"]), there, GRID, losses.NEAR)
    for i, scene in enumerate(found):
        for n, spot in enumerate(spots(scene)):
            column, row = (int((at - by) / scale * GRID) for at, by in zip((spot.x, spot.y), shift, strict=True))
            if 0 <= column < GRID and 0 <= row < GRID:
                assert sure[i, row, column] == 1
                assert which[i, row, column] == n
        assert int((sure[i] == 1).sum()) <= len(spots(scene))


def test_a_picture_that_is_moved_shows_its_things_where_it_says() -> None:
    pictures = torch.zeros(1, 3, 64, 64)
    pictures[..., 20:24, 40:44] = 1
    rng = torch.Generator().manual_seed(1)
    x, moved = wear.move(pictures, rng)
    at = moved.place(torch.tensor([[[42 / 64, 22 / 64, 0.1, 0.1]]]))[0, 0]
    weight = x[0, 0] / x[0, 0].sum()
    centres = (torch.arange(64) + 0.5) / 64
    assert float((weight.sum(0) * centres).sum()) == pytest.approx(float(at[0]), abs=0.02)
    assert float((weight.sum(1) * centres).sum()) == pytest.approx(float(at[1]), abs=0.02)
    worn = wear.wear(x, rng)
    assert worn.shape == x.shape and worn.min() >= 0 and worn.max() <= 1


def test_a_cut_is_the_part_of_the_picture() -> None:
    picture = torch.zeros(1, 3, 256, 256)
    picture[..., 80:120, 128:] = 1
    part = cut(picture, torch.tensor([[0.08, 80 / 256, 0.92, 120 / 256]]))
    assert part[..., :108].max() < 0.01 and part[0, 0, 3:-3, 116:].min() > 0.99


def test_long_lines_fit_their_window() -> None:
    left, _, right, _ = window(torch.tensor([[0.5, 0.3, 0.72, 0.05]]))[0].tolist()
    assert left < 0.14 and right > 0.86


def test_runs_of_a_letter_are_one_letter_and_gaps_part_them() -> None:
    assert runs([0, 1, 1, 0, 2, 2, 2, 0, 2, 0]) == [(1, 1, 3), (2, 4, 7), (2, 8, 9)]
    assert runs([]) == []


def test_a_letter_is_read_whatever_its_case() -> None:
    shares = torch.zeros(len(LETTERS), 4)
    shares[0, [0, 3]] = 1
    for letter, share in (("s", 0.4), ("S", 0.35), ("R", 0.25)):
        shares[LETTERS.index(letter), 1:3] = share
    assert judge.spelt(shares) == "s"


def test_the_rate_rises_and_falls() -> None:
    rates = [pace(n / 100) for n in range(101)]
    assert rates[0] < 0.1 and max(rates) == 1 and rates[-1] == 0
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_learning_lowers_the_loss(shown: tuple[Tensor, dict[str, Tensor]]) -> None:
    learner = Learner("cpu")
    found = [float(learner.step(*shown, progress=n / 20)["loss"]) for n in range(8)]
    assert found[-1] < 0.75 * found[0]
    assert set(learner.score(*shown)) == {"counts", "names", "colours", "columns"}


def test_learning_is_the_same_again(shown: tuple[Tensor, dict[str, Tensor]]) -> None:
    one, two = ([float(v) for v in Learner("cpu", seed=3).step(*shown).values()] for _ in range(2))
    assert one == two


def test_a_judge_is_saved_and_read_again(tmp_path: Path, shown: tuple[Tensor, dict[str, Tensor]]) -> None:
    learner, path = Learner("cpu"), tmp_path / "judge.safetensors"
    learner.step(*shown)
    learner.save(path)
    assert path.stat().st_size < 2_000_000
    found = judge.load(path)
    assert isinstance(found, judge.Judge) and found.tables == TABLES
    for name, value in learner.model["looker"].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(found.looker.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    seen = found.look([picture.numpy() for picture in shown[0]])
    assert len(seen) == 12 and all(one.stage in TABLES.stages for one in seen)


def test_another_judge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    judge.save(judge.Judge(Looker(replace(TABLES, names=TABLES.names[1:])), Reader(), TABLES), path)
    with pytest.raises(BadWeights, match="not this judge"):
        judge.load(path)
    with safe_open(path, "pt") as file:
        assert "tables" in file.metadata()
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(BadWeights, match="not this judge"):
        judge.load(path)
