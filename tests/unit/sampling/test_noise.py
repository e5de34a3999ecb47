"""Noise: golden values that every tool shares, and independence of batch, order and dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from fluxone.geometry import Resolution
from fluxone.sampling.noise import gaussian, generators, noise

BIG = Resolution(height=1024, width=1024)


def test_seeds_have_the_published_values() -> None:
    zero, other = (noise([seed], BIG, dtype=torch.bfloat16).flatten().float() for seed in (0, 42))
    assert zero[:4].tolist() == [-1.125, -1.15625, -0.25, -0.43359375]
    assert zero[-2:].tolist() == [-1.2109375, 0.07666015625]
    assert other[:4].tolist() == [1.9296875, 1.484375, 0.90234375, -2.109375]


def test_noise_equals_the_reference_implementation(reference: Any) -> None:
    for height, width in ((256, 256), (512, 304)):
        for dtype in (torch.bfloat16, torch.float32):
            expected = reference.get_noise(1, height, width, torch.device("cpu"), dtype, 7)
            assert torch.equal(noise([7], Resolution(height=height, width=width), dtype=dtype), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_draw_in_half_precision_is_the_float32_draw_rounded(dtype: torch.dtype) -> None:
    small = Resolution(height=128, width=80)
    assert torch.equal(noise([3], small, dtype=dtype), noise([3], small).to(dtype))


def test_a_seed_gives_the_same_noise_in_any_batch_and_order() -> None:
    small = Resolution(height=64, width=96)
    together = noise([5, 6, 7], small)
    assert torch.equal(together[[2, 0]], noise([7, 5], small))
    assert not torch.equal(together[0], together[1])


def test_generators_go_on_where_they_were() -> None:
    sources = generators([1, 2])
    first, second = gaussian(sources, (2, 4, 3)), gaussian(sources, (2, 4, 3))
    assert first.shape == (2, 4, 3)
    assert not torch.equal(first, second)
    alone = generators([2])
    gaussian(alone, (1, 4, 3))
    assert torch.equal(gaussian(alone, (1, 4, 3))[0], second[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_is_drawn_as_diffusers_draws_it(dtype: torch.dtype) -> None:
    shape = (3, 4, 5, 7)
    for make in (lambda: generators([4, 5, 6]), lambda: generators([4])[0]):
        assert torch.equal(gaussian(make(), shape, dtype), randn_tensor(shape, make(), torch.device("cpu"), dtype))
    torch.manual_seed(9)
    ours = gaussian(None, shape, dtype)
    torch.manual_seed(9)
    assert torch.equal(ours, randn_tensor(shape, None, torch.device("cpu"), dtype))
