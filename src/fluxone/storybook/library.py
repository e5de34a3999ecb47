"""Reads the two asset files once: sprite bodies with their boxes, and letters as outlines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from fluxone.storybook.colours import PALETTE, flatten, recolour

EM = 1000.0  # asset units an em
FONTS = ("fredoka", "baloo2", "titan", "luckiest", "nunito")  # those that signs are lettered in
CAPITALS = ("luckiest",)  # fonts whose small letters look like capitals: their text is all capitals


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One sprite: SVG elements on a 32 x 32 canvas, their tight box, and the fill that gives it its colour."""

    body: str
    box: tuple[float, float, float, float]
    main: str


@dataclass(frozen=True, kw_only=True)
class Lettering:
    """One line of text as outlines: elements in em/1000, its width and capital height in em."""

    body: str
    width: float
    cap: float


def _read(name: str) -> Mapping[str, Any]:
    packed = files("fluxone.storybook").joinpath("assets", name).read_bytes()
    data: Mapping[str, Any] = json.loads(gzip.decompress(packed))
    return data


@lru_cache(maxsize=1)
def _sprites() -> Mapping[str, Any]:
    return _read("sprites.json.gz")


@lru_cache(maxsize=1)
def _fonts() -> Mapping[str, Any]:
    return _read("glyphs.json.gz")


@lru_cache(maxsize=4096)
def drawing(icon: str, colour: str = "") -> Drawing:
    """The sprite as published, or with its main colour moved to a palette colour."""
    row = _sprites()[icon]
    left, top, right, bottom = row["box"]
    body = recolour(row["body"], row["main"], PALETTE[colour]) if colour else row["body"]
    return Drawing(body=body, box=(left, top, right, bottom), main=row["main"])


@lru_cache(maxsize=1024)
def silhouette(icon: str, colour: str, edge: float = 0.3) -> str:
    """The sprite's elements in one '#rrggbb'; the stroke of `edge` sprite units closes the seams between them."""
    stroke = f'stroke="{colour}" stroke-width="{edge}" stroke-linejoin="round"'
    return f"<g {stroke}>{flatten(_sprites()[icon]['body'], colour)}</g>"


@lru_cache(maxsize=4096)
def lettering(text: str, font: str) -> Lettering:
    """The text set in one line; characters the font lacks are left out."""
    row = _fonts()[font]
    parts, pen = [], 0
    for letter in text:
        advance, outline = row["glyphs"].get(letter, (0, ""))
        if outline:
            parts.append(f'<path transform="translate({pen} 0)" d="{outline}"/>')
        pen += advance
    return Lettering(body="".join(parts), width=pen / EM, cap=row["cap"] / EM)
