"""The main colours of pictures, and how far apart two palettes are as people see it (CIEDE2000).

Source: Sharma, Wu, Dalal 2005, "The CIEDE2000 color-difference formula"; IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = 6
ROUNDS = 12
LOOK = 48  # px: what pictures are looked at
WHITE = (0.95047, 1.0, 1.08883)  # D65
Lab = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Main colours (Lab) and their shares, largest first."""

    colours: Lab
    shares: NDArray[np.float64]

    def hexes(self) -> list[str]:
        """As CSS has them."""
        return ["#{:02x}{:02x}{:02x}".format(*row) for row in rgb(self.colours)]


def palette(pictures: Sequence[Image.Image], colours: int = COLOURS) -> Palette:
    """The main colours of pictures, by k-means in Lab from starts that are always the same."""
    small = [np.asarray(p.convert("RGB").resize((LOOK, LOOK), Image.Resampling.BOX)) for p in pictures]
    points = lab(np.concatenate([a.reshape(-1, 3) for a in small]))
    centres = points[:: max(1, len(points) // colours)][:1]
    while len(centres) < colours:  # each next start is the point farthest from those before
        far = ((points[:, None] - centres[None]) ** 2).sum(-1).min(1)
        centres = np.concatenate((centres, points[[int(far.argmax())]]))
    for _ in range(ROUNDS):
        owner = ((points[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
        centres = np.stack(
            [points[owner == i].mean(0) if (owner == i).any() else centres[i] for i in range(len(centres))]
        )
    shares = np.bincount(owner, minlength=len(centres)) / len(owner)
    order = np.argsort(-shares)
    return Palette(colours=centres[order], shares=shares[order])


def difference(a: Palette, b: Palette) -> float:
    """How far the first's colours are, by their shares, from the second's nearest; 2 is just seen, 10 is plain."""
    rows = np.array([min(ciede2000(colour, other) for other in b.colours) for colour in a.colours])
    return float((rows * a.shares).sum())


def lab(pixels: NDArray[np.uint8]) -> Lab:
    """sRGB (N 3) of 0..255 as Lab."""
    c = pixels.astype(np.float64) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
    f = c @ matrix.T / np.array(WHITE)
    f = np.where(f > (6 / 29) ** 3, np.cbrt(f), f / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack((116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])), axis=1)


def rgb(colours: Lab) -> NDArray[np.uint8]:
    """Lab (N 3) as sRGB of 0..255."""
    y = (colours[:, 0] + 16) / 116
    f = np.stack((y + colours[:, 1] / 500, y, y - colours[:, 2] / 200), axis=1)
    f = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array(WHITE)
    matrix = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560],
                       [0.0556434, -0.2040259, 1.0572252]])  # fmt: skip
    c = np.clip(f @ matrix.T, 0, 1)
    c = np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)
    out: NDArray[np.uint8] = np.clip(np.rint(c * 255), 0, 255).astype(np.uint8)
    return out


def ciede2000(one: Lab, two: Lab) -> float:
    """The difference of two colours (Lab)."""
    (l1, a1, b1), (l2, a2, b2) = one, two
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    dl, dc = l2 - l1, c2 - c1
    turn = h2 - h1
    if c1 * c2 == 0:
        turn = 0.0
    elif turn > 180:
        turn -= 360
    elif turn < -180:
        turn += 360
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    lm, cm = (l1 + l2) / 2, (c1 + c2) / 2
    hm = h1 + h2 if c1 * c2 == 0 else (h1 + h2) / 2 + (180 if abs(h1 - h2) > 180 and h1 + h2 < 360 else 0)
    if c1 * c2 != 0 and abs(h1 - h2) > 180 and h1 + h2 >= 360:
        hm -= 180
    t = 1 - 0.17 * np.cos(np.radians(hm - 30)) + 0.24 * np.cos(np.radians(2 * hm))
    t += 0.32 * np.cos(np.radians(3 * hm + 6)) - 0.20 * np.cos(np.radians(4 * hm - 63))
    sl = 1 + 0.015 * (lm - 50) ** 2 / np.sqrt(20 + (lm - 50) ** 2)
    sc, sh = 1 + 0.045 * cm, 1 + 0.015 * cm * t
    rc = 2 * np.sqrt(cm**7 / (cm**7 + 25.0**7))
    rt = -rc * np.sin(np.radians(60 * np.exp(-(((hm - 275) / 25) ** 2))))
    terms = (dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rt * (dc / sc) * (dh / sh)
    return float(np.sqrt(max(terms, 0.0)))
