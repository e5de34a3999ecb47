"""Compatibility profiles, each against its tool in that tool's own precision, or against its written rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxPipeline
from PIL import Image
from torch import Tensor

from fluxone import Request, assemble
from fluxone.geometry import Resolution
from fluxone.nn import transformer
from fluxone.nn.tokens import pack, unpack
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from parity.conftest import Oracle
from unit.tiny import TINY, pipeline

Get = Callable[[str], Oracle]
SIZE = Resolution(height=64, width=48)
ASKED = Request(prompt="the fox reads", resolution=SIZE, seed=3, steps=4, guidance=3.3, text_tokens=32)


@contextmanager
def told() -> Iterator[list[Tensor]]:
    """What the embedding of numbers is given while the context is open: 1000 sigma, then 1000 guidance."""
    seen: list[Tensor] = []
    plain = transformer.sinusoid

    def watched(x: Tensor, *more: Any) -> Tensor:
        seen.append(x)
        return plain(x, *more)

    with mock.patch.object(transformer, "sinusoid", watched):
        yield seen


def load(folder: Path, compat: str, dtype: str) -> Pipeline:
    return assemble(str(folder), Recipe(device="cpu", dtype=dtype, compat=compat))


@pytest.fixture(scope="module")
def half(oracle: Get, tmp_path_factory: pytest.TempPathFactory) -> FluxPipeline:
    """diffusers' pipeline in bfloat16, its autoencoder apart in float32."""
    pipe = FluxPipeline.from_pretrained(oracle("dev").folder, torch_dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def half_latents(pipe: FluxPipeline, **more: Any) -> tuple[Tensor, list[Tensor]]:
    """The latents that diffusers makes of `ASKED`, and what it told its embedding at each step."""
    seen: list[Tensor] = []
    embed = pipe.transformer.time_text_embed
    hook = embed.register_forward_pre_hook(lambda module, args: seen.extend(args[:2]))
    try:
        x = pipe(
            ASKED.prompt, height=64, width=48, num_inference_steps=4, guidance_scale=3.3, max_sequence_length=32,
            generator=torch.Generator().manual_seed(3), output_type="latent", **more,
        ).images  # fmt: skip
    finally:
        hook.remove()
    return x.float(), seen


def test_diffusers_time_and_guidance_are_rounded_as_there(oracle: Get, half: FluxPipeline) -> None:
    _, theirs = half_latents(half)
    times, guidances = (torch.cat([x[:1] for x in theirs[i::2]]) for i in (0, 1))
    with told() as seen:
        list(load(oracle("dev").folder, "diffusers", "bfloat16").steps(ASKED))
    assert times.dtype == seen[0].dtype == torch.bfloat16
    assert torch.equal(seen[0], times) and torch.equal(seen[1], guidances)
    with told() as seen:
        list(load(oracle("dev").folder, "exact", "bfloat16").steps(ASKED))
    assert seen[0].dtype == torch.float32
    assert (seen[0] - times.float()).abs().max() > 0.1  # thousandths: what the rounding costs


def test_diffusers_noise_is_drawn_in_the_models_dtype(oracle: Get, half: FluxPipeline) -> None:
    pipe = load(oracle("dev").folder, "diffusers", "bfloat16")
    x = pipe.prepare(pipe.resolve(ASKED)).x
    expected, _ = half.prepare_latents(1, 16, 64, 48, torch.bfloat16, "cpu", torch.Generator().manual_seed(3))
    assert torch.equal(x, expected.float())
    exact = load(oracle("dev").folder, "exact", "bfloat16")
    assert not torch.equal(exact.prepare(exact.resolve(ASKED)).x, expected.float())


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).pow(2).mean().sqrt())


def test_the_diffusers_profile_comes_closest_to_diffusers_in_bfloat16(oracle: Get, half: FluxPipeline) -> None:
    theirs, _ = half_latents(half)
    far = {
        name: distance(list(load(oracle("dev").folder, name, "bfloat16").steps(ASKED))[-1].x, theirs)
        for name in ("diffusers", "exact", "comfy")
    }
    assert far["diffusers"] < 0.5 * far["exact"] and far["diffusers"] < 0.5 * far["comfy"]


def test_the_diffusers_profile_encodes_to_a_sample_of_the_posterior(oracle: Get) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8))
    theirs = FluxImg2ImgPipeline.from_pipe(oracle("dev").pipe)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        ASKED.prompt, image=picture, strength=0.6, height=64, width=48, num_inference_steps=4, guidance_scale=3.3,
        max_sequence_length=32, generator=torch.Generator().manual_seed(3), output_type="latent",
    ).images  # fmt: skip
    asked = replace(ASKED, init=picture, strength=0.6)
    sampled, mean = (
        list(load(oracle("dev").folder, name, "float32").steps(asked))[-1].x for name in ("diffusers", "exact")
    )
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-4)
    assert distance(mean, expected) > 0.05


