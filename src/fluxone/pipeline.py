"""The natural path of a prompt: request -> text, noise, schedule -> steps -> latents -> pixels -> pictures.

    resolve   fill in what the request leaves open, round the size to whole tokens
    prepare   text, noise (or a noised picture), noise levels                        -> Job
    walk      modulation for all levels at once, then the sampler                    -> Step, Step, ...
    decode    tokens -> latent -> pixels

The pipeline asks the variant's row and the compatibility profile, never a name. It reads no files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluxone import pixels as px
from fluxone.conditions import extra_of, keep_of
from fluxone.conditions.condition import Extra, Studio
from fluxone.conditions.expand import unfolded
from fluxone.conditions.given import finished, pictures_of
from fluxone.conditions.redux import Prompting
from fluxone.conditions.reference import holdable
from fluxone.errors import BrokenModel, pick
from fluxone.geometry import Resolution
from fluxone.job import Job, through
from fluxone.lora.adapters import Adapters
from fluxone.lora.course import by_row
from fluxone.lora.wearing import differing, scales_of, wearing
from fluxone.making import leg, make, make_together, velocity_of
from fluxone.nn.autoencoder import TILE, AutoEncoder
from fluxone.nn.inputs import Inputs
from fluxone.nn.taef1 import TinyDecoder
from fluxone.nn.tokens import image_ids, pack, unpack
from fluxone.offload import Offload
from fluxone.prompts import Texts, encoded, following
from fluxone.recipe import Recipe
from fluxone.regions import mixed
from fluxone.request import MAX_SEED, Request, Result, check_bases, check_pictures, given_by
from fluxone.sampling.guidance import Bound, bind, tabulate
from fluxone.sampling.noise import Source, gaussian, gaussian_like, generators
from fluxone.sampling.profiles import PROFILES, concrete
from fluxone.sampling.samplers import SAMPLERS, State, Step, Velocity, visited
from fluxone.sampling.schedule import SCHEDULES, Shift, remaining
from fluxone.steering import Steering
from fluxone.text.encode import Text, TextEncoders
from fluxone.ultra import TIMES, composed, enlarged, far
from fluxone.variants import Kind
from fluxone.weights.identify import condition
from fluxone.weights.keymap import CLIP, T5, TRANSFORMER
from fluxone.weights.load import Bundle, first_nonfinite

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("fluxone")

LOOKED_THROUGH = ("modulators",)  # together with the transformer, which they are inside


class Pipeline:
    """A loaded model and how to run it. Call it with a request, or walk through the steps of one.

    Attributes:
        token: width and height of a token, px.
        dtype: of the transformer.
        adapters: LoRA and its relatives, loaded and working.
        steering: ControlNets and IP-Adapters.
        decoder: what makes pixels of latents: the autoencoder, or a tiny stand-in.
        yielding: whether a picture that runs out of memory goes on with less on the device (`fitting.enduring`).
    """

    def __init__(self, bundle: Bundle, recipe: Recipe, text: TextEncoders | None, on_device: Offload) -> None:
        self.bundle, self.recipe = bundle, recipe
        self.variant, self.transformer = bundle.variant, bundle.transformer
        self.autoencoder = bundle.autoencoder
        self.decoder: AutoEncoder | TinyDecoder = bundle.autoencoder
        self.text, self.on_device = text, on_device
        self.profile = PROFILES[recipe.compat]
        self.tile, self.yielding = TILE if recipe.tiled else None, False
        self.dtype = next(bundle.transformer.parameters()).dtype
        self.token = 2 * bundle.autoencoder.shape.factor
        self._texts = Texts()
        self._sound = set(LOOKED_THROUGH)  # parts whose weights need not be looked through again
        modules = {TRANSFORMER: bundle.transformer, T5: bundle.t5, CLIP: bundle.clip}
        self.adapters = Adapters(
            {name: module for name, module in modules.items() if module is not None},
            width=bundle.transformer.shape.hidden,
            dtype=self.dtype,
            changed=self._adapted,
            bundled=self._spelt,
        )
        self.steering = Steering(self.transformer, self.dtype, on_device, self.using)
        self.prompting = Prompting(bundle.redux, self.using)

    def __call__(self, request: Request, *, on_step: Callable[[Step], None] | None = None, batch: int = 1) -> Result:
        """Make the pictures of a request.

        Args:
            on_step: called after each step of each batch.
            batch: pictures that are made together. A picture is the same to about 1e-5 whatever the batch, and
                to the last bit if it is 1.

        Raises:
            BadRequest: the request contradicts itself or the model.
            BrokenModel: the model computed NaN or infinity.
        """
        return make(self, self.resolve(request), on_step=on_step, batch=batch)

    def together(self, requests: Sequence[Request]) -> list[Result]:
        """Make the pictures of several requests in one batch, each with its own prompt, seed and adapters.

        Raises: BadRequest, if they do not walk alike; and what `__call__` does."""
        return make_together(self, [self.resolve(request) for request in requests])

    def steps(self, request: Request) -> Iterator[Step]:
        """Walk from noise to latents, all `count` pictures in one batch; `decode` makes pixels of the last `x`."""
        yield from self.walk(self.prepare(self.resolve(request)))

    def resolve(self, request: Request, *, checked: bool = False) -> Request:
        """Fill in the variant's defaults and round the size down to whole tokens, with a notice.

        Args:
            checked: whether the pictures are not in the request and have been checked by the caller.

        Raises:
            BadRequest: the size is less than one token, or the pictures are not those that the model takes.
            UnknownName: there is no such sampler or schedule.
        """
        if not checked:
            check_pictures(self.variant, given_by(request))
            check_bases(request)
        filled = request.resolve(self.variant)
        pick(SAMPLERS, filled.sampler or "", "sampler")
        if request.schedule is None and filled.schedule == "shifted" and self.profile.schedule is not None:
            filled = replace(filled, schedule=self.profile.schedule)
        pick(SCHEDULES, filled.schedule or "", "schedule")
        return replace(filled, resolution=self.whole(size_of(filled), TIMES if filled.ultra else 1))

    def whole(self, resolution: Resolution, times: int = 1) -> Resolution:
        """The size that is made: rounded down to `times` whole tokens, with a notice if that changes it."""
        rounded = resolution.whole(times * self.token)
        if rounded != resolution:
            log.warning("%s is no multiple of %d px each way: making %s", resolution, times * self.token, rounded)
        return rounded

    def prepare(self, request: Request, edited: State | None = None) -> Job:
        """Encode, draw the noise and lay out the noise levels of a resolved request, or of its edit of latents."""
        scales = scales_of(request.adapters, request.count)
        with wearing(self.adapters, scales):
            job = replace(self._prepare(composed(request), edited), scales=scales)
        sources = partial(far, request.seed, request.count)
        return job if request.ultra is None else replace(job, following=partial(enlarged, self, request, job, sources))

    def _prepare(self, request: Request, edited: State | None) -> Job:
        count = request.count
        sources = generators((request.seed + i) % (MAX_SEED + 1) for i in range(count))
        rows, columns = grid = self.grid(request)
        shape = (count, self.autoencoder.shape.latent, 2 * rows, 2 * columns)
        dtype = concrete(self.profile.noise, self.dtype)
        sigmas = self.sigmas(request)

        def noise() -> Tensor:
            return pack(gaussian(sources, shape, dtype).float())

        pictures = pictures_of(unfolded(request), size=self.variant.size, token=self.token)
        pictures = replace(pictures, edited=None if edited is None else self.latent(edited, grid).cpu())
        if self.profile.posterior:
            pictures = pictures.repeated(count)  # each picture of a batch has a sample of its own
        studio = self.studio(count, sources, posterior=self.profile.posterior)
        steer = self.steering.of(request, pictures.hints, studio)
        extra = extra_of(self.variant, pictures, studio, early=True)
        picture = None if pictures.init is None else pack(studio.first(pictures))
        drawn = x = noise()
        if picture is not None:
            x = sigmas[0] * drawn + (1 - sigmas[0]) * picture
        extra = extra or extra_of(self.variant, pictures, studio, early=False) or Extra()
        away = encoded(request, self.encode, negative=True) if max(request.cfg, request.nag) > 1 else None
        job = Job(
            text=self.prompting.of(request, encoded(request, self.encode, negative=False)),
            negative=away if request.cfg > 1 else None,
            x=x,
            sigmas=sigmas,
            grid=grid,
            guidance=request.guidance or 0.0,
            cfg=request.cfg,
            cfg_interval=request.cfg_interval,
            sampler=request.sampler or "",
            draw=noise,
            extra=extra,
            keep=None if picture is None else keep_of(self.variant, pictures, picture, drawn, studio, soft=True),
            hold=holdable(request.hold, extra, grid),
            steer=steer,
            following=following(request, self.prepare),
        )
        return mixed(request, self.encode, job, away)

    def studio(self, batch: int, sources: Source, *, posterior: bool) -> Studio:
        """What conditions of a batch are made with; what a model looks at as references is always the mean."""
        posterior = posterior and Kind.REFERENCE not in self.variant.takes
        sample = partial(self.encode_pixels, sources=sources, posterior=posterior)
        mean = partial(self.encode_pixels, sources=None, posterior=False)
        shape = self.autoencoder.shape
        return Studio(sample=sample, mean=mean, batch=batch, factor=shape.factor, channels=shape.latent)

    def finish(self, image: Image, request: Request) -> Image:
        """What was drawn as the person gets it: in the frame of the given picture, pasted into it if asked."""
        return finished(image, unfolded(request), self.token)

    def sigmas(self, request: Request) -> list[float]:
        """The noise levels of a resolved request, ending in 0: its own, or its schedule's; of these the end, if it
        starts from a picture."""
        if request.sigmas is not None:
            levels = [*request.sigmas, 0.0]
        else:
            rows, columns = self.grid(request)
            schedule = pick(SCHEDULES, request.schedule or "", "schedule")
            levels = schedule(request.steps or self.variant.steps, rows * columns, Shift.of(self.variant))
        return levels if request.init is None else remaining(levels, request.strength or 0.0)

    def grid(self, request: Request) -> tuple[int, int]:
        """Rows and columns of tokens of a resolved request."""
        return size_of(request).grid_of(self.token)

    def encode(
        self, prompts: Sequence[str], clip_prompts: Sequence[str | None], tokens: int | None, emphasis: str = "off"
    ) -> Text:
        """Encode prompts one by one, so that none depends on its neighbours; what was encoded before is reused.

        Raises:
            MissingParts: the model came without text encoders.
        """
        keys = [
            (prompt, prompt if clip is None else clip, tokens or self.variant.text_tokens, emphasis)
            for prompt, clip in zip(prompts, clip_prompts, strict=True)
        ]
        if self._texts.absent(keys):
            with self.using("text"), torch.inference_mode():
                self._texts.read(keys, self.text, self.recipe.compat)
        return self._texts.of(keys)

    def encode_pixels(self, pixels: px.Pixels, sources: Source, *, posterior: bool, tiled: bool = False) -> Tensor:
        """The latent (B C h w, float32, on the CPU) of pixels in -1..1: the mean, or a sample of the posterior."""
        with self.using("autoencoder"), torch.inference_mode():
            weight = next(self.autoencoder.parameters())
            pixels, tile = pixels.to(self.on_device.device, weight.dtype), TILE if tiled else self.tile
            if not posterior:
                return self.autoencoder.encode(pixels, tile=tile).float().cpu()
            draw = partial(gaussian_like, sources)
            return self.autoencoder.sample(pixels, draw, tile=tile).float().cpu()

    def walk(self, job: Job) -> Iterator[Step]:
        """Walk from the job's start to its latents; what the caller puts into `Step.x` is where it goes on.

        Raises:
            BrokenModel: a step is not finite.
        """
        yield from through(job, partial(leg, self))

    def bind(self, job: Job) -> list[Bound]:
        """What the network is given during a walk, its modulation computed: with the prompt, then with the negative.

        No noise level that is visited, nothing to give.
        """
        levels = visited(pick(SAMPLERS, job.sampler, "sampler"), job.sigmas)
        if not levels:
            return []
        sides = [self._inputs(job, text) for text in (job.text, job.negative) if text is not None]
        rows = by_row(self.adapters, job.sigmas, levels, job.x.shape[0], differing(job.scales))
        rounding = self.profile.rounding(self.dtype)
        with self.using("modulators"), rows:
            tables = [tabulate(self.transformer, side, levels, rounding=rounding) for side in sides]
        return [bind(self.transformer, side, table) for side, table in zip(sides, tables, strict=True)]

    def stride(self, job: Job, velocities: Sequence[Velocity]) -> Iterator[Step]:
        """Walk by velocities that the caller answers for: with the prompt, then with the negative if there is one."""
        if not velocities:
            return
        device, v = self.on_device.device, velocity_of(job, velocities, self.adapters)
        state = concrete(self.profile.state, self.dtype)
        keep = None if job.keep is None else job.keep.to(device)
        sampler = pick(SAMPLERS, job.sampler, "sampler")
        for step in sampler(v, job.x.to(device), job.sigmas, lambda: job.draw().to(device)):
            step.x = step.x.to(state).float()
            if keep is not None:
                step.x = keep(step.x, step.sigma)
            self._check("transformer", step.x)
            yield step

    def decode(self, x: State, grid: tuple[int, int], *, tiled: bool = False) -> px.Pixels:
        """Pixels, about -1..1, float32, of the latents that a walk ended with; one picture after the other.

        Args:
            tiled: decode in tiles whatever the recipe says.

        Raises:
            BrokenModel: a pixel is not finite.
        """
        with self.using("autoencoder" if self.decoder is self.autoencoder else "decoder"), torch.inference_mode():
            weight = next(self.decoder.parameters())
            latent = self.latent(x, grid).to(self.on_device.device, weight.dtype)
            tile = TILE if tiled else self.tile
            out = torch.cat([self.decoder.decode(one, tile=tile).float() for one in torch.split(latent, 1)])
            self._check("autoencoder", out)
        return out.clone()

    def latent(self, x: State, grid: tuple[int, int]) -> Tensor:
        """The latent (B C h w) of a step's tokens."""
        return unpack(x, *grid)

    @property
    def hashes(self) -> dict[str, str]:
        """Fingerprints of all that draws: the model's parts, and the adapters that work."""
        return {**self.bundle.hashes, **self.adapters.hashes, **self.steering.hashes}

    def forget(self) -> None:
        """Drop what was learnt about the weights, encoded prompts above all; for when they have changed."""
        self._texts.clear()
        self._sound = set(LOOKED_THROUGH)

    def _spelt(self, words: Mapping[str, Mapping[str, Tensor]]) -> None:
        """What follows from own words that adapters bring."""
        if self.text is not None and (words or self.text.own.brought):
            self.text.own.follow(words)
            self._texts.clear()

    def _adapted(self, parts: set[str]) -> None:
        """What follows from another choice of adapters: other texts, or a condition that a control LoRA brings."""
        if parts != {TRANSFORMER}:
            self._texts.clear()
        wide = self.adapters.in_channels
        if wide is None or wide <= self.bundle.variant.shape.in_channels:
            self.variant = self.bundle.variant
            return
        kind = condition(replace(self.bundle.variant.shape, in_channels=wide), self.autoencoder.shape.factor)
        assert kind is not None, "wider than the noise"
        self.variant = self.bundle.variant.taking(kind)

    def _inputs(self, job: Job, text: Text) -> Inputs:
        device, batch = self.on_device.device, job.x.shape[0]
        more = None if job.more is None or text is not job.text else job.more.to(device, self.dtype)
        guidance = torch.full((batch,), job.guidance, device=device) if self.variant.guided else None
        channels, reference = (
            None if tokens is None else tokens.to(device, self.dtype)
            for tokens in (job.extra.channels, job.extra.reference)
        )
        return Inputs(
            txt=text.txt.to(device, self.dtype),
            pooled=text.pooled.to(device, self.dtype),
            guidance=guidance,
            ids=image_ids(*(job.tile or job.grid)).to(device),
            channels=channels,
            reference=reference,
            reference_ids=job.extra.reference_ids,
            more=more,
            mixing=None if more is None else job.mixing,
        )

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """A context in which a part can compute; at its first use its weights are looked through.

        That costs one pass over them, and is needed: attention on a CPU turns NaN into 0, and the picture would
        look like one.

        Raises:
            BrokenModel: a weight is NaN or infinite.
        """
        with self.on_device(name):
            if name not in self._sound:
                for module in self.on_device.parts[name]:
                    if weight := first_nonfinite(module):
                        raise BrokenModel(
                            f"{type(module).__name__}: the weight {weight} holds NaN or infinity; no picture is made",
                            hint="the file is broken: get it again",
                        )
                self._sound.add(name)
            yield

    def _check(self, name: str, values: Tensor) -> None:
        if not torch.isfinite(values).all():
            hint = "its weights are finite; try dtype bfloat16 or float32" if self.dtype == torch.float16 else None
            raise BrokenModel(f"the {name} computed values that are not finite; no picture is made", hint=hint)


def size_of(request: Request) -> Resolution:
    """The size of a resolved request."""
    assert request.resolution is not None, "resolve the request first"
    return request.resolution
