"""FluxPipeline, the Python door, in diffusers' argument names.

It translates: prompts to encoded texts, generators to noise, `sigmas` through the variant's shift, and what the
walk ends with to pictures. All else is `Pipeline`'s. With the same weights and noise, in float32, the pictures are
those of diffusers 0.42's FluxPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline, FluxKontextPipeline,
FluxFillPipeline, FluxControlPipeline and FluxPriorReduxPipeline within 1e-4.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from fluxone import pixels as px
from fluxone.adapting import Adapting
from fluxone.arguments import Prompts, plain, replaced
from fluxone.assembly import best_device
from fluxone.call import Call, StepEnd
from fluxone.errors import BadRequest, pick
from fluxone.guiding import Guiding
from fluxone.job import Job, through
from fluxone.opening import Opening
from fluxone.pipeline import Pipeline
from fluxone.pixels import Picture
from fluxone.recipe import Recipe
from fluxone.request import MAX_SEED, Region
from fluxone.sampling.noise import Source
from fluxone.sampling.samplers import Step
from fluxone.scripted import Scripted
from fluxone.steered import Each, Embeds, One
from fluxone.ultra import TILED

Images = list[Image] | np.ndarray | Tensor


@dataclass(frozen=True)
class FluxPipelineOutput:
    """The pictures, prompt after prompt: a list of PIL pictures, or what `output_type` asked for; and the prompt of
    each, its choices made."""

    images: Images
    prompts: list[str] = field(default_factory=list)

    def __getitem__(self, key: str | int) -> Images:
        """The pictures: by name, or as number 0."""
        return (self.images,)[key] if isinstance(key, int) else {"images": self.images}[key]

    def to_tuple(self) -> tuple[Images]:
        """What `return_dict=False` gives."""
        return (self.images,)


class FluxPipeline(Opening, Adapting, Guiding, Scripted):
    """Text to image, and with pictures whatever the model can do with them.

    Attributes:
        pipeline: the floor below, with `Request` and `Result`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._interrupt = False
        self._call: Call | None = None
        self._sigmas: Sequence[float] = ()
        self._sigma: float | None = None

    @torch.no_grad()
    def __call__(  # noqa: PLR0913
        self,
        prompt: Prompts = None,
        *,
        prompt_2: Prompts = None,
        negative_prompt: Prompts = None,
        negative_prompt_2: Prompts = None,
        wildcards: str | os.PathLike[str] | None = None,
        true_cfg_scale: float = 1.0,
        cfg_interval: Sequence[float] = (0.0, 1.0),
        nag_scale: float = 1.0,
        nag_tau: float = 2.5,
        nag_alpha: float = 0.25,
        regions: Region | Sequence[Region] = (),
        raw: bool = False,
        ultra: str | None = None,
        ultra_strength: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: Source = None,
        latents: Tensor | None = None,
        max_sequence_length: int | None = None,
        emphasis: str = "off",
        image: Picture | Sequence[Picture] | None = None,
        strength: float | None = None,
        mask_image: Picture | Sequence[Picture] | None = None,
        masked_image_latents: Tensor | None = None,
        padding_mask_crop: int | None = None,
        control_image: One | Sequence[One] | None = None,
        controlnet_conditioning_scale: Each | None = None,
        control_guidance_start: Each = 0.0,
        control_guidance_end: Each = 1.0,
        control_mode: int | str | Sequence[int | str | None] | None = None,
        ip_adapter_image: One | Sequence[One] | None = None,
        ip_adapter_image_embeds: Embeds = None,
        negative_ip_adapter_image: One | Sequence[One] | None = None,
        negative_ip_adapter_image_embeds: Embeds = None,
        reference_images: Picture | Sequence[Picture] | None = None,
        image_reference: Picture | Sequence[Picture] | None = None,
        reference_layout: str = "offset",
        then: str | Sequence[str] = (),
        hold: float | None = 0.0,
        image_prompts: Picture | Sequence[Picture] | None = None,
        image_prompt_strength: float = 1.0,
        image_prompt_mix: str = "sum",
        prompt_embeds_scale: float | Sequence[float] = 1.0,
        pooled_prompt_embeds_scale: float | Sequence[float] = 1.0,
        sampler: str | None = "euler",
        schedule: str | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        auto_resize: bool = True,
        _auto_resize: bool | None = None,
        max_area: int | None = None,
        return_dict: bool = True,
        prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        joint_attention_kwargs: Mapping[str, Any] | None = None,
    ) -> FluxPipelineOutput | tuple[Images]:
        """Make pictures; None is the variant's own default, or off. docs/python.md shows what goes together.

        Args:
            prompt, prompt_2: for CLIP and for T5; T5 reads `prompt` too unless `prompt_2` is given.
            wildcards: folder of files for `__name__` in prompts, "" for choices like `{red|blue}` alone: drawn for
                each picture by its seed, or by the one that its generator was made with.
            cfg_interval, regions, raw, ultra, ultra_strength: as in `Request`.
            nag_scale, nag_tau, nag_alpha: as `nag` and its kin there, away from `negative_prompt`.
            height, width: px, rounded down to whole tokens (16 px for FLUX.1's autoencoder) with a notice.
            sigmas: own noise levels before the variant's shift, without the last 0.
            seed, generator: of the first picture, the others have the next ones; or one for all, or a list. None is
                torch's global. Noise is drawn as diffusers draws it; `latents` (B, L, 64) or (B, 16, h, w) replace it.
            emphasis: whether `(red:1.3)` weighs words: `off` as in diffusers, `auto` where a number is given, `on`.
            image, strength, mask_image: picture to start from, how much of it to forget, and where it is repainted
                (white). `padding_mask_crop` draws what is within so many px of the mask alone, as large as a picture,
                and puts it back. To a model that takes references (Kontext) the image is one, unless it has a mask.
                Pictures may be latents (B, 16, h, w), scaled as the autoencoder gives them. `masked_image_latents`
                are what a Fill model sees in their place: (B, L, 320), the mask with them, or with `mask_image` the
                latents alone, (B, L, 64) or (B, 16, h, w).
            control_image: for a model that takes edges or depths, or one for each of its ControlNets.
            ip_adapter_image: one picture, or list, for each IP-Adapter; on the negative side black if not given.
            reference_images, reference_layout: more references, placed by `offset`, `index` or `stitched`;
                `auto_resize` (diffusers' `_auto_resize`) brings them to the sizes that the model was trained on.
                `image_reference` is diffusers' name for one beside an `image` with a mask.
            max_area: px that height and width are brought to, as diffusers' Kontext does; None draws what is asked.
            image_prompts: pictures that speak beside each prompt, or alone, for a model with Redux: mixed by
                `image_prompt_mix` (`sum` or `beside`), multiplied by `image_prompt_strength` and diffusers' two
                scales, one number or one each.
            joint_attention_kwargs: `{"scale": 0.5}` is the strength of all adapters in this call.
            then: further instructions, each editing the latents of the one before.
            hold: as in `Request`; 0 draws what diffusers draws.
            output_type: `pil`, `np` (B H W 3, 0..1), `pt` (B 3 H W, 0..1), `latent` (packed).
            callback_on_step_end: called with (pipe, step, timestep, tensors); may give other latents and prompt_embeds
                back, of the same shapes.

        Raises:
            BadRequest, BrokenModel: arguments contradict each other or the model; or it computed NaN or infinity.
        """
        return self._run(Call(**{name: plain(value) for name, value in locals().items() if name != "self"}))

    def _run(self, call: Call) -> FluxPipelineOutput | tuple[Images]:
        output = pick(OUTPUTS, call.output_type, "output type")
        if call.wildcards is not None and call.seed is None and call.generator is None:
            call = replace(call, seed=int(torch.randint(MAX_SEED, ())))  # one for the choices and for the noise
        call, put_back = call.cropped(self.pipeline)
        going = call.job(self.pipeline)
        x, self._call, self._interrupt = going.x, call, False

        def leg(part: Job) -> Iterator[Step]:
            nonlocal going
            going, self._sigmas = part, part.sigmas
            yield from self.pipeline.walk(replace(part, following=None))

        for step in through(going, leg):
            self._sigma = going.sigmas[step.index]
            if call.callback_on_step_end is not None:
                # A copy of the text, which is kept for other calls; whoever changes it in place changes this walk's.
                tensors = {"latents": step.x, "prompt_embeds": going.text.txt.clone()}
                told = {name: tensors[name] for name in call.callback_on_step_end_tensor_inputs}
                answer = call.callback_on_step_end(self, step.index, torch.tensor(self._sigma) * 1000, told)
                step.x, text = replaced(answer, tensors).values()
                if not torch.equal(text, going.text.txt):
                    step.text = text
                    going = replace(going, text=replace(going.text, txt=text))
            x = step.x
            if self._interrupt:
                break
        images = put_back(output(self.pipeline, x, going.grid, tiled=call.ultra in TILED))
        return FluxPipelineOutput(images, call.spoken().prompts) if call.return_dict else (images,)

    def to(
        self,
        *places: torch.device | str | torch.dtype,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> FluxPipeline:
        """Run on another device. The dtype is decided when the model is loaded."""
        for place in (*places, *(named for named in (device, dtype) if named is not None)):
            if isinstance(place, torch.dtype):
                if place != self.pipeline.dtype:
                    raise BadRequest(f"the model is in {self.dtype}", hint=f"load it with torch_dtype={place}")
                continue
            self._place("none", str(place))
            for name in self.pipeline.on_device.parts:
                with self.pipeline.on_device(name):
                    pass
        return self

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """Bring each part to the device when its turn comes: peak memory is that of the largest part."""
        self._place("model", _device(gpu_id, device))

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Bring the blocks one by one: least memory, slowest."""
        self._place("block", _device(gpu_id, device))

    def _place(self, mode: str, device: str) -> None:
        recipe = Recipe(device=device, offload=mode)
        try:
            kind = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise BadRequest(f"{device} cannot be used: {error}", hint="use device cpu") from None
        self.pipeline.on_device.change(mode, kind)
        self.pipeline.recipe = replace(self.pipeline.recipe, device=recipe.device, offload=mode)


def _device(gpu_id: int | None, device: torch.device | str | None) -> str:
    chosen = best_device() if device is None else str(device)
    return chosen if gpu_id is None or chosen == "cpu" else f"{chosen.split(':')[0]}:{gpu_id}"


def _unit(pipeline: Pipeline, x: Tensor, grid: tuple[int, int], *, tiled: bool) -> px.Pixels:
    return px.unit(pipeline.decode(x, grid, tiled=tiled))


OUTPUTS: dict[str, Callable[..., Images]] = {
    "pil": lambda *walked, tiled: px.to_images(_unit(*walked, tiled=tiled)),
    "np": lambda *walked, tiled: px.to_arrays(_unit(*walked, tiled=tiled)),
    "pt": _unit,
    "latent": lambda pipeline, x, grid, *, tiled: x,
}
