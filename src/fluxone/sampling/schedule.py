"""Schedules: the noise levels (sigma, 1 to 0) that a sampler visits.

    evenly spaced 1, (N-1)/N, ..., 1/N   --shift towards noise-->   sigmas of length N, then 0

All arithmetic is float32 in the order in which diffusers does it, so that the numbers are equal to the last bit.
A schedule knows the count of steps and of noise tokens, never the picture, the text or the model.

Source: black-forest-labs/flux, `sampling.get_schedule`; diffusers, `FlowMatchEulerDiscreteScheduler`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.errors import BadRequest, pick
from fluxone.variants import Variant

TABLE = 10_000  # noise levels in ComfyUI's table for FLUX
FARTHEST = 80.0  # mu: e to this power is near float32's largest number
RHO = 7.0  # of the spacing `karras`. Source: Karras et al. 2022, table 1
BETA = 0.6  # both parameters of the beta schedule. Source: Lee et al. 2024, arXiv 2407.12173

Sigmas = Float[Tensor, " N"]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far a schedule is moved towards noise. Defaults are FLUX.1-dev's.

    Attributes:
        base, top: mu at `base_tokens` and at `top_tokens` noise tokens; on the straight line through them elsewhere.
        factor: of the row `fixed`, whatever the size; 1 does nothing.
        linear: whether mu itself is the force of the shift by tokens, not e^mu.
        terminal: the last noise level before 0, to which all are stretched; 0 does nothing.
        spacing: row of `SPACINGS`: how levels lie between the first and the last; empty leaves them.
    """

    base: float = 0.5
    top: float = 1.15
    base_tokens: int = 256
    top_tokens: int = 4096
    factor: float = 1.0
    linear: bool = False
    terminal: float = 0.0
    spacing: str = ""

    @classmethod
    def of(cls, variant: Variant) -> Shift:
        """The shift that a variant was trained with."""
        return cls(
            base=variant.base_shift,
            top=variant.max_shift,
            base_tokens=variant.base_tokens,
            top_tokens=variant.max_tokens,
            factor=variant.shift,
            linear=variant.linear_shift,
            terminal=variant.terminal,
            spacing=variant.spacing,
        )


DEV_SHIFT = Shift()
Schedule = Callable[[int, int, Shift], list[float]]


def shift_mu(tokens: int, shift: Shift = DEV_SHIFT) -> float:
    """The mu of a picture of `tokens` noise tokens (never text or reference tokens), also past `top_tokens`.

    Raises:
        BadRequest: it is beyond what float32 can hold the exponential of.
    """
    slope = (shift.top - shift.base) / (shift.top_tokens - shift.base_tokens)
    mu = tokens * slope + (shift.base - slope * shift.base_tokens)
    if abs(mu) > FARTHEST:
        hint = "check base_shift and max_shift of the model's scheduler, or use another schedule or size"
        raise BadRequest(f"a picture of {tokens} tokens would have its schedule shifted by {mu:g}", hint=hint)
    return mu


def even(steps: int) -> Sigmas:
    """1, ..., 1/steps, evenly spaced."""
    if steps == 1:
        return torch.ones(1)
    stride = (1 / steps - 1.0) / (steps - 1)
    return torch.tensor([1.0 + i * stride for i in range(steps - 1)] + [1 / steps], dtype=torch.float32)


def move(sigmas: Sigmas, mu: float) -> Sigmas:
    """Move noise levels towards noise: the share of noise against picture, times e^mu."""
    force = torch.full_like(sigmas, math.exp(mu))
    return force / (force + (1 / sigmas - 1))


def counted(sigmas: Sigmas, tokens: int, shift: Shift) -> Sigmas:
    """Move noise levels towards noise by the count of noise tokens."""
    mu = shift_mu(tokens, shift)
    if not shift.linear:
        return move(sigmas, mu)
    if mu <= 0:
        hint = "check base_shift and max_shift of the model's scheduler, or use another size"
        raise BadRequest(f"a picture of {tokens} tokens would be shifted by {mu:g}, linearly", hint=hint)
    return mu / (mu + (1 / sigmas - 1))


def settled(sigmas: Sigmas, shift: Shift) -> list[float]:
    """Shifted noise levels stretched and spaced as the shift says, with the last 0."""
    if shift.terminal > 0 and sigmas[-1] < 1:
        sigmas = 1 - (1 - sigmas) / ((1 - sigmas[-1]) / (1 - shift.terminal))
    if shift.spacing:
        spacing = pick(SPACINGS, shift.spacing, "spacing of noise levels")
        sigmas = torch.tensor(spacing(float(sigmas[0]), float(sigmas[-1]), len(sigmas)), dtype=torch.float32)
    return ended(sigmas)


def scale(sigmas: Sigmas, factor: float) -> Sigmas:
    """Move noise levels towards noise by a fixed factor: `move` with mu = log(factor)."""
    return factor * sigmas / (1 + (factor - 1) * sigmas)


