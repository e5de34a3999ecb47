"""Laws of the noise levels that training visits, each as a quantile: share of 0..1 -> sigma, after every shift.

    logit-normal   sigma = 1 / (1 + e^-n), n normal: the middle most often        uniform   all alike
    shifted        logit-normal, moved towards noise as the model's own schedule is at that size
    flux-shift     uniform, moved likewise        few-step   the levels that the model's own few steps visit
    high-noise, low-noise   half of all above 0.7 (what is where), or below 0.35 (texture)

Shares are drawn one from each of as many equal parts of 0..1 as the batch has, so that a batch covers the law.

Source: Esser et al. 2024 (logit-normal); black-forest-labs/flux, `sampling.time_shift`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.sampling.schedule import SCHEDULES, Shift, move, shift_mu
from fluxone.variants import Variant

EDGE = 1e-4  # shares nearer to 0 or 1 would be infinitely far out
FLAT = 0.1  # share of logit-normal draws that are even: else the level that a walk begins with is hardly ever visited

Law = Callable[[Tensor, int, Variant], Tensor]


def logit_normal(share: Tensor, tokens: int, variant: Variant, mean: float = 0.0) -> Tensor:
    """Normal on the logit's scale, and one in ten even."""
    rest = ((share - FLAT) / (1 - FLAT)).clamp(EDGE, 1 - EDGE)
    normal = math.sqrt(2) * torch.erfinv(2 * rest - 1)
    return torch.where(share < FLAT, (share / FLAT).clamp(EDGE, 1), torch.sigmoid(mean + normal))


def uniform(share: Tensor, tokens: int, variant: Variant) -> Tensor:
    """All levels alike."""
    return share.clamp(EDGE, 1)


def shifted(share: Tensor, tokens: int, variant: Variant) -> Tensor:
    """The logit-normal law, moved towards noise as the model's schedule is for that many tokens."""
    return _moved(logit_normal(share, tokens, variant), tokens, variant)


def flux_shift(share: Tensor, tokens: int, variant: Variant) -> Tensor:
    """The even law, moved likewise: the levels as a sampler's steps are spread."""
    return _moved(uniform(share, tokens, variant), tokens, variant)


def few_step(share: Tensor, tokens: int, variant: Variant) -> Tensor:
    """The levels of the model's own default steps, for networks that were distilled to visit no others."""
    row = SCHEDULES["shifted" if variant.shifted else "linear"](variant.steps, tokens, Shift.of(variant))[:-1]
    return torch.tensor(row)[(share * len(row)).long().clamp(max=len(row) - 1)]


def high_noise(share: Tensor, tokens: int, variant: Variant) -> Tensor:
    """Where it is decided what is where."""
    return logit_normal(share, tokens, variant, mean=math.log(0.7 / 0.3))


def low_noise(share: Tensor, tokens: int, variant: Variant) -> Tensor:
    """Where texture and line are drawn."""
    return logit_normal(share, tokens, variant, mean=math.log(0.35 / 0.65))


def _moved(sigma: Tensor, tokens: int, variant: Variant) -> Tensor:
    return move(sigma, shift_mu(tokens, Shift.of(variant))) if variant.shifted else sigma


def shares(count: int, rng: torch.Generator) -> Float[Tensor, " count"]:
    """One from each of `count` equal parts of 0..1, in chance order."""
    return (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count


LAWS: dict[str, Law] = {
    "logit-normal": logit_normal,
    "uniform": uniform,
    "shifted": shifted,
    "flux-shift": flux_shift,
    "few-step": few_step,
    "high-noise": high_noise,
    "low-noise": low_noise,
}
