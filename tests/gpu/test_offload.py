"""On an accelerator: every offload mode draws the same picture bit for bit, and holds less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fluxone.geometry import Resolution
from fluxone.request import Request
from fluxone.tune.recompute import recomputed
from fluxone.tune.swap import here
from unit.tiny import TINY, pipeline
from unit.tune import made

pytestmark = pytest.mark.gpu
ASKED = Request(prompt="a red car", negative="blur", cfg=2.0, resolution=Resolution(height=48, width=32), steps=3)
WIDE = replace(TINY, shape=replace(TINY.shape, hidden=512, heads=32, double_blocks=4, single_blocks=8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_mode_draws_the_same_and_holds_less(tmp_path: Path, dtype: torch.dtype) -> None:
    pictures, held = [], []
    for mode in ("none", "model", "block"):
        pipe = pipeline(tmp_path, WIDE, dtype, device="cuda", offload=mode)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        pictures.append(list(pipe.steps(ASKED))[-1].x.cpu())
        held.append(torch.cuda.max_memory_allocated() - before)
        assert len(pipe(ASKED).images) == 1
        del pipe
    assert torch.equal(pictures[0], pictures[1]) and torch.equal(pictures[0], pictures[2])
    assert held[2] < held[1] < held[0]


def test_the_accelerator_draws_what_the_cpu_draws(tmp_path: Path) -> None:
    one, other = (list(pipeline(tmp_path, device=device).steps(ASKED))[-1].x.cpu() for device in ("cpu", "cuda"))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-2)


def test_blocks_that_come_and_go_while_it_learns_hold_less_and_give_the_same(tmp_path: Path) -> None:
    made.pictures(tmp_path / "pictures", 3)
    learnt, held = [], []
    for count in (0, 6, 12):
        pipe = pipeline(tmp_path, WIDE, device="cuda", offload="block" if count else "none")
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with here(pipe, count):
            run = made.trainer(pipe, tmp_path / "pictures", tmp_path / str(count), made.settings())
            if not count:
                recomputed(pipe.transformer)
            for _ in range(3):
                run.advance()
        held.append(torch.cuda.max_memory_allocated() - before)
        learnt.append({name: p.detach().cpu() for name, p in run.params.items()})
        del run, pipe
    for other in learnt[1:]:
        assert all(torch.equal(other[name], value) for name, value in learnt[0].items())
    assert held[2] < held[1] < held[0]
