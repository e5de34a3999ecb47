"""Contact sheets: pictures in a grid with their captions underneath."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GAP, LINE, LETTER = 6, 14, 12  # px


def _wrapped(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


def sheet(
    images: Sequence[NDArray[np.uint8] | Image.Image], captions: Sequence[str] = (), columns: int = 6
) -> Image.Image:
    """The pictures (of one size) in `columns`, each over its caption, on white."""
    pictures = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
    font = ImageFont.load_default(LETTER)
    width = max((p.width for p in pictures), default=128)
    height = max((p.height for p in pictures), default=128)
    texts = [_wrapped(text, font, width) for text in captions]
    below = LINE * max((len(t) for t in texts), default=0) + (4 if texts else 0)
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + below + GAP) + GAP), "white")
    pen = ImageDraw.Draw(page)
    for i, picture in enumerate(pictures):
        x, y = GAP + (i % columns) * (width + GAP), GAP + (i // columns) * (height + below + GAP)
        page.paste(picture.convert("RGB"), (x, y))
        for k, line in enumerate(texts[i] if i < len(texts) else ()):
            pen.text((x, y + height + 2 + k * LINE), line, fill="#222222", font=font)
    return page
