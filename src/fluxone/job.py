"""What a walk from noise to picture needs, as tensors, and how batches of it are put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fluxone.conditions.blend import Keep
from fluxone.conditions.condition import Extra
from fluxone.errors import BadRequest
from fluxone.nn.mixing import Mixing
from fluxone.nn.tokens import pack
from fluxone.sampling.noise import Draw
from fluxone.sampling.samplers import State, Step
from fluxone.steering.steer import Steer
from fluxone.text.encode import Text

ALIKE = ("sigmas", "grid", "guidance", "cfg", "cfg_interval", "sampler", "hold")  # what pictures of one batch share


@dataclass(frozen=True, kw_only=True)
class Job:
    """A batch of B pictures of one size.

    Attributes:
        x: where the walk starts, packed, float32.
        sigmas: noise levels, ending in 0.
        grid: rows and columns of tokens.
        draw: fresh noise of the shape of `x`, for samplers that want it.
        extra: what the network is given besides.
        keep: what is put back after each step, where a mask leaves a part of a picture as it is.
        hold: how near the reference in `extra` a token must come to become its own; 0 holds nothing.
        steer: what ControlNets and IP-Adapters look at.
        following: from the latents that this ends with to the job that goes on with them.
        tile: rows and columns of what the network sees at once; None is all.
        anchor: an enlarged picture that the walk keeps to; see `sampling.tiles.anchored`.
        scales: adapters that work, with their scale for each picture; None leaves those at work that are.
        more: texts of regions and negative text inside attention, and `mixing`, who sees them.
    """

    text: Text
    negative: Text | None
    x: State
    sigmas: list[float]
    grid: tuple[int, int]
    guidance: float
    cfg: float
    cfg_interval: tuple[float, float]
    sampler: str
    draw: Draw
    extra: Extra = field(default_factory=Extra)
    keep: Keep | None = None
    hold: float = 0.0
    steer: Steer = field(default_factory=Steer)
    tile: tuple[int, int] | None = None
    anchor: State | None = None
    scales: dict[str, Tensor] | None = None
    more: Tensor | None = None
    mixing: Mixing | None = None
    following: Callable[[State], Job] | None = None


def through(job: Job, walk: Callable[[Job], Iterator[Step]]) -> Iterator[Step]:
    """The steps of a job and of all that follow it."""
    going: Job | None = job
    while going is not None:
        x = going.x
        for step in walk(going):
            yield step
            x = step.x
        going = None if going.following is None else going.following(x)


@contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    """A context that adds the time spent in it."""
    start = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start


def stack(jobs: Sequence[Job]) -> Job:
    """One batch of the pictures of several jobs, each with its own text, noise, pictures and adapters.

    Raises:
        BadRequest: they do not walk alike.
    """
    first = jobs[0]
    if len(jobs) == 1:
        return first
    for job in jobs:
        alone = (job.following, job.keep, job.steer or None, job.mixing)
        if any(part is not None for part in alone):
            raise BadRequest(
                "a picture with a mask, regions, nag, ControlNets or several walks is in a batch with others",
                hint="make it by itself",
            )
        for name in ALIKE:
            if getattr(job, name) != getattr(first, name):
                raise BadRequest(f"pictures of one batch differ in {name}", hint="make them in two batches")
    names = dict.fromkeys(name for job in jobs for name in job.scales or ())
    if names and any(job.scales is None for job in jobs):
        raise BadRequest("some pictures of a batch say which adapters work and some do not", hint="say it for all")
    scales = {
        name: torch.cat([(job.scales or {}).get(name, torch.zeros(len(job.x))) for job in jobs]) for name in names
    }
    return replace(
        first,
        text=join([job.text for job in jobs]),
        negative=None if first.negative is None else join([job.negative for job in jobs if job.negative is not None]),
        x=torch.cat([job.x for job in jobs]),
        draw=lambda: torch.cat([job.draw() for job in jobs]),
        extra=beside([job.extra for job in jobs]),
        scales=None if first.scales is None else scales,
    )


def beside(extras: Sequence[Extra]) -> Extra:
    """What the conditions of several jobs give the network, one batch below the other.

    Raises:
        BadRequest: they are of different kinds, sizes or places.
    """
    kinds = {(extra.channels is None, extra.reference is None) for extra in extras}
    shapes = {tuple(extra.reference.shape[1:]) for extra in extras if extra.reference is not None}
    places = [extra.reference_ids for extra in extras if extra.reference_ids is not None]
    if len(kinds) > 1 or len(shapes) > 1 or any(not torch.equal(ids, places[0]) for ids in places):
        raise BadRequest("pictures of one batch look at references of different sizes", hint="make them in two batches")
    channels = [extra.channels for extra in extras if extra.channels is not None]
    reference = [extra.reference for extra in extras if extra.reference is not None]
    return Extra(
        channels=torch.cat(channels) if channels else None,
        reference=torch.cat(reference) if reference else None,
        reference_ids=places[0] if places else None,
    )


def join(texts: Sequence[Text]) -> Text:
    """One batch of several encoded texts.

    Raises:
        BadRequest: they are of different lengths.
    """
    if len(texts) == 1:
        return texts[0]
    if len({text.txt.shape[1] for text in texts}) > 1:
        raise BadRequest("the prompts are of different lengths in tokens", hint="make them one by one")
    return Text(
        txt=torch.cat([text.txt for text in texts]),
        pooled=torch.cat([text.pooled for text in texts]),
        cut=tuple(cut for text in texts for cut in text.cut),
        clip_cut=tuple(cut for text in texts for cut in text.clip_cut),
    )


def repeat(text: Text, times: int) -> Text:
    """Each row of an encoded text `times` times, side by side."""
    if times == 1:
        return text
    return Text(
        txt=text.txt.repeat_interleave(times, 0),
        pooled=text.pooled.repeat_interleave(times, 0),
        cut=tuple(cut for cut in text.cut for _ in range(times)),
        clip_cut=tuple(cut for cut in text.clip_cut for _ in range(times)),
    )


def spread(text: Text, batch: int) -> Text:
    """One row for each of `batch` pictures: those there are, or the only one.

    Raises:
        BadRequest: there is another number of rows.
    """
    if len(text.txt) == 1:
        return repeat(text, batch)
    if len(text.txt) != batch:
        raise BadRequest(f"{len(text.txt)} negative prompts for {batch} prompts", hint="give one, or as many")
    return text


def packed(latents: Tensor, shape: tuple[int, int, int, int]) -> State:
    """The caller's latents as tokens: they are that already, or of `shape` (B C h w).

    Raises:
        BadRequest: they are neither.
    """
    batch, channels, height, width = shape
    tokens = (batch, height * width // 4, 4 * channels)
    if latents.shape not in (shape, tokens):
        raise BadRequest(f"latents are of shape {tuple(latents.shape)}", hint=f"{tokens} or {shape} fit this size")
    plain = latents.detach().float().cpu()
    return pack(plain) if plain.ndim == 4 else plain