@pytest.fixture(scope="module")
def bfl(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Pipeline, Pipeline]:
    """The reference implementation's network in bfloat16, and our pipelines of the same weights: bfl and exact."""
    from fluxbfl.model import Flux, FluxParams

    folder = tmp_path_factory.mktemp("bfl")
    shape = replace(TINY.shape, hidden=32, axes=(4, 6, 6))
    variant = replace(TINY, shape=shape)
    ours, exact = (pipeline(folder, variant, torch.bfloat16, compat=compat) for compat in ("bfl", "exact"))
    params = FluxParams(
        in_channels=shape.in_channels, out_channels=shape.out_channels, vec_in_dim=shape.vec_dim,
        context_in_dim=shape.text_dim, hidden_size=shape.hidden, mlp_ratio=4.0, num_heads=shape.heads,
        depth=shape.double_blocks, depth_single_blocks=shape.single_blocks, axes_dim=list(shape.axes), theta=10_000,
        qkv_bias=True, guidance_embed=True,
    )  # fmt: skip
    model = Flux(params)
    model.load_state_dict(ours.transformer.state_dict())
    return model.to(torch.bfloat16).eval(), ours, exact


def bfl_request() -> Request:
    return Request(prompt="a red car", resolution=SIZE, seed=11, steps=4, guidance=3.3)


@torch.no_grad()
def test_the_bfl_profile_comes_closest_to_the_reference(reference: Any, bfl: tuple[Any, Pipeline, Pipeline]) -> None:
    model, ours, exact = bfl
    job = ours.prepare(ours.resolve(bfl_request()))
    rows, columns = job.grid
    noise = torch.randn(1, 4, 2 * rows, 2 * columns, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(11))
    assert torch.equal(job.x, pack(noise).float())
    with mock.patch.object(reference, "HFEmbedder", object):
        inputs = reference.prepare(lambda prompt: job.text.txt, lambda prompt: job.text.pooled, noise, "a red car")
    sigmas = reference.get_schedule(4, rows * columns)
    told_there: list[Tensor] = []
    layers = __import__("fluxbfl.model", fromlist=["timestep_embedding"])
    plain = layers.timestep_embedding

    def watched(t: Tensor, *more: Any) -> Tensor:
        told_there.append(1000.0 * t)
        return plain(t, *more)

    with mock.patch.object(layers, "timestep_embedding", watched):
        theirs = reference.denoise(model, **inputs, timesteps=sigmas, guidance=3.3).float()
    with told() as seen:
        near = list(ours.steps(bfl_request()))[-1].x
    assert torch.equal(seen[0], torch.cat(told_there[::2])) and torch.equal(seen[1], torch.cat(told_there[1::2]))
    far = list(exact.steps(bfl_request()))[-1].x
    assert distance(near, theirs) < 0.5 * distance(far, theirs)


def test_the_bfl_profile_rounds_time_to_eight_bits_whatever_the_model(tmp_path: Path) -> None:
    with told() as seen:
        list(pipeline(tmp_path, compat="bfl").steps(bfl_request()))
    times = seen[0].float()
    assert seen[0].dtype == torch.bfloat16
    assert all(t % 4 == 0 for t in times[times > 512].tolist())


def comfy_levels(steps: int) -> list[float]:
    """ComfyUI's rule, written out: 10,000 levels shifted by mu 1.15; `simple` picks from the top in equal strides."""
    t = torch.arange(1, 10_001, dtype=torch.float64) / 10_000
    table = math.exp(1.15) / (math.exp(1.15) + (1 / t - 1))
    return [table[-(1 + int(i * 10_000 / steps))].item() for i in range(steps)] + [0.0]


def test_the_comfy_profile_keeps_comfyuis_rules(tmp_path: Path) -> None:
    """A constant mu of 1.15, float32 noise and time, T5 padded to at least 256 tokens and never cut."""
    pipe = pipeline(tmp_path, compat="comfy")
    for size, steps in ((SIZE, 4), (Resolution(height=256, width=256), 7)):
        asked = pipe.resolve(replace(bfl_request(), resolution=size, steps=steps))
        assert pipe.sigmas(asked) == pytest.approx(comfy_levels(steps), abs=2e-7)
    with told() as seen:
        list(pipe.steps(bfl_request()))
    assert seen[0].dtype == torch.float32
    assert seen[0].tolist() == pytest.approx([1000 * level for level in comfy_levels(4)[:-1]], abs=1e-3)
    job = pipe.prepare(pipe.resolve(bfl_request()))
    noise = torch.randn(1, 4, 8, 6, generator=torch.Generator("cpu").manual_seed(11))
    assert torch.equal(unpack(job.x, *job.grid), noise)
    assert job.text.txt.shape[1] == 256
    long = pipe.prepare(pipe.resolve(replace(bfl_request(), prompt="fox " * 400, negative="blur", cfg=2.0)))
    assert long.text.txt.shape[1] == 401 and long.negative is not None and long.negative.txt.shape[1] == 256
    assert torch.isfinite(list(pipe.walk(long))[-1].x).all()


def test_the_comfy_profile_leaves_an_unshifted_model_unshifted(tmp_path: Path) -> None:
    pipe = pipeline(tmp_path, replace(TINY, shifted=False), compat="comfy")
    assert pipe.sigmas(pipe.resolve(bfl_request())) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert pipe.resolve(replace(bfl_request(), schedule="shifted")).schedule == "shifted"


def test_profiles_agree_where_there_is_nothing_to_round(oracle: Get) -> None:
    """In float32 `diffusers` differs from `exact` by rounding errors only."""
    one, other = (
        list(load(oracle("dev").folder, name, "float32").steps(ASKED))[-1].x for name in ("exact", "diffusers")
    )
    torch.testing.assert_close(one, other, rtol=0, atol=2e-4)
