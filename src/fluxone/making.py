"""Resolved requests' pictures: batch by batch, pass by pass, decoded and finished, and how long each part took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from fluxone import pixels as px
from fluxone.cache.runner import guessing
from fluxone.errors import BadRequest
from fluxone.fitting import enduring
from fluxone.job import Job, clock, stack
from fluxone.lora.adapters import Adapters
from fluxone.lora.course import along
from fluxone.lora.wearing import differing, wearing
from fluxone.prompts import each
from fluxone.request import MAX_SEED, Request, Result
from fluxone.sampling.guidance import Bound, true_guidance
from fluxone.sampling.holding import holding
from fluxone.sampling.samplers import State, Step, Velocity
from fluxone.sampling.tiles import anchored, tiled
from fluxone.ultra import TILED

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxone.pipeline import Pipeline


def make(pipeline: Pipeline, request: Request, *, on_step: Callable[[Step], None] | None, batch: int) -> Result:
    """Make the pictures of a resolved request; see `Pipeline.__call__`."""
    ones = each(request)
    request = ones[0] if len(ones) == 1 else request
    seeds = [(request.seed + i) % (MAX_SEED + 1) for i in range(request.count)]
    images: list[Image] = []
    seconds = {"text": 0.0, "steps": 0.0, "decode": 0.0}
    for start in range(0, request.count, batch):
        part = replace(request, seed=seeds[start], count=min(batch, request.count - start))
        with clock(seconds, "text"):
            job = enduring(pipeline, partial(pipeline.prepare, part))
        with clock(seconds, "steps"):
            x = enduring(pipeline, partial(_walked, pipeline, job, on_step))
        with clock(seconds, "decode"):
            tiled = part.ultra in TILED
            pixels = enduring(pipeline, partial(pipeline.decode, x, pipeline.grid(part), tiled=tiled))
            images += [pipeline.finish(image, request) for image in px.to_images(px.unit(pixels))]
    prompts = [one.prompt for one in ones]
    return Result(images=images, request=request, seeds=seeds, prompts=prompts, seconds=seconds)


def _walked(pipeline: Pipeline, job: Job, on_step: Callable[[Step], None] | None) -> State:
    """The latents that a job ends with."""
    x = job.x
    for step in pipeline.walk(job):
        if on_step is not None:
            on_step(step)
        x = step.x
    return x


def leg(pipeline: Pipeline, job: Job) -> Iterator[Step]:
    """The steps of a job's own walk."""
    with wearing(pipeline.adapters, job.scales):
        bounds = pipeline.bind(job)
        with pipeline.using("transformer"), Telling(pipeline, job, bounds) as telling:
            for step in pipeline.stride(job, guessed(pipeline, job, telling.velocities)):
                yield step
                if step.text is not None:
                    telling.tell(step.text)


class Telling:
    """What the network is told along one walk, where the prompt's text may change on the way."""

    def __init__(self, pipeline: Pipeline, job: Job, bounds: Sequence[Bound]) -> None:
        self.pipeline, self.job, self.bounds = pipeline, job, list(bounds)
        self._stack = ExitStack()
        self._now: list[Velocity] = []

    def __enter__(self) -> Telling:
        rounding = self.pipeline.profile.rounding(self.pipeline.dtype)
        self._now = self._stack.enter_context(self.pipeline.steering.at(self.job, self.bounds, rounding))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def velocities(self) -> list[Velocity]:
        """Of the prompt, then of the negative one if there is one."""
        return [partial(self._velocity, side) for side in range(len(self.bounds))]

    def tell(self, text: Tensor) -> None:
        """Go on with another text for the prompt, of the same shape; what is made of words once a walk is made anew."""
        self._stack.close()
        inputs = self.bounds[0].inputs
        self.bounds[0] = replace(self.bounds[0], inputs=replace(inputs, txt=text.to(inputs.txt)))
        self.__enter__()

    def _velocity(self, side: int, x: State, sigma: float) -> State:
        return self._now[side](x, sigma)


def guessed(pipeline: Pipeline, job: Job, velocities: Sequence[Velocity]) -> list[Velocity]:
    """The velocities of a job's own walk, some steps guessed if the recipe says so.

    What is remembered is of one picture that changes little by little: in tiles, or with a ControlNet that comes and
    goes, all steps are computed.
    """
    cache = None if job.steer or job.tile is not None else pipeline.recipe.cache
    return [guessing(pipeline.transformer, v, cache, len(job.sigmas) - 1) for v in velocities]


def velocity_of(job: Job, velocities: Sequence[Velocity], adapters: Adapters) -> Velocity:
    """The velocity that a job is walked by.

    Args:
        velocities: of the network with the prompt, then with the negative one if there is one; of a tile each, if the
            job has tiles.
    """
    v = velocities[0]
    if len(velocities) > 1:
        v = true_guidance(v, velocities[1], scale=job.cfg, sigmas=job.sigmas, interval=job.cfg_interval)
    v = along(adapters, v, job.sigmas, differing(job.scales))
    if job.tile is not None:
        v = tiled(v, job.grid, job.tile, job.sigmas, job.mixing.look if job.mixing else lambda kept: None)
    if job.anchor is not None:
        v = anchored(v, job.anchor, job.grid)
    return holding(v, job.extra.reference, job.hold) if job.hold and job.extra.reference is not None else v


def make_together(pipeline: Pipeline, requests: Sequence[Request]) -> list[Result]:
    """Make the pictures of several resolved requests in one batch; see `Pipeline.together`."""
    seconds = {"text": 0.0, "steps": 0.0, "decode": 0.0}
    if not requests:
        return []
    if any(request.ultra is not None for request in requests):
        raise BadRequest("an ultra picture is in a batch with others", hint="make it by itself")
    with clock(seconds, "text"):
        job = stack([pipeline.prepare(request) for request in requests])
    with clock(seconds, "steps"):
        x = job.x
        for step in pipeline.walk(job):
            x = step.x
    with clock(seconds, "decode"):
        drawn = iter(px.to_images(px.unit(pipeline.decode(x, job.grid))))
    results = []
    for request in requests:
        ones = each(request)
        results.append(
            Result(
                images=[pipeline.finish(next(drawn), request) for _ in ones],
                request=ones[0] if len(ones) == 1 else request,
                seeds=[(request.seed + i) % (MAX_SEED + 1) for i in range(request.count)],
                prompts=[one.prompt for one in ones],
                seconds=seconds,
            )
        )
    return results
