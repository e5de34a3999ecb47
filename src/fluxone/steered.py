"""ControlNets and IP-Adapters in one call of `FluxPipeline`: diffusers' arguments to what steers the walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from fluxone import pixels as px
from fluxone.conditions.condition import Studio
from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.pixels import Picture
from fluxone.steering import Steering
from fluxone.steering.steer import Steer

T = TypeVar("T")
One = Picture | Sequence[Picture]
Embeds = Tensor | Sequence[Tensor] | None
Each = float | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Steers:
    """The arguments, named as in diffusers' FluxControlNetPipeline and FluxPipeline."""

    control_image: One | Sequence[One] | None
    controlnet_conditioning_scale: Each | None
    control_guidance_start: Each
    control_guidance_end: Each
    control_mode: int | str | Sequence[int | str | None] | None
    ip_adapter_image: One | Sequence[One] | None
    ip_adapter_image_embeds: Embeds
    negative_ip_adapter_image: One | Sequence[One] | None
    negative_ip_adapter_image_embeds: Embeds

    def steer(self, steering: Steering, canvas: Resolution, studio: Studio, each: int) -> Steer:
        """What steers the walk.

        Args:
            each: pictures a prompt.

        Raises:
            BadRequest: the arguments do not fit the loaded networks.
        """
        for name in ("control_mode", "controlnet_conditioning_scale"):
            if getattr(self, name) is not None and not self._hints(steering):
                hint = "give control_image too, once a ControlNet is loaded"
                raise BadRequest(f"{name} is given without a control picture", hint=hint)
        pixels = []
        for image in self._hints(steering):
            rows = px.from_images(image, canvas)
            pixels.append(rows.repeat_interleave(studio.batch if len(rows) == 1 else each, dim=0))
        count = len(pixels)
        scales = () if self.controlnet_conditioning_scale is None else _each(self.controlnet_conditioning_scale, count)
        starts, ends = (_each(value, count) for value in (self.control_guidance_start, self.control_guidance_end))
        for start, end in zip(starts, ends, strict=True):
            if not 0 <= start <= end <= 1:
                raise BadRequest(f"a ControlNet works from {start} to {end}", hint="use two rising shares of 0 to 1")
        hints = steering.hints(
            pixels,
            studio,
            scales=scales,
            spans=list(zip(starts, ends, strict=True)),
            modes=_each(self.control_mode, count),
        )
        looks = self._looks(steering, "ip_adapter_image", self.ip_adapter_image, self.ip_adapter_image_embeds)
        others = self.negative_ip_adapter_image, self.negative_ip_adapter_image_embeds
        away = self._looks(steering, "negative_ip_adapter_image", *others)
        return Steer(hints=hints, looks=steering.looks(looks, studio.batch, away=away))

    def _hints(self, steering: Steering) -> list[One]:
        """A picture, or a batch of them, for each ControlNet; for a single one several where it is told so."""
        image = self.control_image
        if not steering.controlnets or image is None:
            return []
        several = isinstance(image, list | tuple)
        told = any(isinstance(x, list | tuple) for x in (self.control_mode, self.controlnet_conditioning_scale))
        if several and (len(steering.controlnets) > 1 or told):
            return list(image)  # type: ignore[arg-type]
        return [image]  # type: ignore[list-item]

    def _looks(
        self, steering: Steering, name: str, images: One | Sequence[One] | None, embeds: Embeds
    ) -> list[list[Picture] | Tensor]:
        """Pictures, or their vectors, for each IP-Adapter, as diffusers takes them: alone, or in a list."""
        if images is not None and embeds is not None:
            raise BadRequest(f"{name} and {name}_embeds are both given", hint="give one of them")
        if embeds is not None:
            return [embeds] if isinstance(embeds, Tensor) else list(embeds)
        if images is None:
            return []
        each = list(images) if isinstance(images, list | tuple) else [images]
        if len(steering.adapters) == 1 and len(each) > 1:
            each = [each]
        return [list(one) if isinstance(one, list | tuple) else [one] for one in each]  # type: ignore[list-item]


def _each(value: T | Sequence[T], count: int) -> list[T]:
    return list(value) if isinstance(value, list | tuple) else [value] * count  # type: ignore[list-item]
