"""Pictures whose tokens several processes share: gradients and losses are those of one process."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from fluxone.errors import BadRequest
from fluxone.quant.apply import quantize
from fluxone.train.group import Group
from fluxone.tune.context import check, sharing
from fluxone.tune.learner import Tally
from fluxone.tune.memory import Memory, estimate
from fluxone.tune.recompute import recomputed
from fluxone.tune.swap import here
from fluxone.tune.trainer import Trainer, parts
from fluxone.variants import DEV, KONTEXT
from unit.tiny import TINY, pipeline
from unit.tune import made

WORLD, CONTEXT = 4, 2
EVERYWHERE = ("blocks", "modulation", "ends")
RUNS: dict[str, dict[str, Any]] = {
    "everywhere": {"batch": 3, "micro": 1, "targets": EVERYWHERE, "preserve": "blank", "kind": "dora"},
    "references": {"batch": 2, "drop_references": 0.0, "checkpointing": True},
    "packed, coming and going": {"batch": 2, "swap": 2},
    "rows": {"batch": 4, "micro": 2, "shard": True, "checkpointing": True},
}
Found = tuple[list[float], dict[str, Tensor], int]


def folder(place: Path) -> Path:
    """Pictures of 4 and of 3 tokens, each with another one as its reference."""
    made.pictures(place, 5, sizes=((32, 32), (48, 24)))
    rows = [{"file_name": f"{i}.png", "text": made.NAMES[i], "reference": f"{4 - i}.png"} for i in range(5)]
    (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return place


def stir(run: Trainer) -> None:
    """Numbers for all that is learnt, whatever process has which rows: half of a fresh adapter's gradients are 0."""
    for i, (name, p) in enumerate(run.params.items()):
        shape = p.shape if run.shards is None else run.shards.params[name].shape
        value = torch.randn(shape, generator=torch.Generator().manual_seed(i)) * shape[-1] ** -0.5
        p.data.copy_(value if run.shards is None else run.shards.spread(name, value))


def walked(name: str, place: Path, out: Path, group: Group | None = None) -> Found:
    """The losses of two steps, the gradients of the first, and of how many tokens a block knew."""
    given = {"clip": 1e9, "context": CONTEXT if group else 1, **RUNS[name]}
    chosen = made.settings(**given)
    variant = replace(TINY, takes=KONTEXT.takes) if name == "references" else TINY
    pipe = pipeline(out / "words", variant, offload="block" if chosen.swap else "none")
    if chosen.swap:
        quantize(pipe.transformer, "fp8", torch.float32)
    with here(pipe, chosen.swap) if chosen.swap else nullcontext():
        if chosen.checkpointing:
            recomputed(pipe.transformer)
        run = made.trainer(pipe, place, out / name, chosen, group=group)
        stir(run)
        seen: list[int] = []
        hook = pipe.transformer.double_blocks[0].img_mlp.register_forward_pre_hook(
            lambda module, given: seen.append(given[0].shape[1])
        )
        with run.sharing():
            for part in parts(run.group.share(chosen.batch), chosen.micro or chosen.batch):
                run.learner.backward(0, part, Tally())
        hook.remove()
        run._gathered()
        grads = {name: p.grad.clone() for name, p in run.params.items() if p.grad is not None}
        for p in run.params.values():
            p.grad = None
        losses = [run.advance().loss for _ in range(2)]
        with run.whole():
            if run.group.first:  # what it does alone, nobody waits for in the middle of
                losses.append(run.learner.checked(run.learner.material)["0.4"])
    return losses, grads, max(seen)


def one_of_four(rank: int, place: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/met", rank=rank, world_size=WORLD)
    group = Group(rank=rank, world=WORLD)
    torch.save({name: walked(name, place, out / f"{rank}", group) for name in RUNS}, out / f"{rank}.pt")
    with pytest.raises(BadRequest, match="2 heads for 4 processes"):
        sharing(pipeline(out / f"{rank}").transformer, replace(group, context=4))
    dist.destroy_process_group()


@pytest.mark.slow
def test_shared_tokens_learn_what_whole_pictures_teach(tmp_path: Path) -> None:
    place = folder(tmp_path / "pictures")
    set_forkserver_preload([Trainer.__module__])  # once for all four
    start: Any = mp.start_processes  # type: ignore[attr-defined]
    start(one_of_four, (place, tmp_path), WORLD, start_method="forkserver")
    told = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    for name, given in RUNS.items():
        losses, grads, tokens = walked(name, place, tmp_path / "alone")
        assert {one[name][2] for one in told} <= {tokens // 2, (tokens + 1) // 2}, name
        assert told[0][name][0] == pytest.approx(losses, rel=1e-5), name
        assert all(one[name][0] == pytest.approx(losses[:2], rel=1e-5) for one in told[1:]), name
        for key, right in grads.items():
            each = [one[name][1][key] for one in told]
            whole = [torch.cat(each)] if given.get("shard") else each
            assert all((found - right).norm() < 1e-5 * right.norm() for found in whole), f"{name}: {key}"


def test_the_estimate_knows_of_parts() -> None:
    def told(context: int, checkpointing: bool) -> Memory:
        given = made.settings(batch=1, context=context, checkpointing=checkpointing)
        return estimate(DEV.shape, (), given, tokens=4096, text=512, quant=None, width=2)

    for checkpointing in (False, True):
        one, two, four = (told(context, checkpointing) for context in (1, 2, 4))
        assert one.weights == two.weights == four.weights, "each has all of them"
        assert 0.5 * one.activations < two.activations < 0.67 * one.activations, "words are with both"
        assert 0.25 * one.activations < four.activations < two.activations


def test_numbers_that_do_not_go_together_are_told() -> None:
    for world, given, said in (
        (1, {"context": 2}, "1 process runs"),
        (3, {"context": 2}, "3 processes run"),
        (8, {"context": 2, "batch": 3}, "a batch of 3 for 4 shares of 2 processes"),
        (5, {"batch": 4}, "a batch of 4 for 5 processes"),
    ):
        chosen = made.settings(**given)
        with pytest.raises(BadRequest, match=said):
            check(Group(world=world, context=chosen.context), chosen)
    with pytest.raises(BadRequest, match="context is 0"):
        made.settings(context=0)
    shares = [Group(rank=rank, world=4, context=2).share(5) for rank in range(4)]
    assert shares == [slice(0, 2), slice(0, 2), slice(2, 5), slice(2, 5)]
