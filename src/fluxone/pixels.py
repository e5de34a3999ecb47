"""Pictures as tensors and back: 0..255 in PIL, 0..1 at the doors, -1..1 in the network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.geometry import Resolution

log = logging.getLogger("fluxone")

Pixels = Float[Tensor, "B 3 H W"]
Mask = Float[Tensor, "B 1 H W"]
Picture = Image.Image | np.ndarray | Tensor


def from_images(images: Picture | Sequence[Picture], resolution: Resolution) -> Pixels:
    """Pixels in -1..1 at the resolution: PIL pictures by Lanczos, arrays (H W 3) and tensors (3 H W) of 0..1, or of
    -1..1 where any of them is below 0, by the nearest, as diffusers does.

    Raises:
        BadRequest: it is no picture, not of three colours, or of other values.
    """
    several: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
    if not several:
        raise BadRequest("no picture was given", hint="give at least one")
    given = [picture if isinstance(picture, Image.Image) else _values(picture) for picture in several]
    low = min((float(values.min()) for values in given if isinstance(values, Tensor)), default=0.0)
    if -1 <= low < 0:
        log.warning("a picture has values down to %g: they are taken as -1 to 1, not as 0 to 1", low)
    return torch.cat([_one(picture, resolution, signed=low < 0) for picture in given])


def masks(images: Picture | Sequence[Picture], resolution: Resolution) -> Mask:
    """Masks in 0..1 at the resolution, 1 where it is white: PIL pictures by Lanczos, arrays (H W, B H W or B H W 1)
    and tensors (H W, B H W or B 1 H W) of 0..1 by the nearest, as diffusers does.

    Raises:
        BadRequest: it is no picture, or of several colours.
    """
    several: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
    if not several:
        raise BadRequest("no mask was given", hint="give at least one")
    return torch.cat([_mask(picture, resolution) for picture in several])


def to_images(pixels: Pixels) -> list[Image.Image]:
    """PIL pictures of pixels in 0..1."""
    return [Image.fromarray(array) for array in (to_arrays(pixels) * 255).round().astype(np.uint8)]


def to_arrays(pixels: Pixels) -> np.ndarray:
    """An array (B H W 3) of pixels."""
    return pixels.permute(0, 2, 3, 1).float().cpu().numpy()


def size_of(picture: object) -> Resolution:
    """The size of a picture of any of the kinds that `from_images` takes.

    Raises:
        BadRequest: it is no picture.
    """
    if isinstance(picture, Image.Image):
        return Resolution(height=picture.height, width=picture.width)
    if isinstance(picture, np.ndarray | Tensor) and picture.ndim > 2:
        height, width = picture.shape[-2:] if isinstance(picture, Tensor) else picture.shape[-3:-1]
        return Resolution(height=int(height), width=int(width))
    raise BadRequest(f"the picture is a {type(picture).__name__}", hint="give a PIL image, an array or a tensor")


def unit(pixels: Pixels) -> Pixels:
    """Pixels of the network, about -1..1, as 0..1."""
    return (pixels * 0.5 + 0.5).clamp(0, 1)


def _one(picture: Image.Image | Tensor, resolution: Resolution, *, signed: bool) -> Pixels:
    if isinstance(picture, Tensor):
        scaled = _nearest(picture, resolution, "picture", -1.0 if signed else 0.0)
        return scaled if signed else scaled * 2 - 1
    small = picture.convert("RGB").resize((resolution.width, resolution.height), Image.Resampling.LANCZOS)
    return _tensor(np.asarray(small, dtype=np.float32) / 255) * 2 - 1


def _values(picture: object) -> Float[Tensor, "B 3 h w"]:
    """The colours of an array or a tensor as they are."""
    pixels = _numbers(picture, "picture")
    if isinstance(picture, np.ndarray) and pixels.ndim > 2:
        pixels = pixels.movedim(-1, -3)
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
        kinds = "three colours are needed: tensors (3 H W), arrays (H W 3), or batches of them; or latents (B C h w)"
        raise BadRequest(f"the picture is of shape {tuple(pixels.shape)}", hint=kinds)
    return pixels.contiguous()


def _mask(picture: object, resolution: Resolution) -> Mask:
    if isinstance(picture, Image.Image):
        size = (resolution.width, resolution.height)
        small = picture.resize(size, Image.Resampling.LANCZOS).convert("L")
        return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)[None, None]
    values = _numbers(picture, "mask")
    if isinstance(picture, np.ndarray) and values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    values = values[:, 0] if values.ndim == 4 and values.shape[1] == 1 else values
    if values.ndim not in (2, 3) or not values.numel() or (values.ndim == 3 and values.shape[-1] in (3, 4)):
        raise BadRequest(f"the mask is of shape {tuple(values.shape)}", hint="one channel, 0 to 1, is needed")
    return _nearest(values.reshape(-1, 1, *values.shape[-2:]), resolution, "mask", 0.0)


def _numbers(picture: object, what: str) -> Tensor:
    """An array or a tensor as float32 on the CPU."""
    if isinstance(picture, np.ndarray) and picture.dtype.kind in "bfiu":
        return torch.from_numpy(picture.astype(np.float32))
    if not isinstance(picture, Tensor) or picture.is_complex():
        raise BadRequest(f"the {what} is a {type(picture).__name__}", hint="give a PIL image, an array or a tensor")
    return picture.detach().float().cpu()


def _nearest(pixels: Tensor, resolution: Resolution, what: str, least: float) -> Tensor:
    low, high = float(pixels.min()), float(pixels.max())
    if not least <= low <= high <= 1:
        hint = "arrays and tensors are of 0 to 1: divide those of 0 to 255 by 255, or give PIL images"
        raise BadRequest(f"the {what}'s values run from {low:g} to {high:g}", hint=hint)
    return F.interpolate(pixels, size=(resolution.height, resolution.width))


def _tensor(array: np.ndarray) -> Tensor:
    array = array if array.ndim == 4 else array[None]
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))
