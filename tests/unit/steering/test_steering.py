"""ControlNets and IP-Adapters inside the network: which block gets what, what they leave alone, compiled blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.nn.controlnet import ControlNet, Residuals, added
from fluxone.nn.ip_adapter import IpAdapter
from fluxone.nn.rope import rotation
from fluxone.nn.transformer import Flux
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from fluxone.shapes import ControlNetShape, FluxShape, IpAdapterShape
from fluxone.steering.steer import Hint
from fluxone.variants import Kind
from unit.tiny import TINY, pipeline

SHAPE = FluxShape(
    in_channels=8, out_channels=8, hidden=32, heads=2, axes=(4, 6, 6), double_blocks=5, single_blocks=7, text_dim=6,
    vec_dim=10,
)  # fmt: skip


def flux() -> Flux:
    torch.manual_seed(0)
    return Flux(SHAPE).requires_grad_(False).eval()


def inputs(model: Flux, img: Tensor) -> dict[str, Any]:
    ids = torch.zeros(3 + img.shape[1], 3)
    vec = model.vector(torch.tensor([0.5]), torch.tensor([3.0]), torch.ones(1, 10))
    return {
        "img": img,
        "txt": torch.ones(1, 3, 6),
        "pe": rotation(ids, SHAPE.axes, SHAPE.theta),
        "modulation": model.modulation(vec),
    }


@pytest.mark.parametrize(
    ("cycle", "double", "single"),
    [
        # 5 double blocks, 7 single ones; 2 and 3 residuals
        (False, [0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 2]),
        (True, [0, 1, 0, 1, 0], [0, 1, 2, 0, 1, 2, 0]),
    ],
)
def test_which_block_gets_which_residual(cycle: bool, double: list[int], single: list[int]) -> None:
    """Source: diffusers, `FluxTransformer2DModel.forward`: `index // ceil(blocks / own)`, and XLabs' `index % own`."""
    model, img = flux(), torch.randn(1, 4, 8)
    given = inputs(model, img)
    plain: list[Tensor] = []
    seen: list[Tensor] = []
    blocks = [*model.double_blocks, *model.single_blocks]

    def keep(kept: list[Tensor]) -> list[Any]:
        def hook(block: Any, args: Any, result: Any) -> None:
            kept.append((args[0], (result[0] if isinstance(result, tuple) else result).clone()))

        return [block.register_forward_hook(hook) for block in blocks]

    own = Residuals(
        double=tuple(torch.full((1, 4, 32), 10.0**-i) for i in range(2)),
        single=tuple(torch.full((1, 4, 32), 7.0 * 10**-i) for i in range(3)),
        cycle=cycle,
    )
    for kept, residuals in ((plain, []), (seen, [own])):
        hooks = keep(kept)  # before the residuals' own: they see what the block itself gives
        with added(model, residuals, text=3):
            model.predict(**given)
        for hook in hooks:
            hook.remove()
    gained = []
    for (_, result), (following, _) in pairwise(seen):
        start = following.shape[1] - 4
        gained.append((following[:, start:] - result[:, result.shape[1] - 4 :]).mean().item())
    wanted = [10.0**-i for i in double] + [7.0 * 10**-i for i in single]
    assert gained == pytest.approx(wanted[: len(gained)], rel=1e-3)
    assert not any(block._forward_hooks for block in blocks)


def test_references_get_no_residual() -> None:
    """A reference's tokens (Kontext) stand behind the picture's own: a residual is as long as those."""
    model, img = flux(), torch.randn(1, 6, 8)
    seen: list[Tensor] = []
    watch = model.double_blocks[1].register_forward_pre_hook(lambda block, args: seen.append(args[0].clone()))
    residual = torch.ones(1, 4, 32)
    for residuals in ([], [Residuals(double=(residual,), single=())]):
        with added(model, residuals, text=3):
            model.predict(**inputs(model, img))
    watch.remove()
    assert torch.allclose(seen[1][:, :4] - seen[0][:, :4], residual, atol=1e-5)
    assert torch.equal(seen[1][:, 4:], seen[0][:, 4:])


def test_compiled_blocks_run_uncompiled_and_are_compiled_again() -> None:
    model = flux()
    called: list[int] = []

    def compiled(*args: Any, **kwargs: Any) -> Any:
        called.append(1)
        return model.double_blocks[0]._call_impl(*args, **kwargs)

    model.double_blocks[0]._compiled_call_impl = compiled
    given = inputs(model, torch.randn(1, 4, 8))
    model.predict(**given)
    with added(model, [Residuals(double=(torch.ones(1, 4, 32),), single=())], text=3):
        model.predict(**given)
    assert called == [1]
    model.predict(**given)
    assert called == [1, 1]


@pytest.mark.parametrize(
    ("start", "end", "wanted"), [(0, 1, "11111"), (0.2, 1, "01111"), (0, 0.5, "11000"), (0.3, 0.9, "00110")]
)
def test_the_steps_that_it_works_in(start: float, end: float, wanted: str) -> None:
    """Source: diffusers, `controlnet_keep`."""
    hint = Hint(net="a", picture=torch.empty(0), start=start, end=end)
    assert "".join(str(int(hint.works(step, 5))) for step in range(5)) == wanted
    assert not replace(hint, scale=0.0).works(2, 5)


