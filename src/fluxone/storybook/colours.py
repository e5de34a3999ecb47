"""Named colours and OKLab arithmetic: the palette, shades, and moving a sprite's fills to another hue.

Source of the matrices: Bjorn Ottosson, "A perceptual color space for image processing" (2020).
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

Lab = tuple[float, float, float]

PALETTE: dict[str, str] = {
    "red": "#e5484d",
    "orange": "#f58a2e",
    "yellow": "#f9cd42",
    "green": "#46a758",
    "blue": "#3b82e6",
    "purple": "#8b5bd6",
    "pink": "#f48fbf",
    "white": "#f8f5ee",
    "black": "#3a3944",
    "brown": "#96653f",
    "gray": "#9097a1",
    "teal": "#2fb5a6",
}
FILL = re.compile(r'fill="(#[0-9a-f]{6})"')
NEUTRAL = 0.05  # chroma below which a colour has no hue worth speaking of
HUE_REACH = 0.75  # radians around the main fill's hue that move with it


def _linear(value: float) -> float:
    value /= 255
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _gamma(value: float) -> int:
    value = min(max(value, 0.0), 1.0)
    return round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))


def to_lab(colour: str) -> Lab:
    """OKLab of '#rrggbb'."""
    r, g, b = (_linear(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    mid = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * mid - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * mid + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * mid - 0.8086757660 * short,
    )


def to_hex(lab: Lab) -> str:
    """'#rrggbb' of an OKLab colour, clipped to what a screen can show."""
    light, a, b = lab
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    mid = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    channels = (
        4.0767416621 * long - 3.3077115913 * mid + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * mid - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * mid + 1.7076147010 * short,
    )
    return "#" + "".join(f"{_gamma(v):02x}" for v in channels)


@lru_cache(maxsize=4096)
def shade(colour: str, by: float) -> str:
    """The colour lighter (`by` > 0) or darker, in OKLab lightness."""
    light, a, b = to_lab(colour)
    return to_hex((min(max(light + by, 0.0), 1.0), a, b))


@lru_cache(maxsize=4096)
def mix(one: str, other: str, share: float) -> str:
    """`share` of the way from one colour to the other."""
    x, y = to_lab(one), to_lab(other)
    return to_hex((x[0] + (y[0] - x[0]) * share, x[1] + (y[1] - x[1]) * share, x[2] + (y[2] - x[2]) * share))


def blend(one: str, other: str, share: float) -> str:
    """`share` of the way from one colour to the other, in plain sRGB, as a screen's gradient goes."""
    pairs = ((int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def moved(fill: str, main: str, target: str) -> str:
    """Where one fill of a sprite goes when its main fill becomes `target`.

    Fills of the main fill's hue family keep their lightness offset from it, so highlights and shadows
    survive; eyes, wheels and windows are of another family, or too dark, and stay.
    """
    light, a, b = to_lab(fill)
    main_light, main_a, main_b = to_lab(main)
    chroma, main_chroma = math.hypot(a, b), math.hypot(main_a, main_b)
    grey = main_chroma < NEUTRAL
    if grey and main_light < 0.55:  # a dark coat: its darkest parts belong to it, whites do not
        member = chroma < 0.06 and 0.24 < light < main_light + 0.15
    elif grey:
        member = chroma < 0.06 and light > 0.35
    else:
        turn = math.atan2(b, a) - math.atan2(main_b, main_a)
        turn = abs((turn + math.pi) % (2 * math.pi) - math.pi)
        member = chroma > 0.04 and turn < HUE_REACH and light > 0.3
    if not member:
        return fill
    goal_light, goal_a, goal_b = to_lab(target)
    gain = 1.0 if grey or math.hypot(goal_a, goal_b) < NEUTRAL else min(chroma / main_chroma, 1.25)
    new_light = min(max(goal_light + 0.85 * (light - main_light), 0.14), 0.98)
    return to_hex((new_light, goal_a * gain, goal_b * gain))


def recolour(body: str, main: str, target: str) -> str:
    """The sprite body with the main fill's family of fills moved to `target` ('#rrggbb')."""
    return FILL.sub(lambda m: f'fill="{moved(m[1], main, target)}"', body)


def flatten(body: str, colour: str) -> str:
    """The sprite body as a silhouette of one colour."""
    return FILL.sub(f'fill="{colour}"', body)
