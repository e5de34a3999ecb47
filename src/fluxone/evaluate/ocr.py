"""Reads signs with RapidOCR, which was made for photographs of print and knows nothing of storybooks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from fluxone.errors import MissingExtra

LEAST = 384  # px: smaller pictures are enlarged, for the detector misses lines of less than about 20 px
OTHER = re.compile(r"[^a-z]")


def reader() -> Callable[[Image.Image], str]:
    """A function that reads the longest line of letters on a picture, in small letters.

    Raises:
        MissingExtra: rapidocr or its runtime is not installed.
    """
    try:
        from rapidocr import RapidOCR
    except ImportError:
        raise MissingExtra("evaluate", "reading signs by OCR needs the rapidocr package") from None

    engine = RapidOCR(params={"Global.log_level": "error"})

    def read(image: Image.Image) -> str:
        times = max(1, -(-LEAST // min(image.size)))
        large = image.convert("RGB").resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)
        found: Any = engine(np.asarray(large)[..., ::-1])  # of several types, by what was asked for
        return max((OTHER.sub("", text.lower()) for text in found.txts or ()), key=len, default="")

    return read