def linear(steps: int, tokens: int, shift: Shift = DEV_SHIFT) -> list[float]:
    """Evenly spaced, as schnell was distilled for."""
    return settled(even(steps), shift)


def shifted(steps: int, tokens: int, shift: Shift = DEV_SHIFT) -> list[float]:
    """Shifted by the count of noise tokens: larger pictures spend more steps near noise."""
    return settled(counted(even(steps), tokens, shift), shift)


def fixed(steps: int, tokens: int, shift: Shift = DEV_SHIFT) -> list[float]:
    """Shifted by `shift.factor` whatever the size."""
    return settled(scale(even(steps), shift.factor), shift)


def beta(steps: int, tokens: int, shift: Shift = DEV_SHIFT) -> list[float]:
    """The shifted range, dense at both ends: `by_quantiles` between its first and last level."""
    return settled(counted(even(steps), tokens, shift), replace(shift, spacing="beta"))


def constant(steps: int, tokens: int, shift: Shift = DEV_SHIFT) -> list[float]:
    """Mu of 1.15 whatever the size, on ComfyUI's grid of 10,000 levels (its model sampling and `simple` scheduler)."""
    levels = [1 - int(i * TABLE / steps) / TABLE for i in range(steps)]
    return ended(move(torch.tensor(levels, dtype=torch.float32), shift.top))


def given(sigmas: Sequence[float], tokens: int, shift: Shift, schedule: str) -> list[float]:
    """Shift noise levels of the caller's own as the row `schedule` would, as diffusers does with `sigmas=`."""
    levels = torch.tensor(list(sigmas), dtype=torch.float32)
    movers = {
        "shifted": lambda: counted(levels, tokens, shift),
        "constant": lambda: move(levels, shift.top),
        "fixed": lambda: scale(levels, shift.factor),
    }
    return settled(movers.get(schedule, lambda: levels)(), shift)


def ended(sigmas: Sigmas) -> list[float]:
    """The noise levels as numbers, with the last 0."""
    numbers: list[float] = sigmas.tolist()
    return [*numbers, 0.0]


def remaining(sigmas: Sequence[float], strength: float) -> list[float]:
    """The end of a schedule that image to image walks: about `strength` of its steps.

    Source: diffusers, `FluxImg2ImgPipeline.get_timesteps`.
    """
    steps = len(sigmas) - 1
    skipped = int(max(steps - min(steps * strength, steps), 0))
    return list(sigmas[skipped:])


def by_power(high: float, low: float, steps: int) -> list[float]:
    """Evenly spaced in the seventh root. Source: Karras et al. 2022, equation 5."""
    first, last = high ** (1 / RHO), low ** (1 / RHO)
    return [(first + share * (last - first)) ** RHO for share in shares(steps)]


def by_ratio(high: float, low: float, steps: int) -> list[float]:
    """Each the same part of the one before."""
    return [math.exp(math.log(high) + share * (math.log(low) - math.log(high))) for share in shares(steps)]


def by_quantiles(high: float, low: float, steps: int) -> list[float]:
    """Dense at both ends: quantiles of the beta distribution.

    Source: Lee et al. 2024, "Beta Sampling is All You Need"; diffusers, `use_beta_sigmas`.
    """
    return [low + beta_quantile(1 - share, BETA, BETA) * (high - low) for share in shares(steps)]


def shares(steps: int) -> list[float]:
    """Evenly spaced from 0 to 1."""
    return [i / max(steps - 1, 1) for i in range(steps)]


def beta_quantile(share: float, a: float, b: float) -> float:
    """The x below which `share` of the beta distribution lies, by bisection to the last bit."""
    low, high = 0.0, 1.0
    if share <= 0 or share >= 1:
        return min(max(share, low), high)
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if beta_share(middle, a, b) < share else (low, middle)


def beta_share(x: float, a: float, b: float) -> float:
    """The share of the beta distribution below x: the regularised incomplete beta function.

    Source: its continued fraction, DLMF 8.17.22, evaluated by Lentz's method.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_share(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    value, top, bottom = 1.0, 1.0, 0.0
    for m in range(200):
        terms = [-(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))]
        if m > 0:
            terms.insert(0, m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)))
        for term in terms:
            bottom = 1 / (1 + term * bottom)
            top = 1 + term / top
            value *= top * bottom
        if abs(top * bottom - 1) < 1e-16:
            break
    return front / value


SPACINGS: dict[str, Callable[[float, float, int], list[float]]] = {
    "karras": by_power,
    "exponential": by_ratio,
    "beta": by_quantiles,
}
SCHEDULES: dict[str, Schedule] = {
    "linear": linear,
    "shifted": shifted,
    "fixed": fixed,
    "beta": beta,
    "constant": constant,
}
