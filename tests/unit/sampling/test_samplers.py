"""Every sampler of the table: ends at 0, exact on straight paths, converges at its order, depends on nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from fluxone.sampling.samplers import SAMPLERS, visited
from fluxone.sampling.schedule import SCHEDULES, Shift

NAMES = sorted(SAMPLERS)
RANDOM = {"euler_ancestral"}  # draws noise on the way
ORDER = {"euler": 1, "heun": 2, "midpoint": 2, "dpmpp_2m": 2}


def walk(name: str, velocity, x: Tensor, sigmas: list[float], seed: int = 0):
    source = torch.Generator().manual_seed(seed)
    return list(SAMPLERS[name](velocity, x, sigmas, lambda: torch.randn(x.shape, generator=source, dtype=x.dtype)))


@pytest.mark.parametrize("name", NAMES)
def test_a_walk_has_one_step_for_each_interval_and_ends_at_zero(name: str) -> None:
    sigmas = SCHEDULES["shifted"](6, 512, Shift())
    steps = walk(name, lambda x, sigma: 0.1 * x, torch.randn(2, 3, 4), sigmas)
    assert [step.index for step in steps] == list(range(6))
    assert [step.sigma for step in steps] == sigmas[1:]
    assert all(step.x.shape == (2, 3, 4) and step.x.dtype == torch.float32 for step in steps)
    assert all(torch.isfinite(step.x).all() and torch.isfinite(step.clean).all() for step in steps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_straight_paths_to_one_picture_are_walked_exactly(name: str, steps: int) -> None:
    picture, start = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    end = walk(name, lambda x, s: (x - picture) / s, start, SCHEDULES["shifted"](steps, 900, Shift()))[-1]
    torch.testing.assert_close(end.x, picture, rtol=0, atol=1e-12)
    torch.testing.assert_close(end.clean, picture, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(NAMES) - RANDOM))
def test_a_constant_velocity_is_followed_exactly(name: str) -> None:
    v, start = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    end = walk(name, lambda x, s: v, start, SCHEDULES["linear"](7, 1, Shift()))[-1]
    if name == "dpmpp_2m":  # straight lines over log sigma are its own kind of straight
        torch.testing.assert_close(end.x, start - v, rtol=0, atol=0.2)
    else:
        torch.testing.assert_close(end.x, start - v, rtol=0, atol=1e-12)


MEAN, SPREAD = 0.7, 0.5  # of a world whose pictures are normally distributed: its flow has a closed form


def variance(sigma: float) -> float:
    return ((1 - sigma) * SPREAD) ** 2 + sigma**2


def world(x: Tensor, sigma: float) -> Tensor:
    growth = (sigma - (1 - sigma) * SPREAD**2) / variance(sigma)
    return -MEAN + growth * (x - (1 - sigma) * MEAN)


@pytest.mark.parametrize("name", sorted(ORDER))
def test_the_error_falls_at_the_samplers_order(name: str) -> None:
    start = torch.tensor([-1.3, 0.2, 2.0], dtype=torch.float64)
    exact = MEAN + math.sqrt(variance(0) / variance(1)) * start
    errors = []
    for steps in (128, 256):
        sigmas = [1 - i / steps for i in range(steps)] + [0.0]
        errors.append((walk(name, world, start, sigmas)[-1].x - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) > ORDER[name] - 0.25


def test_ancestral_sampling_reaches_the_right_distribution() -> None:
    start = torch.randn(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    end = walk("euler_ancestral", world, start, [1 - i / 240 for i in range(240)] + [0.0])[-1].x
    assert end.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert end.std().item() == pytest.approx(SPREAD, abs=0.015)


def test_ancestral_sampling_depends_on_its_noise_alone() -> None:
    start, sigmas = torch.randn(3), SCHEDULES["linear"](5, 1, Shift())
    one, same, other = (walk("euler_ancestral", world, start, sigmas, seed)[-1].x for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_euler_equals_diffusers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.7, 0.4, 0.1])
    x = torch.randn(2, 6, 4)
    ours = walk("euler", lambda x, s: torch.sin(x) * s, x, scheduler.sigmas.tolist())
    for t, sigma, step in zip(scheduler.timesteps, scheduler.sigmas, ours, strict=False):
        x = scheduler.step(torch.sin(x) * sigma, t, x, return_dict=False)[0]
        torch.testing.assert_close(step.x, x, rtol=0, atol=3e-7)


@pytest.mark.parametrize("name", NAMES)
def test_every_level_that_is_asked_for_is_known_before(name: str) -> None:
    sigmas, asked = SCHEDULES["shifted"](5, 512, Shift()), []

    def velocity(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return torch.tanh(x) * sigma

    walk(name, velocity, torch.randn(3), sigmas)
    assert visited(SAMPLERS[name], sigmas) == list(dict.fromkeys(asked))


@pytest.mark.parametrize("name", NAMES)
def test_the_caller_may_put_other_latents_in(name: str) -> None:
    sigmas = [1.0, 0.6, 0.3, 0.0]
    for step in SAMPLERS[name](lambda x, s: torch.ones_like(x), torch.zeros(2), sigmas, lambda: torch.zeros(2)):
        if step.index == 1:
            step.x = torch.full((2,), 100.0)
    assert (step.x > 90).all()


@pytest.mark.parametrize("name", NAMES)
def test_levels_may_be_equal_as_near_1_they_are_in_float32(name: str) -> None:
    """Schedules of very large pictures are so dense there that neighbours round to the same number."""
    picture, start = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    end = walk(name, lambda x, s: (x - picture) / s, start, [1.0, 1.0, 1.0, 0.5, 0.5, 0.0])[-1]
    torch.testing.assert_close(end.x, picture, rtol=0, atol=1e-12)


def test_no_steps_are_no_steps() -> None:
    for name in NAMES:
        assert walk(name, world, torch.zeros(1), [0.0]) == []
