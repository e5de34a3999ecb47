"""Suites that give pictures, before a judge that sees everything: figures by group, by kind, and of what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")
pytest.importorskip("cv2", reason="the control extra is not installed")

from fluxone.evaluate import report
from fluxone.evaluate.bench import Ask, Bench, Drawing
from fluxone.evaluate.characters import SCENES
from fluxone.evaluate.given import Prompt, shown
from fluxone.evaluate.judge import Seen
from fluxone.evaluate.labels import TABLES
from fluxone.evaluate.measure import Score, score
from fluxone.evaluate.suites import SUITES
from fluxone.storybook import WORLDS, Scene
from fluxone.variants import MINI, Kind
from unit.evaluate.known import perfect
from unit.evaluate.test_measure import Lossless

FULL, SIZE = WORLDS["full"], 64


class Perfect:
    """A judge that knows the pictures of these scenes, and sees nothing on others."""

    tables = TABLES

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.known = {shown(scene, "rgb", SIZE).tobytes(): scene for scene in scenes}

    def look(self, images: Sequence[Image.Image]) -> list[Seen]:
        return [self._one(self.known.get(image.convert("RGB").tobytes())) for image in images]

    def _one(self, scene: Scene | None) -> Seen:
        return Seen(spots=(), stage="") if scene is None else perfect(scene)


def asked(name: str, count: int) -> list[Prompt]:
    return SUITES[name].find(SUITES[name].search, FULL, count)


def scored(name: str, count: int, wrong: int = 0) -> Score:
    """The suite's score when all pictures are true but those of the first `wrong` prompts, which are the given ones."""
    found = asked(name, count)
    spoilt = {prompt: shown(prompt.given[0].scene, "rgb", SIZE) for prompt in found[:wrong]}

    class Known(dict):  # type: ignore[type-arg]
        def __contains__(self, key: object) -> bool:
            return True

        def __getitem__(self, key: Ask) -> Drawing:
            prompt = key[0]
            return Drawing(image=spoilt.get(prompt) or shown(prompt.scene, "rgb", SIZE), bend=0)

    variant = replace(MINI, takes=(SUITES[name].takes or Kind.REFERENCE,), size=SIZE)
    known = [*(p.scene for p in found), *(g.scene for p in found for g in p.given)]
    bench = Bench(pipeline=Lossless(variant), world=FULL, judge=Perfect(known), prompts=count, seeds=1, drawn=Known())  # type: ignore[arg-type]
    return score(name, SUITES[name], bench)


def test_true_edits_are_right_and_pictures_left_as_they_were_are_not() -> None:
    best = scored("edits", 1)
    figures = {line.name: line for line in best.lines}
    assert figures["right"].figure.value == figures["right"].truth == 1
    assert {name for name in figures if name.startswith("right, ")} == {f"right, {kind}" for kind in FULL.edits}
    assert figures["kept, mean"].unit == "dB" and figures["kept, mean"].figure.value == 99
    worst = scored("edits", 1, wrong=len(FULL.edits))
    unchanged = {shot.sort for shot in worst.shots if shot.right}
    assert not unchanged
    assert next(line for line in worst.lines if line.name == "kept").figure.value > 0.9


def test_one_scene_of_five_spoils_its_character_alone() -> None:
    found = scored("character", 4, wrong=1)
    figures = {line.name: line.figure.value for line in found.lines}
    assert len(found.shots) == 2 * SCENES
    assert figures["right"] == pytest.approx(1 - 1 / (2 * SCENES)) or figures["right"] == 1
    assert figures["all 5 of a group right"] in (0.5, 1.0)
    assert {"right, person", "right, company", "right, holding"} <= set(figures)


@pytest.mark.parametrize("name", ["fill", "variations", "together", "given-depth"])
def test_the_truth_is_right(name: str) -> None:
    found = scored(name, 3)
    assert found.lines[0].figure.value == 1, [shot.verdict for shot in found.shots]
    assert all(shot.given for shot in found.shots)
    page = np.asarray(report.sheet([found]))
    assert page.shape[0] > report.SHEET


def test_given_pictures_are_in_the_corner_of_the_sheet() -> None:
    found = scored("variations", 1)
    (shot,) = found.shots
    bare = replace(found, shots=(replace(shot, given=()),))
    with_given, without = np.asarray(report.sheet([found])), np.asarray(report.sheet([bare]))
    changed = np.argwhere((with_given != without).any(2))
    assert 20 < len(changed) <= (report.INSET + 40) ** 2
