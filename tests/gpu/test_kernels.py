"""On an accelerator: the Triton passes against plain blocks, fp8 products, attention backends, the autoencoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fluxone.bench.nets import Case, Given, ours, weights
from fluxone.nn.attention import ATTENTION, EXACT, measured, quickest
from fluxone.quant import fp8
from fluxone.quant.apply import quantize
from fluxone.quant.fused import fuse, passes_for
from fluxone.shapes import FluxShape

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)
CASE = Case(
    name="small", grid=(16, 16), text=64,
    shape=FluxShape(hidden=512, heads=4, double_blocks=2, single_blocks=3, text_dim=512, vec_dim=256),
)  # fmt: skip


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are at work."""
    monkeypatch.setenv("FLUXONE_TRITON", "1")


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


@torch.inference_mode()
def velocity(dtype: torch.dtype, quant: str | None = None, *, fused: bool = False) -> Tensor:
    state = weights(CASE, CUDA, torch.float32)
    exact = ours(CASE, state)
    given = Given.of(CASE, CUDA, dtype)
    modulation = Given.of(CASE, CUDA, torch.float32).modulation(exact).each(lambda rows: rows.to(dtype))
    model = ours(CASE, {name: tensor.to(dtype) for name, tensor in state.items()})
    if quant is not None:
        quantize(model, quant, dtype)
    if fused:
        fuse(model)
        block = model.single_blocks[0]
        assert passes_for(block, given.txt.new_zeros(1, 8, CASE.shape.hidden), given.pe) is not None
    return given.step(model, modulation, 3)


def test_few_passes_are_nearer_to_the_truth_in_bfloat16() -> None:
    exact = velocity(torch.float32)
    assert error(velocity(torch.float32, fused=True), exact) < 2e-3  # products of float32 may be in TF32
    assert error(velocity(torch.bfloat16, fused=True), exact) < 1.1 * error(velocity(torch.bfloat16), exact)


def test_fp8_products_lose_what_fp8_loses() -> None:
    if not fp8.units(CUDA):
        pytest.skip("this GPU has no fp8 units")
    exact = velocity(torch.float32)
    assert error(velocity(torch.bfloat16, "fp8-dynamic", fused=True), exact) < 0.1


def test_every_backend_that_works_attends_alike() -> None:
    q, k, v = torch.randn(3, 1, 4, 300, 128, device=CUDA, dtype=torch.bfloat16).unbind(0)
    there = measured(CUDA, torch.bfloat16, tokens=300, heads=4, size=128)
    assert {"sdpa", "flash"} <= there.keys() <= set(EXACT)
    expected = ATTENTION["matmul"](q.float(), k.float(), v.float())
    for name in there:
        assert error(ATTENTION[name](q, k, v), expected) < 0.01, name
    assert quickest(CUDA, torch.bfloat16, tokens=300, heads=4, size=128) in there


def graphs_of_sizes() -> list[int]:
    """How many graphs torch had compiled after each of twenty sizes."""
    state = {name: tensor.bfloat16() for name, tensor in weights(CASE, CUDA, torch.float32).items()}
    model = ours(CASE, state)
    modulation = Given.of(CASE, CUDA, torch.bfloat16).modulation(model)
    for block in (*model.double_blocks, *model.single_blocks):
        block.compile()
    torch._dynamo.utils.counters.clear()
    seen = []
    for side in range(8, 28):
        given = Given.of(Case(name="x", shape=CASE.shape, grid=(side, 16), text=64), CUDA, torch.bfloat16)
        with torch.inference_mode():
            given.step(model, modulation, 0)
        seen.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    return seen


def test_compiled_blocks_do_not_compile_again_for_every_size() -> None:
    """In a process of its own: torch cannot compile through the checks of types that tests have."""
    command = [sys.executable, "-c", "import test_kernels; print(test_kernels.graphs_of_sizes())"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen[-1] == seen[2] > 0, "after the second size graphs serve all sizes"
