"""Reads signs with RapidOCR, which was made for photographs of print and knows nothing of storybooks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from fluxone.errors import MissingExtra

LEAST = 384  # px: smaller pictures are enlarged, for the detector misses lines of less than about 20 px
OTHER = re.compile(r"[^a-z0-9!?&'., -]")


def reader() -> Callable[[Image.Image], str]:
    """A function that reads the text on a picture, in small letters, line after line; what is a single letter is left
    out beside others, for a crescent moon is read as one.

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
        if not found.txts:
            return ""
        tops = [float(np.asarray(box)[:, 1].mean()) for box in found.boxes]
        lines = [OTHER.sub("", text.lower()) for _, text in sorted(zip(tops, found.txts, strict=True))]
        longer = [line for line in lines if len(line) > 1]
        return " ".join(" ".join(longer or lines).split())

    return read
