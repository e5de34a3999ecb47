"""Pictures as picture encoders want them: for CLIP the shorter side scaled and the middle cut out, for SigLIP
stretched; colours normalised.

Source: huggingface/transformers, `CLIPImageProcessor`, `SiglipImageProcessor`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.pixels import Picture

CLIP_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), dtype=np.float32)
CLIP_SPREAD = np.array((0.26862954, 0.26130258, 0.27577711), dtype=np.float32)
HALF = np.array((0.5, 0.5, 0.5), dtype=np.float32)  # SigLIP's mean and spread
BLACK = (0, 0, 0)


def clip_pixels(picture: Picture, size: int) -> Float[Tensor, "1 3 S S"]:
    """A picture for CLIP: PIL, or an array (H W 3) or tensor (3 H W) of 0..1.

    Raises:
        BadRequest: it is no picture.
    """
    whole = as_image(picture)
    short, long = sorted(whole.size)
    longer = int(size * long / short)
    width, height = (size, longer) if whole.width <= whole.height else (longer, size)
    scaled = whole.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return _normal(scaled.crop((left, top, left + size, top + size)), CLIP_MEAN, CLIP_SPREAD)


def siglip_pixels(picture: Picture, size: int) -> Float[Tensor, "1 3 S S"]:
    """A picture for SigLIP, of the same kinds.

    Raises:
        BadRequest: it is no picture.
    """
    return _normal(as_image(picture).resize((size, size), Image.Resampling.BICUBIC), HALF, HALF)


def _normal(image: Image.Image, mean: np.ndarray, spread: np.ndarray) -> Float[Tensor, "1 3 S S"]:
    colours = (np.asarray(image, dtype=np.float32) / 255 - mean) / spread
    return torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1)))[None]


def as_image(picture: object) -> Image.Image:
    """A picture of any kind as PIL's, in RGB.

    Raises:
        BadRequest: it is no picture, or its values are not 0 to 1.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, Tensor):
        plain = picture.detach().float().cpu()
        picture = (plain[0] if plain.ndim == 4 and len(plain) == 1 else plain).movedim(0, -1).numpy()
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[-1] != len(BLACK):
        raise BadRequest(f"the picture is a {type(picture).__name__}", hint="give a PIL image, an array or a tensor")
    if picture.dtype == np.uint8:
        return Image.fromarray(picture)
    if not 0 <= float(picture.min()) <= float(picture.max()) <= 1:
        raise BadRequest("the picture's values are beyond 0 to 1", hint="arrays and tensors are of 0 to 1")
    return Image.fromarray((picture * 255).round().astype(np.uint8))


def black(size: int) -> Image.Image:
    """What an IP-Adapter looks at on the side of the negative prompt, if it is given nothing. Source: diffusers."""
    return Image.new("RGB", (size, size), BLACK)
