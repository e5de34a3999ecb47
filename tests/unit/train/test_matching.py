"""Distribution matching on tiny shapes: who learns when, from what, and what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.train.test_objectives import DATA, MODEL, config, flow, quiet, train

from fluxone.errors import BadRequest
from fluxone.lora.load import load_lora
from fluxone.train import checkpoint, loop, lowrank, objectives
from fluxone.train.config import TrainConfig
from fluxone.train.data.scenes import draw
from fluxone.train.export import export_adapters
from fluxone.train.objectives import matching
from fluxone.train.objectives.matching import MatchingObjective

pytest.importorskip("resvg_py")
LEAD = 2


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Beside a network that has learnt a little."""
    autoencoder = train(config("autoencoder", tmp_path_factory.mktemp("runs") / "autoencoder", 2))
    drew = train(flow(autoencoder, "flow", 4))
    made = config("matching", autoencoder.parent / "matching", 5)
    model = replace(MODEL, autoencoder=str(autoencoder), start=(str(drew),), frozen=("t5", "clip"), rank=4)
    return replace(made, model=model)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "LEAD", LEAD)


def test_the_shadow_learns_first_then_both_and_the_student_is_written(recipe: TrainConfig, tmp_path: Path) -> None:
    made = replace(recipe, out=str(tmp_path))
    trainer = loop.Trainer(made, objectives.make(made), quiet)
    objective = trainer.objective
    assert isinstance(objective, MatchingObjective)
    assert {part.split(".")[0] for part in trainer.params} == {"lora", "shadow"}
    before = {key: value.clone() for key, value in objective.teacher.state_dict().items()}

    def sizes(part: str) -> float:
        return sum(float(p.detach().abs().sum()) for key, p in trainer.params.items() if part in key and "up" in key)

    for _ in range(LEAD):
        trainer.advance()
    assert sizes("shadow.") > 0 == sizes("lora.")
    while not trainer.finished:
        trainer.advance()
    assert sizes("lora.") > 0
    for flux in (objective.teacher, objective.flux):
        assert all(torch.equal(value, before[key]) for key, value in flux.state_dict().items())
    with torch.no_grad():
        assert objective.validate().keys() == {"apart"}
    written = load_lora(export_adapters(made, tmp_path / "made.safetensors"))
    assert {delta.target.module for delta in written.deltas} == set(lowrank.layers(objective.flux))


def test_nothing_pulls_at_pictures_that_are_as_likely_as_the_teachers(recipe: TrainConfig) -> None:
    objective = objectives.make(recipe)
    assert isinstance(objective, MatchingObjective)
    asked = objective._asked(objective._given(0, slice(0, 4)))
    drawn = objective._walk(torch.randn(4, objective.side**2, 64), asked)
    assert float(objective._matched(drawn, asked, draw(1)).detach()) == 0  # a fresh shadow is the teacher
    with torch.no_grad():
        for p in objective.shadow.parameters():
            p.add_(0.1)
    loss = objective._matched(drawn, asked, draw(1))
    (pull,) = torch.autograd.grad(loss, drawn)
    assert float(loss.detach()) > 0
    assert float(pull.abs().max()) > 0


def test_words_alone_come_fresh_and_do_not_depend_on_how_many_processes_run(recipe: TrainConfig) -> None:
    objective = objectives.make(recipe)
    assert isinstance(objective, MatchingObjective)
    given = objective._given(3, slice(0, 8))
    assert torch.equal(objective._given(3, slice(2, 4)).ids, given.ids[2:4])
    assert not torch.equal(objective._given(4, slice(0, 8)).ids, given.ids)


def test_pictures_that_are_given_are_heard(recipe: TrainConfig, tmp_path: Path) -> None:
    data = replace(DATA, task="edit", drop=0.0)
    made = replace(recipe, data=data, steps=LEAD + 1, out=str(tmp_path / "edits"))
    objective = objectives.make(made)
    assert isinstance(objective, MatchingObjective)
    given = next(batch for step in range(9) if (batch := objective._given(step, slice(0, 8))).reference is not None)
    other = replace(given, reference=torch.zeros_like(given.reference))
    asked = [objective._asked(batch) for batch in (given, other)]
    noise = torch.randn(8, objective.side**2, 64)
    with torch.no_grad():
        one, two = (objective._walk(noise, each) for each in asked)
    assert not torch.equal(one, two)
    train(made)


def test_somebody_else_may_be_the_teacher(recipe: TrainConfig, tmp_path: Path) -> None:
    student = objectives.make(recipe)
    assert isinstance(student, MatchingObjective)
    taught = {f"transformer.{key}": p.detach() + 1 for key, p in student.teacher.named_parameters()}
    other = checkpoint.save(tmp_path / "other", {"average": taught}, {}).parent
    made = objectives.make(replace(recipe, model=replace(recipe.model, teacher=(str(other),))))
    assert isinstance(made, MatchingObjective)
    for flux in (made.teacher, made.follower):
        torch.testing.assert_close(flux.img_in.bias, student.teacher.img_in.bias + 1)
    torch.testing.assert_close(made.flux.img_in.bias, student.teacher.img_in.bias)


def test_a_whole_network_cannot_be_its_own_teacher(recipe: TrainConfig) -> None:
    with pytest.raises(BadRequest, match="rank is 0"):
        objectives.make(replace(recipe, model=replace(recipe.model, rank=0)))
