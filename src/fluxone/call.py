"""One call of `FluxPipeline` in diffusers' argument names, checked and translated into a `Job`.

prompts or embeddings -> Text;  height, width, steps, ... -> Request;  seed, generator, latents, image -> start
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from PIL.Image import Image
from torch import Tensor

from fluxone import arguments
from fluxone import pixels as px
from fluxone.arguments import Prompts
from fluxone.conditions import extra_of, keep_of
from fluxone.conditions.condition import Extra, Pictures
from fluxone.conditions.control import pass_over
from fluxone.conditions.crop import box_of, cut_out, laid_over
from fluxone.conditions.fill import left_of
from fluxone.conditions.reference import holdable, joined, size_for
from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.job import Job, packed
from fluxone.lora.wearing import scales_of, wearing
from fluxone.nn.tokens import pack
from fluxone.pipeline import Pipeline, size_of
from fluxone.regions import mixed
from fluxone.request import MAX_COUNT, Region, Request, check_pictures
from fluxone.sampling.noise import Source, gaussian
from fluxone.sampling.profiles import concrete
from fluxone.sampling.samplers import State
from fluxone.sampling.schedule import Shift, given, remaining
from fluxone.spoken import EMBEDS, Spoken
from fluxone.steered import Each, Embeds, One, Steers
from fluxone.ultra import TIMES, composed, enlarged, far
from fluxone.variants import Kind

WALKED = ("then", "control_image", "ip_adapter_image")  # what else one pass alone can have
SAME = (  # what a request calls as a call does
    "nag_tau", "nag_alpha", "raw", "ultra", "ultra_strength", "sampler", "schedule", "emphasis", "hold",
    "image_prompt_strength", "image_prompt_mix",
)  # fmt: skip
READABLE = ("latents", "prompt_embeds")  # tensors that `callback_on_step_end` can ask for

Pictured = px.Picture | Sequence[px.Picture] | None
StepEnd = Callable[[Any, int, Tensor, dict[str, Tensor]], Mapping[str, Tensor] | None]


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one call; `FluxPipeline.__call__` says what they mean and what their defaults are."""

    prompt: Prompts
    prompt_2: Prompts
    negative_prompt: Prompts
    negative_prompt_2: Prompts
    wildcards: str | os.PathLike[str] | None
    true_cfg_scale: float
    cfg_interval: Sequence[float]
    nag_scale: float
    nag_tau: float
    nag_alpha: float
    regions: Sequence[Region]
    raw: bool
    ultra: str | None
    ultra_strength: float | None
    height: int | None
    width: int | None
    num_inference_steps: int | None
    sigmas: Sequence[float] | None
    guidance_scale: float | None
    num_images_per_prompt: int
    seed: int | None
    generator: Source
    latents: Tensor | None
    max_sequence_length: int | None
    emphasis: str
    image: Pictured
    strength: float | None
    mask_image: Pictured
    masked_image_latents: Tensor | None
    padding_mask_crop: int | None
    control_image: Pictured | Sequence[Sequence[px.Picture]]
    controlnet_conditioning_scale: Each | None
    control_guidance_start: Each
    control_guidance_end: Each
    control_mode: int | str | Sequence[int | str | None] | None
    ip_adapter_image: One | Sequence[One] | None
    ip_adapter_image_embeds: Embeds
    negative_ip_adapter_image: One | Sequence[One] | None
    negative_ip_adapter_image_embeds: Embeds
    reference_images: Pictured
    image_reference: Pictured
    reference_layout: str
    then: str | Sequence[str]
    image_prompts: Pictured
    image_prompt_strength: float
    image_prompt_mix: str
    prompt_embeds_scale: float | Sequence[float]
    pooled_prompt_embeds_scale: float | Sequence[float]
    hold: float | None
    sampler: str | None
    schedule: str | None
    output_type: str
    callback_on_step_end: StepEnd | None
    callback_on_step_end_tensor_inputs: Sequence[str]
    auto_resize: bool
    _auto_resize: bool | None
    max_area: int | None
    return_dict: bool
    prompt_embeds: Tensor | None
    pooled_prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    negative_pooled_prompt_embeds: Tensor | None
    joint_attention_kwargs: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        arguments.whole("num_images_per_prompt", self.num_images_per_prompt, MAX_COUNT)
        if self.max_sequence_length is not None:
            arguments.whole("max_sequence_length", self.max_sequence_length, arguments.MOST_TOKENS)
        if not isinstance(self.wildcards, str | os.PathLike | None):
            raise BadRequest(f"wildcards is {self.wildcards!r:.80}", hint='give a folder, or "" for choices alone')
        embeds = {name: getattr(self, name) for name in EMBEDS}
        left = self.masked_image_latents
        arguments.tensors({"latents": self.latents, "masked_image_latents": left, **embeds})
        if left is not None and self.image is not None:
            hint = "give one of them: the latents are what the mask leaves of the image"
            raise BadRequest("image and masked_image_latents are both given", hint=hint)
        arguments.callback(self.callback_on_step_end, self.callback_on_step_end_tensor_inputs, READABLE)
        for name, value in embeds.items():
            other = name.replace("pooled_prompt", "prompt")
            if value is not None and embeds[other] is None:
                raise BadRequest(f"{name} is given without {other}", hint="give both, or words alone")
        if self.max_area is not None:
            arguments.whole("max_area", self.max_area)
        if self.strength is not None and self.image is None:
            raise BadRequest("strength is given without an image", hint="give image= too")
        if self.seed is not None and self.generator is not None:
            raise BadRequest("seed and generator are both given", hint="give one of them")

    def cropped(self, pipeline: Pipeline) -> tuple[Call, Callable[[Any], Any]]:
        """The call for the surroundings of the mask alone, and what puts the pictures that come of it back.

        Raises:
            BadRequest: picture and mask are no PIL images of one size, or the pictures are to be something else.
        """
        if self.padding_mask_crop is None:
            return self, lambda images: images
        image, mask = self.image, self.mask_image
        margin: Any = self.padding_mask_crop  # whatever a script gave
        if not isinstance(margin, int) or isinstance(margin, bool) or margin < 0:
            raise BadRequest(f"padding_mask_crop is {margin!r:.80}", hint="use a whole number of px")
        if not isinstance(image, Image) or not isinstance(mask, Image) or image.size != mask.size:
            hint = "give image and mask_image as PIL images of one size"
            raise BadRequest("padding_mask_crop is given without a picture and its mask", hint=hint)
        if self.output_type != "pil":
            raise BadRequest(f"padding_mask_crop is given with output_type {self.output_type!r}", hint="use pil")
        canvas = size_of(self._request(pipeline))
        box = box_of(mask, canvas, margin)
        part = replace(
            self, padding_mask_crop=None, image=cut_out(image, box, canvas), mask_image=cut_out(mask, box, canvas)
        )
        return part, lambda images: [laid_over(drawn, image, mask, box) for drawn in images]

    def job(self, pipeline: Pipeline, edited: State | None = None) -> Job:
        """Encode, draw and lay out, as diffusers' pipelines of this model and these pictures do.

        Args:
            edited: see `Pipeline.prepare`.
        """
        scale, active = arguments.attention_scale(self.joint_attention_kwargs), pipeline.adapters.active
        own = None if scale == 1 else tuple((name, strength.scale * scale) for name, strength in active.items())
        with wearing(pipeline.adapters, scales_of(own, 1)):
            job = self._job(pipeline, edited)
        return replace(job, scales=scales_of(own, len(job.x)))

    def _job(self, pipeline: Pipeline, edited: State | None) -> Job:
        whole = self._request(pipeline)
        request = composed(whole)
        how = (request.text_tokens, request.emphasis)
        spoken = self.spoken()
        batch = len(spoken.seeds)
        text = spoken.text(pipeline, how, request.manner or "")
        away = spoken.away(pipeline, how) if self._guided() or self.nag_scale > 1 else None
        rows, columns = grid = pipeline.grid(request)
        shape = (batch, pipeline.autoencoder.shape.latent, 2 * rows, 2 * columns)
        sources = arguments.sources(self.seed, self.generator, batch)
        levels = self._levels(pipeline, request)
        dtype = concrete(pipeline.profile.noise, pipeline.dtype)

        def noise() -> Tensor:
            return pack(gaussian(sources, shape, dtype).float())

        # Who gives a generator gets diffusers' samples of the posterior, in its order; others get the mean.
        posterior = self.generator is not None or pipeline.profile.posterior
        studio = pipeline.studio(batch, sources, posterior=posterior)
        steer = self._steers().steer(pipeline.steering, size_of(request), studio, self.num_images_per_prompt)
        pictures = self._pictures(pipeline, request, batch)
        if edited is not None:
            pictures = replace(pictures, edited=pipeline.latent(edited, grid).cpu())
        if posterior and pictures.mask is not None and Kind.CONTROL in pipeline.variant.takes:
            pass_over(pictures, studio)
        extra = extra_of(pipeline.variant, pictures, studio, early=True)
        blended = pictures.mask is not None and Kind.FILL not in pipeline.variant.takes
        picture = None
        if pictures.init is not None and (self.latents is None or blended):
            picture = pack(studio.first(pictures))
        drawn = x = noise() if self.latents is None else packed(self.latents, shape)
        if picture is not None and self.latents is None:
            x = levels[0] * drawn + (1 - levels[0]) * picture
        extra = extra or extra_of(pipeline.variant, pictures, studio, early=False) or Extra()
        job = Job(
            text=text,
            negative=away if self._guided() else None,
            x=x,
            sigmas=levels,
            grid=grid,
            guidance=request.guidance or 0.0,
            cfg=request.cfg,
            cfg_interval=request.cfg_interval,
            sampler=request.sampler or "",
            draw=noise,
            extra=extra,
            keep=None if picture is None else keep_of(pipeline.variant, pictures, picture, drawn, studio, soft=False),
            hold=holdable(request.hold, extra, grid),
            steer=steer,
            following=self._following(pipeline) if self.then else None,
        )
        job = mixed(request, pipeline.encode, job, away)
        if whole.ultra is None:
            return job
        later = (lambda: sources) if self.seed is None else partial(far, self.seed, batch)
        return replace(job, following=partial(enlarged, pipeline, whole, job, later))

    def _guided(self) -> bool:
        """Whether each step has a pass with the negative prompt."""
        return self.true_cfg_scale > 1 and (self.negative_prompt, self.negative_prompt_embeds) != (None, None)

    def spoken(self) -> Spoken:
        """The words, and with what each picture's choices are drawn."""
        said = Spoken(**{field.name: getattr(self, field.name) for field in fields(Spoken) if field.name != "seeds"})
        seeds = arguments.seeds(self.seed, self.generator, said.count * self.num_images_per_prompt)
        return replace(said, seeds=seeds)

    def _following(self, pipeline: Pipeline) -> Callable[[State], Job]:
        """What goes on with the latents of an edit by the next instruction, which is that of every prompt."""
        texts = [self.then] if isinstance(self.then, str) else list(self.then)
        prompt = texts[0] if isinstance(self.prompt, str) else texts[:1] * len(self.prompt or ())
        rest = replace(self, prompt=prompt, prompt_2=None, then=texts[1:])
        return lambda x: rest.job(pipeline, x)

    def _steers(self) -> Steers:
        return Steers(**{field.name: getattr(self, field.name) for field in fields(Steers)})

    def _control(self, pipeline: Pipeline) -> Pictured:
        """The picture of edges or depths, where it is not the ControlNets'."""
        if not pipeline.steering.controlnets:
            return self.control_image  # type: ignore[return-value]
        if Kind.CONTROL in pipeline.variant.takes:
            raise BadRequest("the model takes a control picture, and so do its ControlNets", hint="unload one of them")
        return None

    @property
    def resized(self) -> bool:
        """Whether references are brought to the sizes that the model was trained on."""
        return self.auto_resize if self._auto_resize is None else self._auto_resize

    def _size(self, pipeline: Pipeline) -> Resolution:
        """The size that is asked for: what is not said is that of the picture, where it was given as latents or a model
        that takes references repaints it, else the model's own."""
        own, times = pipeline.variant.size, 1 if self.ultra is None else TIMES
        size, init = Resolution(height=own, width=own), self._init(pipeline)
        left = self.masked_image_latents
        if (given := self._latents(pipeline, init if left is None or left.ndim != 4 else left)) is not None:
            factor = pipeline.autoencoder.shape.factor
            size = Resolution(height=given.shape[-2] * factor, width=given.shape[-1] * factor)
        elif init is not None and Kind.REFERENCE in pipeline.variant.takes:
            first = init[0] if isinstance(init, list | tuple) and init else init
            size = size_for(px.size_of(first), own, pipeline.token, auto_resize=self.resized)
        asked = Resolution(
            height=times * size.height if self.height is None else self.height,
            width=times * size.width if self.width is None else self.width,
        )
        return asked if self.max_area is None else asked.of_area(self.max_area).whole(pipeline.token)

    def _request(self, pipeline: Pipeline) -> Request:
        seen = self.mask_image is not None and Kind.REFERENCE in pipeline.variant.takes  # what is repainted, too
        request = Request(
            resolution=self._size(pipeline),
            seed=0 if self.seed is None else self.seed,
            steps=self.num_inference_steps if self.sigmas is None else len(arguments.levels(self.sigmas)),
            guidance=self.guidance_scale,
            cfg=self.true_cfg_scale,
            cfg_interval=arguments.pair("cfg_interval", self.cfg_interval),
            nag=self.nag_scale,
            regions=arguments.regions(self.regions),
            text_tokens=self.max_sequence_length,
            strength=1.0 if seen and self.strength is None else self.strength,  # as diffusers does there
            layout=self.reference_layout,
            **{name: getattr(self, name) for name in SAME},
        )
        left = self.masked_image_latents
        if left is not None and Kind.FILL not in pipeline.variant.takes:
            hint = "give image and mask_image: what is not masked is put back after each step"
            raise BadRequest(f"{pipeline.variant.name} looks at no masked_image_latents", hint=hint)
        given: dict[str, object] = {
            "init": self._init(pipeline) if left is None else left,
            "mask": self.mask_image if left is None else left,
            "control": self._control(pipeline),
            "references": self._references(pipeline) or None,
            "image_prompts": self.image_prompts,
        }
        self._check_ultra([name for name, value in given.items() if value is not None])
        check_pictures(pipeline.variant, frozenset(name for name, value in given.items() if value is not None))
        if self.then and not given["references"]:
            raise BadRequest("then is given without a picture to edit", hint="give image, to a model that edits")
        if self.strength is not None and given["init"] is None:
            raise BadRequest("strength is given, but the image is a reference here", hint="leave strength out")
        return pipeline.resolve(request, checked=True)

    def _check_ultra(self, pictures: Sequence[str]) -> None:
        """Refuse what does not go with two passes; see `Request` for the rest."""
        if self.ultra is None:
            return
        others = [name for name in (*pictures, *(name for name in WALKED if getattr(self, name))) if name != "init"]
        if self.sigmas is not None or others:
            what = "noise levels of its own" if self.sigmas is not None else others[0]
            raise BadRequest(f"ultra is given with {what}", hint="make that picture first, then use it as image")

    def _init(self, pipeline: Pipeline) -> Pictured:
        """The image to start from: it is a reference instead where the model takes those, unless it has a mask."""
        reference = Kind.REFERENCE in pipeline.variant.takes and self.mask_image is None
        return None if reference else self.image

    def _references(self, pipeline: Pipeline) -> list[px.Picture | Sequence[px.Picture]]:
        """The references, each for all pictures or one a prompt."""
        told = self.image_reference if self.reference_images is None else self.reference_images
        more = [] if told is None else list(told) if isinstance(told, list | tuple) else [told]
        alone = self.image is not None and (self.mask_image is None or not more)
        if Kind.REFERENCE not in pipeline.variant.takes or self.image is None or not alone:
            return [*more]
        return [self.image, *more]

    def _pictures(self, pipeline: Pipeline, request: Request, batch: int) -> Pictures:
        canvas, init = size_of(request), self._init(pipeline)
        mask, control, given = None, None, self._control(pipeline)
        if self.mask_image is not None:
            mask = (px.masks(self.mask_image, canvas) >= 0.5).float()
        if given is not None:
            control = self._seen(pipeline, "control_image", given, canvas)
            each = batch if len(control) == 1 else self.num_images_per_prompt
            control = control.repeat_interleave(each, dim=0)
        references = []
        size, token = pipeline.variant.size, pipeline.token
        for picture in self._references(pipeline):
            if (latents := self._latents(pipeline, picture)) is not None:
                references.append(latents)
                continue
            first = picture[0] if isinstance(picture, list | tuple) and picture else picture
            target = size_for(px.size_of(first), size, token, auto_resize=self.resized)
            references.append(px.from_images(picture, target))
        left, shape = self.masked_image_latents, pipeline.autoencoder.shape
        return Pictures(
            init=None if init is None else self._seen(pipeline, "image", init, canvas),
            mask=mask,
            left=None if left is None else left_of(left, mask, pipeline.grid(request), shape.latent, shape.factor),
            control=control,
            references=joined(references, request.layout, size, token, self.resized),
            layout=request.layout,
        )

    def _latents(self, pipeline: Pipeline, image: object) -> Tensor | None:
        return arguments.latents_of(image, pipeline.autoencoder.shape.latent)

    def _seen(self, pipeline: Pipeline, name: str, image: Any, canvas: Resolution) -> Tensor:
        """A picture on the canvas, or its latents."""
        if (latents := self._latents(pipeline, image)) is None:
            return px.from_images(image, canvas)
        if Kind.FILL in pipeline.variant.takes:
            hint = "give the picture itself, or repaint it with a model that takes no masks"
            raise BadRequest(f"{name} is given as latents, and this model masks pixels", hint=hint)
        arguments.fitting(name, latents, canvas, pipeline.autoencoder.shape.factor)
        return latents

    def _levels(self, pipeline: Pipeline, request: Request) -> list[float]:
        levels = pipeline.sigmas(request)
        if self.sigmas is not None:
            rows, columns = pipeline.grid(request)
            own = Request(sigmas=arguments.levels(self.sigmas)).sigmas or ()
            levels = given(own, rows * columns, Shift.of(pipeline.variant), request.schedule or "")
        return levels if self._init(pipeline) is None else remaining(levels, request.strength or 0.0)
