"""Pictures that requests bring: decoded only after their size is known, and never larger than allowed."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from fluxone.errors import BadRequest, MissingExtra
from fluxone.serve import fetch

FORMATS = ("PNG", "JPEG", "WEBP")
MILLION = 1e6
MOST_BYTES = 50 * 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Attributes: megapixels: of a picture. reachable: private hosts that may be fetched from."""

    megapixels: float = 20.0
    reachable: tuple[str, ...] = ()


def from_text(text: str, name: str, limits: Limits) -> Image.Image:
    """The picture in base64, a data URL, or at a URL.

    Raises:
        BadRequest: there is none, or it is too large.
    """
    if text[:8].lower().startswith(("http://", "https://")):
        return from_bytes(fetch.fetch(text, limit=MOST_BYTES, reachable=limits.reachable), name, limits)
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"{name} is not base64", hint="give a picture in base64, or its URL") from None
    return from_bytes(data, name, limits)


def from_bytes(data: bytes, name: str, limits: Limits) -> Image.Image:
    """The picture in a file, upright, as RGB or RGBA.

    Raises:
        BadRequest: it is none, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            pixels = opened.width * opened.height / MILLION
            if pixels > limits.megapixels:
                raise BadRequest(
                    f"{name} has {opened.width}x{opened.height} pixels", hint=f"at most {limits.megapixels:g} million"
                )
            clear = "A" in opened.getbands() or "transparency" in opened.info
            return ImageOps.exif_transpose(opened).convert("RGBA" if clear else "RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadRequest(f"{name} has too many pixels", hint=f"at most {limits.megapixels:g} million") from None
    except (OSError, SyntaxError, ValueError, EOFError):
        hint = f"give one of {', '.join(FORMATS)}"
        raise BadRequest(f"{name} is no picture that can be read", hint=hint) from None


def repainted(image: Image.Image, mask: Image.Image | None, *, alpha_of_mask: bool) -> tuple[Image.Image, Image.Image]:
    """A picture as RGB, and white where it is to be repainted: by a mask of its size, or where it is transparent.

    Args:
        alpha_of_mask: whether a mask repaints where it is transparent, else where it is white.

    Raises:
        BadRequest: there is no mask, or it is of another size.
    """
    if mask is not None and mask.size != image.size:
        raise BadRequest(f"the mask is {mask.width}x{mask.height}, the picture {image.width}x{image.height}")
    source = image if mask is None else mask
    if mask is not None and not (alpha_of_mask and mask.mode == "RGBA"):
        white = mask.convert("RGB").convert("L")
    elif source.mode == "RGBA":
        white = ImageOps.invert(source.getchannel("A"))
    else:
        raise BadRequest("there is no mask", hint="give a mask, or a picture that is transparent where it is repainted")
    return image.convert("RGB"), white


def edged(image: Image.Image, thresholds: tuple[int, int]) -> Image.Image:
    """The edges of a picture, white on black, with thresholds of one's own.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise MissingExtra("control", "finding edges needs OpenCV, which is not installed") from None
    return Image.fromarray(np.asarray(cv2.Canny(np.asarray(image), *thresholds))).convert("RGB")
