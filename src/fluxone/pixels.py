"""Pictures as tensors and back: 0..255 in PIL, 0..1 at the doors, -1..1 in the network."""

from __future__ import annotations

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

Pixels = Float[Tensor, "B 3 H W"]
Mask = Float[Tensor, "B 1 H W"]
Picture = Image.Image | np.ndarray | Tensor


def from_images(images: Picture | Sequence[Picture], resolution: Resolution) -> Pixels:
    """Pixels in -1..1 at the resolution: PIL pictures by Lanczos, arrays (H W 3) and tensors (3 H W) of 0..1 by
    the nearest, as diffusers does.

    Raises:
        BadRequest: it is no picture, or not of three colours.
    """
    several: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
    if not several:
        raise BadRequest("no picture was given", hint="give at least one")
    return torch.cat([_one(picture, resolution) for picture in several]) * 2 - 1


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


def _one(picture: object, resolution: Resolution) -> Pixels:
    if isinstance(picture, Image.Image):
        size = (resolution.width, resolution.height)
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        return _tensor(np.asarray(small, dtype=np.float32) / 255)
    if isinstance(picture, np.ndarray):
        picture = _tensor(picture.astype(np.float32))
    if not isinstance(picture, Tensor):
        raise BadRequest(f"the picture is a {type(picture).__name__}", hint="give a PIL image, an array or a tensor")
    pixels = picture.detach().float().cpu()
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise BadRequest(f"the picture is of shape {tuple(picture.shape)}", hint="three colours, 0 to 1, are needed")
    return _nearest(pixels, resolution, "picture")


def _mask(picture: object, resolution: Resolution) -> Mask:
    if isinstance(picture, Image.Image):
        size = (resolution.width, resolution.height)
        small = picture.resize(size, Image.Resampling.LANCZOS).convert("L")
        return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)[None, None]
    if isinstance(picture, np.ndarray):
        picture = torch.from_numpy(picture.astype(np.float32))
        picture = picture[..., 0] if picture.shape[-1] == 1 and picture.ndim > 2 else picture
    if not isinstance(picture, Tensor):
        raise BadRequest(f"the mask is a {type(picture).__name__}", hint="give a PIL image, an array or a tensor")
    values = picture.detach().float().cpu()
    values = values[:, 0] if values.ndim == 4 and values.shape[1] == 1 else values
    if values.ndim not in (2, 3):
        raise BadRequest(f"the mask is of shape {tuple(picture.shape)}", hint="one channel, 0 to 1, is needed")
    return _nearest(values.reshape(-1, 1, *values.shape[-2:]), resolution, "mask")


def _nearest(pixels: Tensor, resolution: Resolution, what: str) -> Tensor:
    low, high = float(pixels.min()), float(pixels.max())
    if not 0 <= low <= high <= 1:
        raise BadRequest(f"the {what}'s values run from {low:g} to {high:g}", hint="arrays and tensors are of 0 to 1")
    return F.interpolate(pixels, size=(resolution.height, resolution.width))


def _tensor(array: np.ndarray) -> Tensor:
    array = array if array.ndim == 4 else array[None]
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))
