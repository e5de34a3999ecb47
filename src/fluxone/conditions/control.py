"""Control: a picture of edges or depths, encoded, as channels beside the noise; and finding the edges.

    map (or picture --detector--> map) --encode, pack--> 4 * 16 channels

Source: black-forest-labs/flux, `sampling.prepare_control`, `modules/image_embedders.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from fluxone.conditions.condition import Extra, Pictures, Studio
from fluxone.errors import MissingExtra
from fluxone.nn.tokens import pack

EDGES = (50, 200)  # thresholds of the gradient between which an edge goes on, and above which it begins


def control(pictures: Pictures, studio: Studio) -> Extra:
    """The channels of a control picture."""
    assert pictures.control is not None, "check the pictures first"
    return Extra(channels=pack(studio.encode(pictures.control)))


def pass_over(pictures: Pictures, studio: Studio) -> None:
    """Draw first, for nothing, a sample of what the mask leaves, as diffusers' FluxControlInpaintPipeline does."""
    assert pictures.init is not None and pictures.mask is not None, "check the pictures first"
    if not studio.encoded(pictures.init):
        studio.sample(pictures.init * (1 - pictures.mask))


def canny(picture: Image.Image) -> Image.Image:
    """The edges of a picture, white on black.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise MissingExtra("control", "finding edges needs OpenCV, which is not installed") from None
    edges = cv2.Canny(np.asarray(picture.convert("RGB")), *EDGES)
    return Image.fromarray(np.asarray(edges)).convert("RGB")


DETECTORS: dict[str, Callable[[Image.Image], Image.Image]] = {"canny": canny}
