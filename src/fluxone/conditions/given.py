"""The pictures of a request, brought to the size that is drawn; and what was drawn, brought back to theirs.

    frame (the picture's own size) --place_in--> a box on the canvas; around it the picture's border goes on
    canvas --cut the box, scale--> frame
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from fluxone import pixels as px
from fluxone.conditions.condition import Pictures
from fluxone.conditions.control import DETECTORS
from fluxone.conditions.paste import changed, paste
from fluxone.conditions.reference import joined, size_for
from fluxone.errors import pick
from fluxone.geometry import Resolution
from fluxone.request import Request

Read = Callable[[Image.Image, Resolution], Tensor]


def pictures_of(request: Request, *, size: int, token: int) -> Pictures:
    """The pictures of a resolved request as pixels.

    Args:
        size: px of the variant's own square.
        token: px.
    """
    canvas = request.resolution
    assert canvas is not None, "resolve the request first"
    frame, init, mask, control = request.frame, request.init, request.mask, request.control
    if control is not None and request.detector is not None:
        box = canvas if frame is None else _boxed(frame, canvas, token)
        scaled = control.convert("RGB").resize((box.width, box.height), Image.Resampling.LANCZOS)
        control = pick(DETECTORS, request.detector, "detector")(scaled)
    references = [
        _reference(picture, request, framed=i == 0, size=size, token=token)
        for i, picture in enumerate(request.references)
    ]
    return Pictures(
        init=None if init is None else _framed(px.from_images, init, canvas, frame, token),
        mask=None if mask is None else _framed(px.masks, mask, canvas, frame, token),
        control=None if control is None else _framed(px.from_images, control, canvas, frame, token),
        references=joined(references, request.layout, size, token, request.auto_resize),
        layout=request.layout,
        hints=tuple(_framed(px.from_images, hint, canvas, frame, token) for hint in request.hints),
    )


def framed(image: Image.Image, request: Request, token: int) -> Image.Image:
    """What was drawn, cut and scaled to the request's frame, if it has one."""
    if request.frame is None or request.resolution is None:
        return image
    left, top, width, height = request.frame.place_in(request.resolution, token)
    cut = image.crop((left, top, left + width, top + height))
    size = (request.frame.width, request.frame.height)
    return cut if cut.size == size else cut.resize(size, Image.Resampling.LANCZOS)


def finished(image: Image.Image, request: Request, token: int) -> Image.Image:
    """What was drawn, in the request's frame, and pasted into the given picture where that is asked."""
    image = framed(image, request, token)
    whole = request.init or next(iter(request.references), None)
    if request.paste is None or whole is None:
        return image
    whole = whole.convert("RGB") if whole.size == image.size else whole.convert("RGB").resize(image.size)
    mask = request.mask or changed(image, whole, request.paste)
    return paste(image, whole, mask, request.paste)


def _reference(picture: Image.Image, request: Request, *, framed: bool, size: int, token: int) -> px.Pixels:
    own = px.size_of(picture)
    target = size_for(own, size, token, auto_resize=request.auto_resize)
    whole = framed and request.frame == own and target == request.resolution
    return _framed(px.from_images, picture, target, own if whole else None, token)


def _boxed(frame: Resolution, canvas: Resolution, token: int) -> Resolution:
    _, _, width, height = frame.place_in(canvas, token)
    return Resolution(height=height, width=width)


def _framed(read: Read, picture: Image.Image, canvas: Resolution, frame: Resolution | None, token: int) -> Tensor:
    """The picture on the canvas: stretched to it, or within its frame's box, with its border repeated around it."""
    if frame is None:
        return read(picture, canvas)
    left, top, width, height = frame.place_in(canvas, token)
    values = read(picture, Resolution(height=height, width=width))
    rows = (torch.arange(canvas.height) - top).clamp(0, height - 1)
    columns = (torch.arange(canvas.width) - left).clamp(0, width - 1)
    return values[:, :, rows][:, :, :, columns]
