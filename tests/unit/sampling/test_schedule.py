"""Schedules: golden numbers of the published models, equality with diffusers and with the reference implementation."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from fluxone.errors import BadRequest
from fluxone.sampling import schedule
from fluxone.sampling.schedule import SCHEDULES, Shift, beta_quantile, beta_share, given, remaining, shift_mu

GOLDEN = [
    (1024, 0.630000, (0.980656, 0.960644, 0.939928), 0.065020),
    (3072, 0.976667, (0.986245, 0.971849, 0.956766), 0.089548),
    (4080, 1.147292, (0.988378, 0.976160, 0.963299), 0.104467),
    (4096, 1.150000, (0.988409, 0.976222, 0.963394), 0.104721),
    (8100, 1.827760, (0.994081, 0.987784, 0.981072), 0.187235),
    (16384, 3.230000, (0.998537, 0.996966, 0.995276), 0.483547),
]


@pytest.mark.parametrize(("tokens", "mu", "first", "last"), GOLDEN)
def test_the_shifted_schedule_has_the_published_numbers(
    tokens: int, mu: float, first: tuple[float, ...], last: float
) -> None:
    sigmas = SCHEDULES["shifted"](28, tokens, Shift())
    assert shift_mu(tokens) == pytest.approx(mu, abs=5e-7)
    assert sigmas[0] == 1 and sigmas[-1] == 0 and len(sigmas) == 29
    assert sigmas[1:4] == pytest.approx(first, abs=1e-6)
    assert sigmas[-2] == pytest.approx(last, abs=1e-6)


def test_a_shift_that_no_number_holds_is_refused() -> None:
    assert shift_mu(4096, Shift(top=79.0)) == 79.0
    with pytest.raises(BadRequest, match="4096 tokens would have its schedule shifted by 81; check base_shift"):
        shift_mu(4096, Shift(top=81.0))


def test_four_steps_have_the_published_numbers() -> None:
    assert SCHEDULES["shifted"](4, 4096, Shift()) == pytest.approx([1, 0.904531, 0.759511, 0.512844, 0], abs=1e-6)
    assert SCHEDULES["linear"](4, 4096, Shift()) == [1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 28, 100])
def test_every_schedule_falls_from_one_to_zero(name: str, steps: int) -> None:
    sigmas = SCHEDULES[name](steps, 600, Shift(factor=3.0))
    assert len(sigmas) == steps + 1
    assert sigmas[0] == 1 and sigmas[-1] == 0
    assert all(a > b for a, b in pairwise(sigmas))


def of_diffusers(mu: float, steps: int, sigmas: list[float] | None = None, **config: object) -> list[float]:
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps) if sigmas is None else sigmas, mu=mu)
    return scheduler.sigmas.tolist()


@pytest.mark.parametrize("tokens", [4, 77, 256, 1024, 4096, 9000])
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 28, 50])
def test_schedules_equal_diffusers_to_the_last_bit(tokens: int, steps: int) -> None:
    own = Shift(base=0.3, top=1.4, base_tokens=64, top_tokens=2048, factor=3.0)
    for shift in (Shift(), own):
        expected = of_diffusers(shift_mu(tokens, shift), steps, use_dynamic_shifting=True)
        assert SCHEDULES["shifted"](steps, tokens, shift) == expected
    assert SCHEDULES["fixed"](steps, tokens, own) == of_diffusers(0, steps, shift=3.0)
    assert SCHEDULES["linear"](steps, tokens, own) == of_diffusers(0, steps)


ASKED: dict[str, tuple[Shift, dict[str, Any]]] = {
    "karras": (Shift(spacing="karras"), {"use_karras_sigmas": True}),
    "exponential": (Shift(spacing="exponential"), {"use_exponential_sigmas": True}),
    "terminal": (Shift(terminal=0.02), {"shift_terminal": 0.02}),
    "linear": (Shift(linear=True), {"time_shift_type": "linear"}),
    "all": (
        Shift(linear=True, terminal=0.1, spacing="karras"),
        {"time_shift_type": "linear", "shift_terminal": 0.1, "use_karras_sigmas": True},
    ),
}


@pytest.mark.parametrize("case", ASKED)
@pytest.mark.parametrize("steps", [2, 5, 28])
def test_what_a_scheduler_asks_for_besides_equals_diffusers(case: str, steps: int) -> None:
    shift, more = ASKED[case]
    for tokens in (77, 1024):
        expected = of_diffusers(shift_mu(tokens, shift), steps, use_dynamic_shifting=True, **more)
        assert SCHEDULES["shifted"](steps, tokens, shift) == pytest.approx(expected, abs=1e-6)
    three = replace(shift, factor=3.0)
    assert SCHEDULES["fixed"](steps, 77, three) == pytest.approx(of_diffusers(0, steps, shift=3.0, **more), abs=1e-6)
    assert SCHEDULES["linear"](steps, 77, shift) == pytest.approx(of_diffusers(0, steps, **more), abs=1e-6)
    levels = [1.0, 0.7, 0.2]
    assert given(levels, 77, three, "fixed") == pytest.approx(of_diffusers(0, 3, levels, shift=3.0, **more), abs=1e-6)


def test_what_cannot_be_stretched_or_shifted() -> None:
    assert SCHEDULES["shifted"](1, 77, Shift(terminal=0.02, spacing="karras")) == pytest.approx([1.0, 0.0])
    with pytest.raises(BadRequest, match=r"shifted by -0\.5, linearly"):
        SCHEDULES["shifted"](4, 256, Shift(linear=True, base=-0.5))


def test_given_levels_are_shifted_as_diffusers_shifts_them() -> None:
    levels, shift = [1.0, 0.8, 0.61, 0.2], Shift(factor=3.0)
    assert given(levels, 640, shift, "shifted") == of_diffusers(shift_mu(640), 4, levels, use_dynamic_shifting=True)
    assert given(levels, 640, shift, "fixed") == of_diffusers(0, 4, levels, shift=3.0)
    assert given(levels, 640, shift, "linear") == of_diffusers(0, 4, levels)


@pytest.mark.parametrize("steps", [1, 4, 28, 50])
@pytest.mark.parametrize("tokens", [256, 1024, 4096, 16384])
def test_schedules_equal_the_reference_implementation(reference: Any, steps: int, tokens: int) -> None:
    for name, moved in (("shifted", True), ("linear", False)):
        expected = reference.get_schedule(steps, tokens, shift=moved)
        assert SCHEDULES[name](steps, tokens, Shift()) == pytest.approx(expected, abs=1.2e-7)


def test_constant_is_comfyuis_table() -> None:
    """Its rule, written out: 10,000 levels shifted by 1.15, of which `simple` picks from the top in equal strides."""
    t = torch.arange(1, 10_001) / 10_000
    table = math.exp(1.15) / (math.exp(1.15) + (1 / t - 1))
    for steps in (4, 20, 28, 33):
        expected = [table[-(1 + int(i * 10_000 / steps))].item() for i in range(steps)] + [0.0]
        for tokens in (256, 4096):
            assert SCHEDULES["constant"](steps, tokens, Shift()) == pytest.approx(expected, abs=2e-7)


def test_the_beta_distribution_has_its_known_values() -> None:
    for p in (1e-6, 0.01, 0.25, 0.5, 0.9, 0.999):
        assert beta_quantile(p, 1.0, 1.0) == pytest.approx(p, rel=1e-12)
        assert beta_quantile(p, 0.5, 0.5) == pytest.approx(math.sin(math.pi * p / 2) ** 2, rel=1e-10)  # arcsine law
        assert beta_quantile(p, 1.0, 3.0) == pytest.approx(1 - (1 - p) ** (1 / 3), rel=1e-10)
    x = np.linspace(0, 1, 2_000_001)[1:-1]  # by brute force, at parameters without a closed form
    density = x ** (0.6 - 1) * (1 - x) ** (0.6 - 1)
    share = np.cumsum(density) / np.sum(density)
    assert beta_share(float(x[499_999]), 0.6, 0.6) == pytest.approx(float(share[499_999]), abs=1e-4)


def test_beta_is_dense_at_both_ends() -> None:
    sigmas = SCHEDULES["beta"](21, 4096, Shift())
    plain = SCHEDULES["shifted"](21, 4096, Shift())
    strides = [a - b for a, b in pairwise(sigmas[:-1])]
    assert sigmas[-2] == pytest.approx(plain[-2], abs=1e-6)
    assert strides[0] < strides[10] > strides[-1]
    assert strides == pytest.approx(strides[::-1], abs=1e-6)


@pytest.mark.parametrize(
    ("steps", "strength", "left"), [(28, 0.6, 17), (10, 0.7, 7), (4, 1.0, 4), (4, 0.0, 0), (5, 0.5, 3)]
)
def test_strength_keeps_the_end_of_the_schedule(steps: int, strength: float, left: int) -> None:
    sigmas = SCHEDULES["linear"](steps, 64, Shift())
    assert remaining(sigmas, strength) == sigmas[steps - left :]


def test_even_spacing_starts_at_one_for_a_single_step() -> None:
    assert schedule.even(1).tolist() == [1.0]
