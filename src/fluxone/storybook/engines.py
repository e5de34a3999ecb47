"""SVG -> pixels, by one of two engines: resvg, equal on every machine, or skia, three to five times as fast."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fluxone.errors import MissingExtra

Pixels = UInt8[np.ndarray, "H W 4"]
Engine = Callable[[str, int], Pixels]  # (svg, px each way) -> red, green, blue, alpha (not premultiplied)


def _resvg(svg: str, size: int) -> Pixels:
    try:
        import resvg_py
    except ImportError as error:
        raise MissingExtra("storybook", "drawing storybook scenes needs the resvg_py package") from error
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), dtype=np.uint8)


def _skia(svg: str, size: int) -> Pixels:
    try:
        import skia
    except ImportError as error:
        raise MissingExtra("skia", "the skia engine needs the skia-python package") from error
    dom = skia.SVGDOM.MakeFromStream(skia.MemoryStream.MakeCopy(svg.encode()))
    dom.setContainerSize(skia.Size(size, size))
    surface = skia.Surface.MakeRasterN32Premul(size, size)
    dom.render(surface.getCanvas())
    pixels: Pixels = np.asarray(surface.toarray(colorType=skia.kRGBA_8888_ColorType), dtype=np.uint8)
    return pixels


ENGINES: dict[str, Engine] = {"resvg": _resvg, "skia": _skia}
