"""Repainting a small part of a large picture at the model's own size: its surroundings are cut out, enlarged, and what
was drawn is put back.

    mask --box with a margin, in the canvas' aspect--> picture and mask cut out --> drawn --> the rest laid over it

Source: huggingface/diffusers, `VaeImageProcessor.get_crop_region`, `_resize_and_fill`, `_resize_and_crop` and
`apply_overlay` (`padding_mask_crop`).
"""

from __future__ import annotations

from PIL import Image, ImageOps

from fluxone.errors import BadRequest
from fluxone.geometry import Resolution

Box = tuple[int, int, int, int]  # left, top, right, bottom, px
LANCZOS = Image.Resampling.LANCZOS


def box_of(mask: Image.Image, canvas: Resolution, margin: int) -> Box:
    """What is cut out: all that the mask covers and a margin, widened to the canvas' aspect where there is room.

    Raises:
        BadRequest: the mask is black.
    """
    found = mask.convert("L").getbbox()
    if found is None:
        raise BadRequest("the mask is black", hint="make it white where the picture is repainted")
    left, top, right, bottom = found
    left, top = max(left - margin, 0), max(top - margin, 0)
    right, bottom = min(right + margin, mask.width), min(bottom + margin, mask.height)
    aspect = canvas.width / canvas.height
    if (right - left) / (bottom - top) > aspect:
        top, bottom = _widened(top, bottom, int((right - left) / aspect - (bottom - top)), mask.height)
    else:
        left, right = _widened(left, right, int((bottom - top) * aspect - (right - left)), mask.width)
    return left, top, right, bottom


def cut_out(picture: Image.Image, box: Box, canvas: Resolution) -> Image.Image:
    """The box of a picture at the canvas' size, its edges drawn out where the aspects differ."""
    part = picture.crop(box)
    width, height = canvas.width, canvas.height
    flat = width * part.height < height * part.width
    wide = width if flat else part.width * height // part.height
    high = part.height * width // part.width if flat else height
    small = part.resize((wide, high), LANCZOS)
    out = Image.new("RGB", (width, height))
    left, top = width // 2 - wide // 2, height // 2 - high // 2
    out.paste(small, (left, top))
    if flat and top > 0:
        out.paste(small.resize((width, top), box=(0, 0, width, 0)), (0, 0))
        out.paste(small.resize((width, top), box=(0, high, width, high)), (0, top + high))
    elif not flat and left > 0:
        out.paste(small.resize((left, height), box=(0, 0, 0, height)), (0, 0))
        out.paste(small.resize((left, height), box=(wide, 0, wide, height)), (left + wide, 0))
    return out


def laid_over(drawn: Image.Image, picture: Image.Image, mask: Image.Image, box: Box) -> Image.Image:
    """The picture with what was drawn in its box, where the mask is white."""
    kept = Image.new("RGBa", picture.size)
    kept.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    left, top, right, bottom = box
    out = Image.new("RGBA", picture.size)
    out.paste(_covering(drawn, right - left, bottom - top), (left, top))
    out = out.convert("RGB").convert("RGBA")
    out.alpha_composite(kept.convert("RGBA"))
    return out.convert("RGB")


def _covering(drawn: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled so that it covers a size, what is over cut off evenly."""
    flat = width * drawn.height > height * drawn.width
    wide = width if flat else drawn.width * height // drawn.height
    high = drawn.height * width // drawn.width if flat else height
    out = Image.new("RGB", (width, height))
    out.paste(drawn.resize((wide, high), LANCZOS), (width // 2 - wide // 2, height // 2 - high // 2))
    return out


def _widened(start: int, end: int, more: int, most: int) -> tuple[int, int]:
    """A span made longer on both sides, moved to where there is room."""
    start, end = start - more // 2, end + more - more // 2
    over = max(end - most, 0)
    start, end = start - over, end - over
    return (start, end) if start >= 0 else (0, min(end - start, most))
