"""Distillation: the targets are what they say, and after some steps fewer steps are nearer to the teacher's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fluxone.errors import BadRequest, UnknownName
from fluxone.sampling.schedule import DEV_SHIFT, SCHEDULES
from fluxone.tune import folder as folders
from fluxone.tune.beside import Beside, fresh
from fluxone.tune.cache import Cache
from fluxone.tune.distil import GuidanceLearner, StepsLearner
from fluxone.tune.distilling import Distillation, _draw, distil
from fluxone.tune.kinds import Size
from fluxone.tune.learner import Tally
from fluxone.tune.material import Material
from fluxone.tune.settings import Settings
from unit.tiny import TINY, pipeline
from unit.tune import made


def parts(tmp_path: Path, **given: object) -> tuple[object, Beside, Material, Settings]:
    place = made.pictures(tmp_path / "pictures", 4)
    tiny = pipeline(tmp_path / "words")
    chosen = made.settings(drop=0.0, law="uniform", rank=8, **given)
    beside = Beside(tiny.transformer, fresh(tiny.transformer, "lora", ("blocks",), Size(rank=8, alpha=8), 0))
    material = Material(tiny, Cache(tiny, tmp_path / "cache"), chosen, folders.read(place))
    material.prepare()
    return tiny, beside, material, chosen


def test_one_step_of_a_teacher_is_the_teacher(tmp_path: Path) -> None:
    """With one inner step the target is the teacher's own velocity, and nothing is to be learnt."""
    tiny, beside, material, chosen = parts(tmp_path)
    learner = StepsLearner(tiny, beside, material, chosen, steps=2, inner=1, guidance=3.5, cfg=1.0)  # type: ignore[arg-type]
    losses = learner.losses(material.batch(0, slice(0, 4)))
    assert losses.detach().max() < 1e-9
    more = StepsLearner(tiny, beside, material, chosen, steps=2, inner=3, guidance=3.5, cfg=1.0)  # type: ignore[arg-type]
    assert more.losses(material.batch(0, slice(0, 4))).detach().min() > 1e-6


def test_the_target_is_the_walk(tmp_path: Path) -> None:
    tiny, beside, material, chosen = parts(tmp_path)
    learner = StepsLearner(tiny, beside, material, chosen, steps=2, inner=4, guidance=3.5, cfg=2.0)  # type: ignore[arg-type]
    levels = SCHEDULES["shifted"](2, 4, DEV_SHIFT)
    batch = replace(material.batch(0, slice(0, 1)), sigma=torch.tensor([0.999]))
    start = replace(batch, sigma=torch.tensor([levels[0]]))
    x, stride = start.state, (levels[0] - levels[1]) / 4
    empty = material.texts([""])
    with torch.no_grad():
        for i in range(4):
            here = torch.tensor([levels[0] - i * stride])
            v, away = (
                learner.velocity(
                    replace(start, sigma=here, txt=txt, pooled=pooled), state=x, guidance=torch.tensor([3.5])
                )
                for txt, pooled in ((batch.txt, batch.pooled), empty)
            )
            x = x - stride * (away + 2.0 * (v - away))
        target = (start.state - x) / (levels[0] - levels[1])
        own = learner.velocity(start, guidance=torch.tensor([3.5]))
        assert float(learner.losses(batch)) == pytest.approx(float((own - target).square().mean()), rel=1e-4)


@pytest.mark.parametrize("way", ["steps", "guidance"])
def test_it_learns(way: str, tmp_path: Path) -> None:
    tiny, beside, material, chosen = parts(tmp_path)
    made_by = (tiny, beside, material, chosen)
    learner = (
        StepsLearner(*made_by, steps=2, inner=4, guidance=3.5, cfg=1.0)  # type: ignore[arg-type]
        if way == "steps"
        else GuidanceLearner(*made_by)  # type: ignore[arg-type]
    )
    adam = torch.optim.Adam(beside.parameters(), 5e-3)
    batch = material.batch(0, slice(0, 4))
    before = float(learner.losses(batch).detach().mean())
    for step in range(25):
        adam.zero_grad()
        learner.backward(step, slice(0, 4), Tally())
        adam.step()
    assert float(learner.losses(batch).detach().mean()) < 0.8 * before


@pytest.mark.parametrize("student", [False, True])
def test_pictures_are_of_the_walk_that_is_distilled(student: bool, tmp_path: Path) -> None:
    plain, noisy = (
        pipeline(tmp_path / name, replace(TINY, sampler=name)) for name in ("euler", "euler_ancestral")
    )
    asked = Distillation(model="tiny", prompts=("a fox",), few=3, teacher_steps=4)
    one, other = (_draw(pipe, asked, "a fox", 5, student=student) for pipe in (plain, noisy))
    assert one.tobytes() == other.tobytes()


def test_a_network_without_guidance_cannot_be_told(tmp_path: Path) -> None:
    plain = replace(TINY, shape=replace(TINY.shape, guided=False))
    tiny = pipeline(tmp_path / "words", plain)
    beside = Beside(tiny.transformer, fresh(tiny.transformer, "lora", ("blocks",), Size(rank=2, alpha=2), 0))
    chosen = made.settings()
    place = made.pictures(tmp_path / "pictures", 2)
    material = Material(tiny, Cache(tiny, tmp_path / "cache"), chosen, folders.read(place))
    with pytest.raises(BadRequest, match="cannot be told a guidance"):
        GuidanceLearner(tiny, beside, material, chosen)


def test_what_is_asked_is_checked() -> None:
    with pytest.raises(BadRequest, match="no prompts"):
        Distillation()
    with pytest.raises(UnknownName, match="did you mean 'steps'"):
        Distillation(prompts=("a",), way="step")
    for given, said in (({"swap": 3}, "a teacher is whole"), ({"context": 2}, "one process distils")):
        with pytest.raises(BadRequest, match=said):
            distil(Distillation(prompts=("a",), train=given))
