"""Samplers: the walk from noise to picture along a schedule, one generator function each.

    velocity v(x, sigma) = dx/dsigma = noise - picture;    clean picture at any moment = x - sigma * v

A sampler knows no network, no text and no device. Its state is float32. The caller may put other latents into
`Step.x` before it goes on; the walk continues from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.sampling.noise import Draw

State = Float[Tensor, "B ..."]
Velocity = Callable[[State, float], State]


@dataclass(kw_only=False, slots=True)
class Step:
    """Where the walk is after one step.

    Attributes:
        index: of the step, from 0.
        sigma: noise level reached.
        x: the state there; what is put here is where the walk goes on.
        clean: the picture as the model saw it during this step.
        text: rows of text put here, as many and as long as before, are the prompt's from the next step on.
    """

    index: int
    sigma: float
    x: State
    clean: State
    text: Float[Tensor, "B T D"] | None = None


Sampler = Callable[[Velocity, State, Sequence[float], Draw], Iterator[Step]]


def euler(velocity: Velocity, x: State, sigmas: Sequence[float], draw: Draw) -> Iterator[Step]:
    """First order, one call a step: what FLUX.1 was distilled for."""
    for i, (here, there) in enumerate(pairwise(sigmas)):
        v = velocity(x, here)
        step = Step(i, there, x + (there - here) * v, x - here * v)
        yield step
        x = step.x


def heun(velocity: Velocity, x: State, sigmas: Sequence[float], draw: Draw) -> Iterator[Step]:
    """Second order: two calls a step, one on the last (Karras et al. 2022, algorithm 1)."""
    for i, (here, there) in enumerate(pairwise(sigmas)):
        v = velocity(x, here)
        clean = x - here * v
        if there > 0:
            v = (v + velocity(x + (there - here) * v, there)) / 2
        step = Step(i, there, x + (there - here) * v, clean)
        yield step
        x = step.x


def midpoint(velocity: Velocity, x: State, sigmas: Sequence[float], draw: Draw) -> Iterator[Step]:
    """Second order: two calls a step, the second halfway."""
    for i, (here, there) in enumerate(pairwise(sigmas)):
        half = (here + there) / 2
        v = velocity(x + (half - here) * velocity(x, here), half)
        step = Step(i, there, x + (there - here) * v, x - here * v)
        yield step
        x = step.x


def dpmpp_2m(velocity: Velocity, x: State, sigmas: Sequence[float], draw: Draw) -> Iterator[Step]:
    """Second order with one call a step: the clean picture, continued in a straight line over log sigma.

    With the clean picture D, dx/dsigma = (x - D) / sigma; for a constant D a step is x * r + D * (1 - r) with
    r = there / here, exactly. Source: Lu et al. 2022, "DPM-Solver++", algorithm 2 (multistep).
    """
    before: State | None = None
    stride = 0.0  # of the step before, in -log sigma
    for i, (here, there) in enumerate(pairwise(sigmas)):
        clean = x - here * velocity(x, here)
        ratio = there / here
        ahead = clean
        if there > 0:
            now = math.log(here / there)
            if before is not None and stride > 0:  # levels near 1 can be equal in float32
                ahead = clean + (clean - before) * (now / (2 * stride))
            stride = now
        step = Step(i, there, ratio * x + (1 - ratio) * ahead, clean)
        yield step
        x, before = step.x, clean


def euler_ancestral(velocity: Velocity, x: State, sigmas: Sequence[float], draw: Draw) -> Iterator[Step]:
    """First order with fresh noise each step: walks below the next level, then noises up to it.

    At level s the state is (1 - s) * picture + s * noise. Going down to d < s and multiplying by (1 - s) / (1 - d)
    restores the picture's share; the noise missing from s is then added. d = there^2 / here, as in the ancestral
    sampling of Karras et al. 2022, appendix B.
    """
    for i, (here, there) in enumerate(pairwise(sigmas)):
        v = velocity(x, here)
        clean = x - here * v
        down = there * there / here
        x = x + (down - here) * v
        if 0 < there < 1:
            share = (1 - there) / (1 - down)
            x = share * x + math.sqrt(max(there**2 - (share * down) ** 2, 0.0)) * draw()
        step = Step(i, there, x, clean)
        yield step
        x = step.x


def visited(sampler: Sampler, sigmas: Sequence[float]) -> list[float]:
    """Every noise level at which `sampler` asks for the velocity, in order, found by walking with a velocity of 0."""
    asked: dict[float, None] = {}

    def velocity(x: State, sigma: float) -> State:
        asked[sigma] = None
        return torch.zeros_like(x)

    start = torch.zeros(1)
    for _ in sampler(velocity, start, sigmas, lambda: torch.zeros_like(start)):
        pass
    return list(asked)


SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "heun": heun,
    "midpoint": midpoint,
    "dpmpp_2m": dpmpp_2m,
    "euler_ancestral": euler_ancestral,
}
