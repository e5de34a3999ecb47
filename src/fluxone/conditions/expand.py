"""Expanding a picture beyond its borders: a larger canvas, and a mask over what is new.

The mask reaches `overlap` px into the old picture, where the new one goes over into it (see `paste`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from fluxone.request import Request


def unfolded(request: Request) -> Request:
    """A request to expand its picture as one to repaint a larger one; any other as it is."""
    if request.expand is None or request.init is None:
        return request
    canvas, mask = opened(request.init, request.expand, request.paste or 0)
    return replace(request, init=canvas, mask=mask, expand=None)


def opened(
    picture: Image.Image, margins: tuple[int, int, int, int], overlap: int
) -> tuple[Image.Image, Image.Image]:
    """The picture with its border repeated into the margins (left, right, top, bottom, px), and the mask."""
    left, right, top, bottom = margins
    pixels = np.pad(np.asarray(picture.convert("RGB")), ((top, bottom), (left, right), (0, 0)), mode="edge")
    mask = np.full(pixels.shape[:2], 255, dtype=np.uint8)
    near = [overlap if margin else 0 for margin in (top, bottom, left, right)]
    rows = slice(top + near[0], pixels.shape[0] - bottom - near[1])
    columns = slice(left + near[2], pixels.shape[1] - right - near[3])
    mask[rows, columns] = 0
    return Image.fromarray(pixels), Image.fromarray(mask)
