"""Builds the storybook's two asset files from their published sources.

    npm pack @iconify-json/fluent-emoji-flat@1.2.6 && tar xf iconify-json-fluent-emoji-flat-1.2.6.tgz
    python tools/storybook_assets.py --icons package/icons.json --fonts FONTS --out src/fluxone/storybook/assets

FONTS holds `fredoka.ttf baloo2.ttf titan.ttf luckiest.ttf nunito.ttf`: one bold Latin static cut each of
Fredoka, Baloo 2, Titan One, Luckiest Guy and Nunito, as published by fontsource (`@fontsource/fredoka` and so
on). Fredoka, Baloo 2, Titan One and Nunito are OFL-1.1, Luckiest Guy is Apache-2.0, the sprites are MIT
(Microsoft, Fluent Emoji). The output depends on the inputs alone: a rebuild is byte-identical.

Needs `fonttools`, `resvg_py`, `numpy` and `pillow`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.pens.transformPen import TransformPen
from fontTools.ttLib import TTFont
from PIL import Image

from fluxone.storybook.colours import NEUTRAL, PALETTE, to_lab
from fluxone.storybook.objects import OBJECTS

EM = 1000  # units an em after normalising
PRINTABLE = range(32, 127)
FONTS = ("fredoka", "baloo2", "titan", "luckiest", "nunito")
LOOK = 512  # px at which a sprite is measured
FILL = re.compile(r'fill="(#[0-9a-fA-F]{3,6})"')


def glyphs(font_file: Path) -> dict[str, Any]:
    """Advance widths and y-down outlines of the printable ASCII characters, in EM units."""
    font = TTFont(font_file)
    scale = EM / font["head"].unitsPerEm
    shapes, cmap, advances = font.getGlyphSet(), font.getBestCmap(), font["hmtx"]
    rows: dict[str, list[Any]] = {}
    for code in PRINTABLE:
        name = cmap.get(code)
        if name is None:
            continue
        pen = SVGPathPen(shapes, ntos=lambda v: str(round(v)))
        shapes[name].draw(TransformPen(pen, (scale, 0, 0, -scale, 0, 0)))
        rows[chr(code)] = [round(advances[name][0] * scale), pen.getCommands()]
    return {"cap": round(getattr(font["OS/2"], "sCapHeight", 700) * scale), "glyphs": rows}


def long_hex(body: str) -> str:
    """The body with every #abc written #aabbcc, so that fills compare as text."""

    def widen(match: re.Match[str]) -> str:
        digits = match[1][1:].lower()
        return f'fill="#{digits if len(digits) == 6 else "".join(2 * d for d in digits)}"'

    return FILL.sub(widen, body)


def measured(body: str, natural: str) -> dict[str, Any]:
    """The sprite's tight box (of 32 x 32) and the fill that covers most of it, leaning to what `natural` says."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="{LOOK}" height="{LOOK}">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA")).astype(int)
    solid = pixels[..., 3] > 127
    rows, cols = np.where(solid)
    box = [round(float(v) * 32 / LOOK, 2) for v in (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)]
    fills = sorted(set(FILL.findall(body)))
    palette = np.array([[int(f[i : i + 2], 16) for i in (1, 3, 5)] for f in fills])
    nearest = np.abs(pixels[solid][:, None, :3] - palette[None]).sum(-1).argmin(1)
    area = np.bincount(nearest, minlength=len(fills)).astype(float)
    area *= [fits(fill, natural) for fill in fills]
    return {"body": body, "box": box, "main": fills[int(area.argmax())]}


def fits(fill: str, natural: str) -> float:
    """How well a fill suits the sprite's natural colour: 1, or next to nothing; any real colour suits no name."""
    light, a, b = to_lab(fill)
    grey = math.hypot(a, b) < NEUTRAL
    if natural in ("white", "gray"):
        return 1.0 if grey and light > 0.5 else 0.01
    if natural == "black":
        return 1.0 if light < 0.5 else 0.01
    if not natural:
        return 0.01 if grey else 1.0
    _, goal_a, goal_b = to_lab(PALETTE[natural])
    turn = abs((math.atan2(b, a) - math.atan2(goal_b, goal_a) + math.pi) % math.tau - math.pi)
    return 1.0 if turn < 0.45 and not grey else 0.01


def write(path: Path, data: dict[str, Any]) -> None:
    """Gzip without name or time: the same data give the same bytes."""
    text = json.dumps(data, separators=(",", ":"), sort_keys=True, ensure_ascii=True)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(text.encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", type=Path, required=True, help="icons.json of the npm package")
    parser.add_argument("--fonts", type=Path, required=True, help="folder of the five .ttf files")
    parser.add_argument("--out", type=Path, required=True, help="the assets folder")
    given = parser.parse_args()
    icons = json.loads(given.icons.read_text())["icons"]
    sprites = {}
    for row in OBJECTS.values():
        body = long_hex(icons[row.icon]["body"])
        if "url(" in body or "id=" in body:
            raise SystemExit(f"{row.icon} uses gradients or ids, which would clash between two copies in one scene")
        sprites[row.icon] = measured(body, row.natural)
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "sprites.json.gz", sprites)
    write(given.out / "glyphs.json.gz", {name: glyphs(given.fonts / f"{name}.ttf") for name in FONTS})
    for name in ("sprites.json.gz", "glyphs.json.gz"):
        sys.stdout.write(f"{name} {(given.out / name).stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
