"""Muon and AdamW do what their papers say, and their state is complete."""

from __future__ import annotations

import torch
from torch import nn

from fluxone.train.optim import MuonAdamW, Rates, clip, orthogonalize


def test_orthogonalize_brings_singular_values_near_one() -> None:
    for shape in ((3, 24, 24), (2, 16, 64), (2, 64, 16)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)), 7))
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_adamw_equals_torch() -> None:
    ours, theirs = nn.Parameter(torch.linspace(-1, 1, 7)), nn.Parameter(torch.linspace(-1, 1, 7))
    rates = Rates(adam=0.01, betas=(0.9, 0.97))
    optim = MuonAdamW([("w", ours)], set(), rates)
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.97), eps=rates.eps, weight_decay=0)
    for k in range(5):
        for p in (ours, theirs):
            p.grad = torch.sin(p.detach() * (k + 1))
        optim.step(1.0)
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_pace_shortens_the_steps_of_both_halves() -> None:
    torch.manual_seed(0)
    start = torch.randn(4, 4)
    params = {name: nn.Parameter(start.clone()) for name in ("muon", "slow muon", "adam", "slow adam")}
    paces = {"slow muon": 0.25, "slow adam": 0.25}
    optim = MuonAdamW(params.items(), {"muon", "slow muon"}, Rates(), paces=paces)
    for p in params.values():
        p.grad = start.sin()
    optim.step(1.0)
    for half in ("muon", "adam"):
        full, slow = (params[name].detach() - start for name in (half, f"slow {half}"))
        torch.testing.assert_close(slow, 0.25 * full, rtol=1e-3, atol=1e-6)


def test_muon_descends_and_leaves_resting_parameters_alone() -> None:
    torch.manual_seed(0)
    w, idle = nn.Parameter(torch.zeros(8, 8)), nn.Parameter(torch.ones(4, 4))
    target = torch.randn(8, 8)
    optim = MuonAdamW([("w", w), ("idle", idle)], {"w", "idle"}, Rates(muon=0.4))
    before = (w - target).square().sum().item()
    for k in range(60):
        w.grad = (w.detach() - target) * 2
        optim.step(1 - k / 60)
    assert (w - target).square().sum().item() < before / 20
    assert torch.equal(idle, torch.ones(4, 4))


def test_state_round_trip_continues_bit_exactly() -> None:
    def make() -> tuple[dict[str, nn.Parameter], MuonAdamW]:
        params = {"m": nn.Parameter(torch.eye(6)), "a": nn.Parameter(torch.ones(5))}
        return params, MuonAdamW(params.items(), {"m"}, Rates())

    def advance(params: dict[str, nn.Parameter], optim: MuonAdamW, first: int, last: int) -> None:
        for k in range(first, last):
            for p in params.values():
                p.grad = torch.cos(p.detach() + k)
            optim.step(0.5)

    whole, optim = make()
    advance(whole, optim, 0, 6)
    half, first = make()
    advance(half, first, 0, 3)
    again, second = make()
    for name, p in again.items():
        p.data.copy_(half[name])
    second.load({name: value.clone() for name, value in first.state().items()})
    advance(again, second, 3, 6)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_rates_rise_stay_and_fall() -> None:
    rates = Rates(warmup=10, decay=0.5, floor=0.02)
    assert rates.factor(0, 0.0) == 0.1
    assert rates.factor(30, 0.3) == 1
    assert rates.factor(75, 0.75) == 0.5
    assert rates.factor(100, 1.0) == 0.02


def test_clip_returns_the_norm_before() -> None:
    p = nn.Parameter(torch.zeros(4))
    p.grad = torch.full((4,), 3.0)
    assert clip([p], 1.0) == 6.0
    assert abs(p.grad.norm().item() - 1) < 1e-5
