"""Blocks that come and go: the gradients of a network that is there as a whole, and never more than a block or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fluxone.errors import BadRequest
from fluxone.offload.moving import tensors_of
from fluxone.pipeline import Pipeline
from fluxone.quant.apply import quantize
from fluxone.train.group import Group
from fluxone.tune import shards, swap
from fluxone.tune.memory import estimate
from fluxone.tune.swap import Swap, chosen, here
from fluxone.tune.trainer import Trainer
from fluxone.variants import DEV
from unit.tiny import TINY, pipeline
from unit.tune import made

CPU = torch.device("cpu")
GIVEN = {"preserve": "blank", "targets": ("blocks", "modulation")}


class Elsewhere:
    """A device of which blocks are truly away when they are not there: at home they are then not even numbers."""

    def __init__(self, device: torch.device = CPU) -> None:
        self.true: dict[Tensor, Tensor] = {}
        self.away: list[Tensor] = []
        self.held, self.most, self.fetched = 0, 0, 0

    def fetch(self, modules: Sequence[nn.Module], device: torch.device) -> Callable[[], None]:
        places = [place for module in modules for place in tensors_of(module)]
        for slots, name, tensor in places:
            slots[name] = nn.Parameter(self.true[tensor], requires_grad=False)
        self.held, self.fetched = self.held + 1, self.fetched + 1
        self.most = max(self.most, self.held)

        def back() -> None:
            self.held -= 1
            for slots, name, tensor in places:
                slots[name] = tensor

        return back

    def wait(self) -> None:
        return

    def mark(self) -> None:
        return

    def take(self, own: Sequence[Sequence[nn.Module]]) -> None:
        """Let what belongs to these blocks be here alone."""
        for _, _, tensor in (place for modules in own for module in modules for place in tensors_of(module)):
            self.true[tensor] = tensor.detach().clone()
            tensor.data.fill_(torch.nan) if tensor.is_floating_point() else tensor.data.zero_()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """What stands in for the copies to an accelerator, with blocks that come ahead of their use."""
    lane = Elsewhere()

    def made_(offload: object, own: list[list[nn.Module]]) -> Swap:
        lane.take(own)
        return Swap(own, CPU, lane, ahead=True)

    monkeypatch.setattr(swap, "_made", made_)
    return lane


def run_of(pipe: Pipeline, tmp_path: Path, name: str, **more: object) -> Trainer:
    return made.trainer(pipe, tmp_path / "pictures", tmp_path / name, made.settings(**GIVEN, **more))


def walked(run: Trainer, steps: int = 2) -> tuple[list[float], dict[str, Tensor]]:
    losses = [run.advance().loss for _ in range(steps)]
    return losses, {name: p.detach().clone() for name, p in run.params.items()}


@pytest.mark.parametrize("count", [3, 4])
def test_the_gradients_are_those_of_the_whole(count: int, elsewhere: Elsewhere, tmp_path: Path) -> None:
    made.pictures(tmp_path / "pictures", 3)
    losses, learnt = walked(run_of(pipeline(tmp_path / "words"), tmp_path, "whole"))
    pipe = pipeline(tmp_path / "words", offload="block")
    with here(pipe, count):
        run = run_of(pipe, tmp_path, "swapped")
        told, found = walked(run)
        run.learner.checked(run.learner.material)
        again = [float(run.learner.losses(run.learner.material.fixed(0, 0.5)).detach()) for _ in range(2)]
        assert again[0] == again[1]
    assert told == losses
    assert all(torch.equal(found[name], value) for name, value in learnt.items())
    assert elsewhere.most == min(count, 2) and elsewhere.held == 0 and elsewhere.fetched >= 4 * (2 * count - 1)


def test_blocks_home_in_a_file_beside_packed_layers(tmp_path: Path) -> None:
    made.pictures(tmp_path / "pictures", 3)
    results = []
    for mode, count in (("none", 0), ("disk", 4), ("block", 0)):
        pipe = pipeline(tmp_path / "words", offload=mode)
        quantize(pipe.transformer, "fp8", torch.float32)
        with here(pipe, count):
            results.append(walked(run_of(pipe, tmp_path, mode, kind="dora")))
        assert ("transformer" in pipe.on_device.spills) == (mode == "disk")
        assert all(not hasattr(vars(block).get("forward"), "func") for block in pipe.transformer.single_blocks)
    for losses, learnt in results[1:]:
        assert losses == results[0][0]
        assert all(torch.equal(learnt[name], value) for name, value in results[0][1].items())


def test_blocks_are_chosen_evenly() -> None:
    assert chosen(57, 57) == chosen(57, 99) == list(range(57))
    assert chosen(6, 3) == [1, 3, 5] and chosen(5, 0) == []
    gaps = [b - a for a, b in zip(chosen(57, 20), chosen(57, 20)[1:], strict=False)]
    assert set(gaps) == {2, 3}


def test_the_estimate_knows_of_it() -> None:
    def weights(count: int, quant: str | None = "fp8") -> float:
        given = made.settings(swap=count, rank=16)
        return estimate(DEV.shape, (), given, tokens=256, text=512, quant=quant, width=2).weights

    assert weights(0) == pytest.approx(14.2, abs=0.2)
    assert [weights(n) for n in (1, 20, 40, 57)] == sorted((weights(n) for n in (1, 20, 40, 57)), reverse=True)
    assert weights(57) < 1.5 < weights(57, None) < 2.5


def test_weights_that_are_shared_do_not_come_and_go() -> None:
    with pytest.raises(BadRequest, match="swap"):
        shards.check(Group(rank=0, world=2), made.settings(swap=2))
    assert TINY.shape.double_blocks + TINY.shape.single_blocks == 4, "what the tests above count on"