@pytest.fixture
def steered(tmp_path: Path) -> Callable[..., Pipeline]:
    """The tiny model with a ControlNet of random weights."""

    def make(**more: Any) -> Pipeline:
        made = pipeline(tmp_path / "words", replace(TINY, **more))
        shape = ControlNetShape(flux=replace(TINY.shape, double_blocks=1, single_blocks=1))
        torch.manual_seed(1)
        save_file(ControlNet(shape).state_dict(), tmp_path / "net.safetensors")
        made.steering.load_controlnet(tmp_path / "net.safetensors", "net", 2.0)
        return made

    return make


def picture(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((90, 40))


def test_requests_carry_pictures_for_them(steered: Callable[..., Pipeline]) -> None:
    drawn = steered()
    request = Request(prompt="a red car", hints=(picture(),), seed=3)
    result = drawn(request)
    assert result.request.resolution is not None
    assert (result.request.resolution.width, result.request.resolution.height) == (48, 16)  # in the hint's aspect
    pixels = {
        name: np.asarray(drawn(replace(request, **more)).images[0], dtype=int)
        for name, more in {
            "as loaded": {},
            "the same scale": {"hint_scales": (2.0,)},
            "weaker": {"hint_scales": (0.5,)},
            "off": {"hint_scales": (0.0,)},
            "never": {"hint_range": (0.5, 0.5)},
        }.items()
    }
    assert np.array_equal(pixels["as loaded"], pixels["the same scale"])
    assert np.array_equal(pixels["off"], pixels["never"])
    assert np.abs(pixels["off"] - pixels["as loaded"]).max() > 2
    assert np.abs(pixels["weaker"] - pixels["as loaded"]).max() > 2
    batch = drawn(replace(request, count=2), batch=2)
    assert np.abs(np.asarray(batch.images[0], dtype=int) - pixels["as loaded"]).max() <= 1


def test_beside_a_reference(steered: Callable[..., Pipeline]) -> None:
    drawn = steered(takes=(Kind.REFERENCE,))
    request = Request(prompt="a red car", references=(picture(1),), hints=(picture(),), hint_scales=(0.0,))
    off, on = drawn(request), drawn(replace(request, hint_scales=(2.0,)))
    assert off.images[0].size == on.images[0].size == (90, 40)
    assert np.abs(np.asarray(off.images[0], dtype=int) - np.asarray(on.images[0], dtype=int)).max() > 2


def test_what_a_request_says_wrong(steered: Callable[..., Pipeline]) -> None:
    drawn = steered()
    for more, told in (
        ({}, "is given no picture"),
        ({"hints": (picture(),), "hint_modes": ("canny",)}, "knows no modes"),
        ({"hints": (picture(),), "looks": (picture(),)}, "a picture for an IP-Adapter is given"),
        ({"hints": (picture(),), "hint_scales": (1.0, 2.0)}, "2 scales for 1 ControlNets"),
    ):
        with pytest.raises(BadRequest, match=told):
            drawn(Request(prompt="a", **more))
    with pytest.raises(BadRequest, match="range of hints is"):
        Request(hint_range=(0.5, 0.2))
    drawn.steering.drop("controlnet", "net")
    with pytest.raises(BadRequest, match="none is loaded"):
        drawn(Request(prompt="a", hints=(picture(),)))


def test_it_runs_once_for_both_sides_of_true_guidance(steered: Callable[..., Pipeline]) -> None:
    drawn = steered()
    calls: list[int] = []
    drawn.steering.controlnets["net"].net.register_forward_pre_hook(lambda net, args: calls.append(1))
    request = Request(prompt="a red car", hints=(picture(),), cfg=3.0, negative="blur", steps=4, hint_range=(0, 0.8))
    drawn(request)
    assert len(calls) == 3  # the last of four steps ends after 0.8
    calls.clear()
    drawn(replace(request, sampler="heun", hint_range=(0.0, 1.0)))
    assert len(calls) == 7  # two places a step, one in the last


def test_in_bfloat16(tmp_path: Path, steered: Callable[..., Pipeline]) -> None:
    exact = steered()
    coarse = pipeline(tmp_path / "words", TINY, torch.bfloat16)
    coarse.steering.load_controlnet(tmp_path / "net.safetensors", "net", 2.0)
    shape = IpAdapterShape(hidden=TINY.shape.hidden, image=5, context=TINY.shape.text_dim, blocks=2)
    torch.manual_seed(2)
    save_file(IpAdapter(shape).state_dict(), tmp_path / "ip.safetensors")
    request = exact.resolve(Request(prompt="a red car", hints=(picture(),), steps=2))
    ended = []
    for drawn in (exact, coarse):
        drawn.steering.load_adapter(tmp_path / "ip.safetensors", "ip", scale=1.5)
        job = drawn.prepare(request)
        job = replace(job, steer=replace(job.steer, looks=drawn.steering.looks([torch.ones(1, 5)], 1)))
        ended.append([step.x for step in drawn.walk(job)][-1])
    apart = (ended[0] - ended[1]).norm() / ended[0].norm()
    assert 0 < apart < 0.1
