"""Ultra: pictures of four times the variant's own area, in two passes.

    pass 1   half the size each way, as always: what the picture shows is decided at a size that the model knows
    pass 2   decoded, enlarged, encoded, noised to a share of the schedule, and walked again at full size: `tiled`, the
             network never sees more than in pass 1, or `whole`, all at once; what pass 1 shows stays (`anchored`)

The schedule of pass 2 is that of the tokens which the network sees at once. Past the variant's largest count mu grows
with log(sqrt(tokens)), by which the same noise hides as much of a larger picture; the straight line that serves below
would leave only noise there. Source: Esser et al. 2024, arXiv 2403.03206, section 5.3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch.nn.functional as F

from fluxone.conditions.condition import Extra
from fluxone.errors import pick
from fluxone.geometry import Resolution
from fluxone.job import Job
from fluxone.nn.tokens import pack
from fluxone.regions import placed
from fluxone.request import MAX_SEED, Request
from fluxone.sampling.noise import Source, gaussian, generators
from fluxone.sampling.profiles import concrete
from fluxone.sampling.samplers import State
from fluxone.sampling.schedule import SCHEDULES, Shift, remaining
from fluxone.steering.steer import Steer

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from fluxone.pipeline import Pipeline

TIMES = 2  # as large each way
TILED = ("tiled",)  # rows of `request.ULTRAS` in which the network sees pass 2 in parts
FAR = 2**61  # from the seed of pass 1: noise that the picture has nothing to do with


def composed(request: Request) -> Request:
    """The request of pass 1; itself if there is no other."""
    if request.ultra is None or request.resolution is None:
        return request
    half = Resolution(height=request.resolution.height // TIMES, width=request.resolution.width // TIMES)
    return replace(request, resolution=half, ultra=None)


def enlarged(pipeline: Pipeline, request: Request, job: Job, sources: Callable[[], Source], x: State) -> Job:
    """Pass 2 of a resolved request, whose pass 1, `job`, ended with `x`.

    Args:
        sources: of the noise.
    """
    rows, columns = pipeline.grid(request)
    tile = job.grid if request.ultra in TILED else None
    pixels = pipeline.decode(x, job.grid)
    large = F.interpolate(pixels, scale_factor=TIMES, mode="bicubic").clamp(-1, 1)
    picture = pack(pipeline.encode_pixels(large, None, posterior=False, tiled=tile is not None))
    drawn = sources()
    shape = (len(x), pipeline.autoencoder.shape.latent, 2 * rows, 2 * columns)
    dtype = concrete(pipeline.profile.noise, pipeline.dtype)

    def noise() -> Tensor:
        return pack(gaussian(drawn, shape, dtype).float())

    sigmas = levels(pipeline, request)
    second = replace(
        job,
        x=sigmas[0] * noise() + (1 - sigmas[0]) * picture,
        sigmas=sigmas,
        grid=(rows, columns),
        tile=tile,
        anchor=picture,
        draw=noise,
        extra=Extra(),
        keep=None,
        steer=Steer(),
        following=None,
    )
    return placed(request, second)


def far(seed: int, count: int) -> list[Generator]:
    """What noise of pass 2 is drawn from."""
    return generators((seed + i + FAR) % (MAX_SEED + 1) for i in range(count))


def levels(pipeline: Pipeline, request: Request) -> list[float]:
    """The noise levels of pass 2 of a resolved request."""
    rows, columns = pipeline.grid(composed(request) if request.ultra in TILED else request)
    shift = Shift.of(pipeline.variant)
    schedule = pick(SCHEDULES, request.schedule or "", "schedule")
    whole = schedule(request.steps or pipeline.variant.steps, counted(rows * columns, shift), shift)
    return remaining(whole, request.ultra_strength or 0.0)


def counted(tokens: int, shift: Shift) -> int:
    """How many tokens a schedule's straight line is told of, so that mu grows more slowly past its end."""
    if tokens <= shift.top_tokens:
        return tokens
    slope = (shift.top - shift.base) / (shift.top_tokens - shift.base_tokens)
    return round(shift.top_tokens + math.log(tokens / shift.top_tokens) / 2 / slope) if slope > 0 else tokens


def passes(pipeline: Pipeline, request: Request) -> list[tuple[tuple[int, int], int]]:
    """Grid and count of steps of each pass of a resolved request."""
    first = composed(request)
    found = [(pipeline.grid(first), len(pipeline.sigmas(first)) - 1)]
    if request.ultra is not None:
        found.append((pipeline.grid(request), len(levels(pipeline, request)) - 1))
    return found
