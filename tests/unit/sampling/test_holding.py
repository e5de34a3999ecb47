"""What comes near a given picture becomes it, whatever the sampler; the rest is as if nothing were held."""

from __future__ import annotations

import pytest
import torch

from fluxone.sampling.holding import BELOW, holding
from fluxone.sampling.samplers import SAMPLERS, State
from fluxone.sampling.schedule import SCHEDULES, Shift
from fluxone.variants import MINI

LEVELS = SCHEDULES["shifted"](20, 64, Shift.of(MINI))


def near_and_far() -> tuple[State, State]:
    """A picture of eight tokens, and what a network draws: half of it is nearly the picture."""
    torch.manual_seed(0)
    picture = torch.randn(2, 8, 64)
    drawn = picture + 0.2 * torch.randn_like(picture)
    drawn[:, 4:] = torch.randn(2, 4, 64) * 2
    return picture, drawn


def walk(name: str, drawn: State, picture: State | None, limit: float) -> State:
    torch.manual_seed(1)

    def v(x: State, sigma: float) -> State:
        return (x - drawn) / sigma

    velocity = v if picture is None else holding(v, picture, limit)
    x = torch.randn(drawn.shape)
    for step in SAMPLERS[name](velocity, x, LEVELS, lambda: torch.randn(drawn.shape)):
        x = step.x
    return x


@pytest.mark.parametrize("name", SAMPLERS)
def test_near_tokens_become_the_picture_and_far_ones_stay(name: str) -> None:
    picture, drawn = near_and_far()
    free, held = walk(name, drawn, None, 0.0), walk(name, drawn, picture, 1.0)
    gap = (free - picture)[:, :4].square().mean().sqrt()
    assert (held - picture)[:, :4].square().mean().sqrt() < 0.05 * gap
    torch.testing.assert_close(held[:, 4:], free[:, 4:], atol=2e-3, rtol=0)


def test_a_low_limit_holds_nothing_and_blurs_are_left_alone() -> None:
    picture, drawn = near_and_far()
    torch.testing.assert_close(walk("euler", drawn, picture, -1.0), walk("euler", drawn, None, 0.0), atol=1e-3, rtol=0)
    early = holding(lambda x, sigma: torch.zeros_like(x), picture, 100.0)
    assert not early(torch.randn_like(picture), BELOW + 0.01).any()
    assert early(torch.randn_like(picture), BELOW).any()
