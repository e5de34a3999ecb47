"""On an accelerator: every offload mode draws the same picture bit for bit, and holds less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fluxone.geometry import Resolution
from fluxone.request import Request
from unit.tiny import TINY, pipeline

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
