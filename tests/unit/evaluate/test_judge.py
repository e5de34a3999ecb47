"""The shipped judge on rendered truth: nearly always right, and never about another scene's picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")

from fluxone import storybook
from fluxone.evaluate.judge import Sees, shipped
from fluxone.evaluate.suites import SUITES
from fluxone.evaluate.verdict import judged
from fluxone.storybook import Scene
from unit.evaluate.known import SCORED, WORLD

COUNT = 12


@pytest.fixture(scope="module")
def judge() -> Sees:
    return shipped()


@pytest.fixture(scope="module")
def asked() -> dict[str, list[Scene]]:
    """Held-out scenes of each suite of words."""
    return {name: [p.scene for p in SUITES[name].find(SUITES[name].search, WORLD, COUNT)] for name in SCORED}


@pytest.fixture(scope="module")
def drawn(asked: dict[str, list[Scene]]) -> dict[str, list[np.ndarray]]:
    return {name: [storybook.render(scene, 256) for scene in row] for name, row in asked.items()}


def right(name: str, scene: Scene, judge: Sees, picture: np.ndarray) -> bool:
    parts = judged(scene, judge.look([picture])[0]).parts
    return all(parts[part] for part in SUITES[name].parts)


def test_it_is_right_about_the_truth(
    judge: Sees, asked: dict[str, list[Scene]], drawn: dict[str, list[np.ndarray]]
) -> None:
    pairs = [(name, *pair) for name in SCORED for pair in zip(asked[name], drawn[name], strict=True)]
    wrong = [(name, scene.caption) for name, scene, picture in pairs if not right(name, scene, judge, picture)]
    assert len(wrong) <= 0.02 * len(pairs), wrong


def test_it_fails_every_picture_of_another_scene(
    judge: Sees, asked: dict[str, list[Scene]], drawn: dict[str, list[np.ndarray]]
) -> None:
    for name in SCORED:
        row = list(zip(asked[name], drawn[name], strict=True))
        for (scene, _), (other, picture) in zip(row, row[1:] + row[:1], strict=True):
            if other.key == scene.key and other.stage != scene.stage and "stage" not in SUITES[name].parts:
                continue
            assert not right(name, scene, judge, picture), (name, scene.caption)


def test_it_fails_what_is_no_picture(judge: Sees, asked: dict[str, list[Scene]]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for picture in (np.zeros((256, 256, 3), np.uint8), np.full((256, 256, 3), 200, np.uint8), noise):
        for name in SCORED:
            assert not right(name, asked[name][0], judge, picture)


def test_a_mirrored_pair_is_wrong(
    judge: Sees, asked: dict[str, list[Scene]], drawn: dict[str, list[np.ndarray]]
) -> None:
    mirrored = 0
    for scene, picture in zip(asked["relations"], drawn["relations"], strict=True):
        if scene.kind == "side":
            seen = judge.look([picture[:, ::-1].copy()])[0]
            assert not judged(scene, seen).parts["places"], scene.caption
            mirrored += 1
    assert mirrored > 3


def test_any_size_is_looked_at(judge: Sees, asked: dict[str, list[Scene]]) -> None:
    scene = asked["objects"][0]
    large = Image.fromarray(storybook.render(scene, 320))
    assert all(judged(scene, judge.look([large])[0]).parts[part] for part in SUITES["objects"].parts)
