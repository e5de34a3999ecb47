"""What is planned: exact weights, activations as the code really needs them, choices that fit, a way down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fluxone import fitting
from fluxone.assembly import assemble
from fluxone.cli.main import run
from fluxone.cli.plan import read_bytes
from fluxone.errors import BadRequest
from fluxone.extent import extent_of, shapes_of
from fluxone.geometry import Resolution
from fluxone.machine import CPU_QUANTS, MACHINES, Machine, available
from fluxone.nn.peak import Peak
from fluxone.plan import Budget, Choice, best, choices, estimate, useful, weights
from fluxone.quant.apply import quantize, settle
from fluxone.recipe import Recipe
from fluxone.request import Request
from fluxone.variants import MINI
from unit.tiny import pipeline

GB = 10**9
DEV_SIZE = Resolution(width=1024, height=1024)
CPU = Machine(
    name="a cpu", kind="cpu", rates={"float32": 1e11, "bfloat16": 2e11, "int8-dynamic": 4e11}, decode=5e10,
    memory=1e10, device=24 * GB, quants=CPU_QUANTS,
)  # fmt: skip


def dev(size: Resolution = DEV_SIZE, name: str = "dev"):
    variant, shapes, packed = shapes_of(name, Recipe())
    return extent_of(variant, shapes, size, packed)


def test_the_published_network_has_its_published_numbers() -> None:
    extent = dev()
    whole = extent.transformer.packed + extent.transformer.rest + extent.modulators
    assert whole == 11_901_408_320
    assert extent.modulators == pytest.approx(3.2286e9, rel=0.02)
    assert extent.linear_flops + extent.attention_flops == pytest.approx(74.385e12, rel=0.01)
    assert extent.text_flops == pytest.approx(4.845e12, rel=0.03)
    assert extent.decode_flops == pytest.approx(10.47e12, rel=0.06)
    schnell = dev(name="schnell")
    assert schnell.linear_flops + schnell.attention_flops == pytest.approx(69.467e12, rel=0.01)
    assert dev(name="kontext").tokens == 2 * 4096 + 512


@pytest.mark.parametrize("quant", [None, "fp8", "int8-dynamic", "nf4"])
def test_bytes_of_weights_are_exact(quant: str | None) -> None:
    pipe = assemble("mini", Recipe(device="cpu", dtype="bfloat16"))
    network = pipe.transformer
    settle(network, torch.bfloat16)
    if quant is not None:
        quantize(network, quant, torch.bfloat16)
    own = sum(t.numel() * t.itemsize for t in (*network.parameters(), *network.buffers()))
    variant, shapes, packed = shapes_of("mini", Recipe())
    extent = extent_of(variant, shapes, Resolution(width=128, height=128), packed)
    told = weights(extent, Choice(dtype="bfloat16", quant=quant))
    assert told["transformer"] + told["modulators"] == own
    assert told["autoencoder"] == sum(4 * parameter.numel() for parameter in pipe.autoencoder.parameters())


def test_peak_counts_what_lives_at_once() -> None:
    x = torch.empty(1000, device="meta")
    with Peak() as peak:
        for _ in range(3):
            y = x + 1
            z = y * 2
            del y
            y = z.view(10, 100)
            y.add_(1)
            del y, z
    assert (peak.most, peak.now) == (8000, 0)


def test_each_mode_needs_less_than_the_one_before() -> None:
    extent, machine = dev(), MACHINES["rtx4090"]
    needs = [estimate(extent, Choice(dtype="bfloat16", offload=mode), machine, 28) for mode in fitting.LADDER]
    assert [one.device for one in needs] == sorted((one.device for one in needs), reverse=True)
    assert needs[0].device > 34 * GB > 24 * GB > needs[1].device > needs[2].device > 17 * GB > needs[3].device
    assert needs[0].total < needs[3].total and needs[0].host < needs[3].host


@pytest.mark.parametrize("gigabytes", [24, 16, 12, 8, 6])
def test_there_is_a_plan_for_every_card(gigabytes: int) -> None:
    recipe = Recipe(quant="auto", offload="auto")
    found = choices(dev(), recipe, MACHINES["rtx4090"], 28)
    budget = Budget(device=int(gigabytes * 0.95 * GB), host=32 * GB)
    chosen = best(found, budget)
    assert chosen is not None and budget.holds(chosen)
    assert not any(budget.holds(one) and one.total < 0.95 * chosen.total for one in found)
    assert chosen.choice.of(recipe).quant == chosen.choice.quant
    assert chosen.total in {one.total for one in useful([one for one in found if budget.holds(one)])}


def test_a_processor_with_24_gb_draws_with_the_real_network() -> None:
    extent = dev(Resolution(width=256, height=256), "schnell")
    found = choices(extent, Recipe(quant="auto", offload="auto"), CPU, 4)
    chosen = best(found, Budget(device=int(20.5 * GB), host=0))
    assert chosen is not None and chosen.choice.quant == "int8-dynamic" and chosen.choice.dtype == "bfloat16"


def test_what_the_recipe_decides_stays() -> None:
    recipe = Recipe(dtype="float32", quant="int8", offload="auto", tiled=True)
    rows = choices(dev(), recipe, MACHINES["h200"], 28)
    assert {(one.choice.dtype, one.choice.quant, one.choice.tiled) for one in rows} == {("float32", "int8", True)}
    packed = replace(dev(), packed="fp8")
    rows = choices(packed, Recipe(quant="auto"), MACHINES["h200"], 28)
    assert {one.choice.quant for one in rows} == {"fp8", "fp8-dynamic"}


def test_auto_plans_and_draws() -> None:
    pipe = assemble("mini", Recipe(device="cpu", quant="auto", offload="auto"))
    assert pipe.recipe.quant in CPU_QUANTS and pipe.recipe.offload == "none"
    assert pipe.yielding and pipe.recipe.dtype in ("float32", "bfloat16")
    assert len(pipe(Request(prompt="a red car", steps=2)).images) == 1


def test_nothing_that_fits_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "free", lambda device: (10**6, 10**6))
    with pytest.raises(BadRequest, match=r"mini needs 0\.\d GB on cpu"):
        assemble("mini", Recipe(device="cpu", quant="auto", offload="auto"))


def test_out_of_memory_it_steps_down_and_the_picture_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Request(prompt="a red car", steps=2)
    expected = pipeline(tmp_path)(asked).images[0].tobytes()
    pipe = pipeline(tmp_path)
    pipe.yielding, network, failures = True, pipe.transformer.predict, iter([True, False, True])

    def predict(*given: object) -> torch.Tensor:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(*given)

    monkeypatch.setattr(pipe.transformer, "predict", predict)
    assert pipe(asked).images[0].tobytes() == expected
    assert (pipe.on_device.mode, pipe.recipe.offload, pipe.recipe.tiled) == ("lean", "lean", True)
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory: going on with offload none, tiled", "out of memory: going on with offload lean, tiled",
    ]  # fmt: skip


def test_where_the_recipe_decided_or_no_rung_is_left_the_error_stays(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    pipe = pipeline(tmp_path)
    with pytest.raises(RuntimeError, match="allocate"):
        fitting.enduring(pipe, fail)
    assert pipe.on_device.mode == "none"
    pipe.yielding = True
    with pytest.raises(RuntimeError, match="allocate"):
        fitting.enduring(pipe, fail)
    assert pipe.on_device.mode == "disk"


def test_the_command_tells_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--model", "dev", "--vram", "12G", "--ram", "32G", "--machine", "rtx4070"]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "QUANT" and first.endswith("yes") and float(first.split()[5]) <= 12
    assert run(["plan", "--model", "mini", "--machine", "h100", "--json", "--all"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["size"] == f"{MINI.size}x{MINI.size}" and len(told["choices"]) > 50
    assert run(["plan", "--model", "dev", "--vram", "1G", "--machine", "h100"]) == 2
    assert "nothing fits 1.0 GB" in capsys.readouterr().err
    assert run(["plan", "--vram", "many"]) == 2 and run(["plan", "--machine", "cray"]) == 2


def test_sizes_of_memory() -> None:
    told = [read_bytes(text) for text in ("12G", "12", "800MiB", "1.5gb")]
    assert told == [12 * GB, 12 * GB, 800 * 10**6, 1500 * 10**6]
    assert available() > GB
