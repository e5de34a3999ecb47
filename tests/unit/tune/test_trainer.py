"""The loop: parts equal the whole, what goes on equals what was never ended, and what is no number ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import multiprocessing as mp

from fluxone.errors import BadRequest, BrokenModel
from fluxone.lines import read_lines
from fluxone.train import checkpoint
from fluxone.train.group import Group
from fluxone.tune import shards
from fluxone.tune.kinds import KINDS
from fluxone.tune.learner import Tally
from fluxone.tune.optimizers import OPTIMIZERS
from fluxone.tune.recompute import recomputed
from fluxone.tune.trainer import LOG, Trainer, parts
from unit.tiny import pipeline
from unit.tune import made


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.params.items()}


def walked(place: Path, out: Path, steps: int, **given: object) -> Trainer:
    run = made.trainer(pipeline(out / "words"), place, out, made.settings(**given))
    for _ in range(steps):
        run.advance()
    return run


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_accumulation_equals_the_big_batch(micro: int, tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 5, sizes=((32, 32), (48, 24)))
    run = walked(place, tmp_path, 1)
    for step in (1, 2):
        grads, losses = [], []
        for most in (4, micro):
            tally = Tally()
            for part in parts(slice(0, 4), most):
                run.learner.backward(step, part, tally)
            grads.append({name: p.grad.clone() for name, p in run.params.items() if p.grad is not None})
            losses.append(tally.flow / tally.count)
            for p in run.params.values():
                p.grad = None
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        for name, grad in grads[0].items():
            torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_going_on_equals_never_ending_to_the_last_bit(optimizer: str, tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 5)
    given = {"optimizer": optimizer, "ema": 0.9, "rate": 1.0 if optimizer == "prodigy" else 1e-2}
    never = walked(place, tmp_path / "never", 6, **given)
    first = walked(place, tmp_path / "ended", 3, **given)
    first.notes["looks"] = [{"step": 3}]
    first.save()
    first.advance()  # beyond the checkpoint: lost with the process
    second = made.trainer(pipeline(tmp_path / "words"), place, tmp_path / "ended", made.settings(**given))
    assert second.resume() and second.step == 3 and second.notes == {"looks": [{"step": 3}]}
    while second.step < 6:
        second.advance()
    assert all(torch.equal(weights(second)[name], value) for name, value in weights(never).items())
    state, other = never.optimizer.state(), second.optimizer.state()
    assert all(torch.equal(other[name], value) for name, value in state.items())
    with never.averaged(), second.averaged():
        assert all(torch.equal(weights(second)[name], value) for name, value in weights(never).items())
    logs = [read_lines(run.folder / LOG) for run in (never, second)]
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in log] for log in logs]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_learns_and_the_base_rests(kind: str, tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 3)
    run = made.trainer(pipeline(tmp_path / "words"), place, tmp_path, made.settings(kind=kind, drop=0.0))
    network = run.learner.network
    base = {name: p.detach().clone() for name, p in network.named_parameters() if ".adapters." not in name}
    batch = run.learner.material.batch(0, slice(0, 4))
    before = float(run.learner.losses(batch).detach().mean())
    for _ in range(12):
        run.advance()
    assert float(run.learner.losses(batch).detach().mean()) < before
    now = dict(network.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in base.items())


def test_blocks_computed_twice_give_the_same_gradients(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 3)
    plain = walked(place, tmp_path / "plain", 3)
    twice = made.trainer(pipeline(tmp_path / "w"), place, tmp_path / "twice", made.settings())
    recomputed(twice.learner.network)
    for _ in range(3):
        twice.advance()
    assert all(torch.equal(weights(twice)[name], value) for name, value in weights(plain).items())


def test_what_is_no_number_ends_the_run_with_a_dump(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 3)
    run = walked(place, tmp_path, 2)
    run.save()
    kept = weights(run)
    with torch.no_grad():
        next(iter(run.params.values()))[0, 0] = torch.nan
    with pytest.raises(BrokenModel, match=r"step 2 of .*png"):
        run.advance()
    found = checkpoint.load(tmp_path / "state" / "broken")
    assert found is not None and found[1]["step"] == 2 and found[1]["pictures"] and "x" in found[0]["batch"]
    again = made.trainer(pipeline(tmp_path / "w"), place, tmp_path, made.settings())
    assert again.resume() and all(torch.equal(weights(again)[name], value) for name, value in kept.items())


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 3)
    walked(place, tmp_path, 1).save()
    other = made.trainer(pipeline(tmp_path / "w"), place, tmp_path, made.settings(rate=0.5))
    with pytest.raises(BadRequest, match=r"rate 0\.01"):
        other.resume()
    longer = made.trainer(pipeline(tmp_path / "w"), place, tmp_path, made.settings(steps=99))
    longer.data = "other pictures"
    with pytest.raises(BadRequest, match="other pictures"):
        longer.resume()
    longer.data = "pictures"
    assert longer.resume()


def test_a_log_that_a_crash_cut_is_read(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "lo', encoding="utf-8")
    assert read_lines(tmp_path / LOG) == [{"step": 1}]


def test_preserving_asks_for_the_base(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 3)
    run = made.trainer(pipeline(tmp_path / "w"), place, tmp_path, made.settings(preserve="blank", preserve_weight=5.0))
    for _ in range(4):
        run.advance()
    rows = [json.loads(line) for line in (tmp_path / "state" / "log.jsonl").read_text("utf-8").splitlines()]
    assert rows[0]["kept"] == 0 and rows[-1]["kept"] > 0


ALONE = {"batch": 5}
SHARED = {"batch": 4, "micro": 1, "kind": "full", "ema": 0.9, "preserve": "blank"}


def one_of_two(rank: int, place: Path, out: Path) -> None:
    """What each of two processes does: gradients shared for an adapter; weights too for a full fine-tune."""
    torch.set_num_threads(1)
    group = Group(rank=rank, world=2)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/met", rank=rank, world_size=2)
    run = made.trainer(pipeline(out / f"words{rank}"), place, out / str(rank), made.settings(**ALONE), group=group)
    losses = [run.advance().loss for _ in range(3)]
    torch.save((losses, weights(run)), out / f"{rank}.pt")

    chosen = made.settings(**SHARED)
    run = made.trainer(pipeline(out / f"words{rank}"), place, out / "shared", chosen, group=group)
    losses = [run.advance().loss for _ in range(2)]
    run.save()
    run.save()  # beside the one before, which stays until it is whole
    losses += [run.advance().loss for _ in range(2)]
    with run.averaged(), run.whole():
        looked = weights_of(run.learner.beside)
        velocity = run.learner.velocity(run.learner.material.batch(0, slice(0, 2))).detach()
    losses.append(run.advance().loss)
    again = made.trainer(pipeline(out / f"again{rank}"), place, out / "shared", chosen, group=group)
    assert again.resume() and again.step == 2
    for loss in losses[2:]:
        assert again.advance().loss == loss
    assert all(torch.equal(again.params[name], row) for name, row in run.params.items())
    torch.save((losses, looked, velocity), out / f"shared{rank}.pt")
    torch.distributed.destroy_process_group()


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 5)
    mp.spawn(one_of_two, args=(place, tmp_path), nprocs=2)  # type: ignore[attr-defined]
    alone = made.trainer(pipeline(tmp_path / "words"), place, tmp_path / "alone", made.settings(**ALONE))
    losses = [alone.advance().loss for _ in range(3)]
    full = made.trainer(pipeline(tmp_path / "words"), place, tmp_path / "full", made.settings(**SHARED))
    full_losses = [full.advance().loss for _ in range(4)]
    with full.averaged():
        averaged = weights(full)
        velocity = full.learner.velocity(full.learner.material.batch(0, slice(0, 2))).detach()
    full_losses.append(full.advance().loss)
    for rank in (0, 1):
        told, learnt = torch.load(tmp_path / f"{rank}.pt")
        assert told == pytest.approx(losses, rel=1e-5)
        # Adam's first steps are as long whatever the gradient: where that is 0 but for rounding, they may differ.
        assert all((learnt[name] - value).abs().mean() < 1e-5 for name, value in weights(alone).items())
        told, looked, drawn = torch.load(tmp_path / f"shared{rank}.pt")
        assert told == pytest.approx(full_losses, rel=1e-5)
        assert all((looked[name] - value).abs().mean() < 1e-5 for name, value in averaged.items())
        assert (drawn - velocity).abs().mean() < 1e-4
    one = made.trainer(pipeline(tmp_path / "words"), place, tmp_path / "shared", made.settings(**SHARED))
    assert one.resume() and one.step == 2, "one process goes on with what two have left"
    assert [one.advance().loss for _ in range(3)] == pytest.approx(full_losses[2:], rel=1e-5)
    one.save()
    assert not list((tmp_path / "shared" / "state").glob("shards*"))


def test_what_cannot_be_shared_is_told(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 3)
    run = made.trainer(pipeline(tmp_path / "words"), place, tmp_path, made.settings())
    with pytest.raises(BadRequest, match="a batch of 4 for 8 processes"):
        Trainer(run.learner, run.settings, tmp_path, data="", group=Group(rank=0, world=8))
    for given, said in (({"optimizer": "muon"}, "more than single"), ({"batch": 5}, "as much for each")):
        with pytest.raises(BadRequest, match=said):
            shards.check(Group(rank=0, world=2), made.settings(**given))
