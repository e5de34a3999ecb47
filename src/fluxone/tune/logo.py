"""Whether a brand's logo is drawn, by its picture: looked for in every place at many sizes, upright and undistorted.

    logo --cut out of plain paper, scaled--> colours T on the shape M, a ring around it
    picture --at 192 px, Lab--> at each place   inside   1 - how far it is from T, against how far T is from one colour
                                                ground   1 - the same, against how far T is from what lies around
                                                outline  share of the ring that does not go on like the logo
    the least of the three, at the best place and size = score: 1 is the very same, `FOUND` and more is called right

One colour is far from another by CIE76. Turned, mirrored, bent and half hidden logos are not found. Where logo and
ground are of one colour there is nothing to see, and nothing is found either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fluxone.errors import BadFile, MissingExtra

LOOK = 192  # px: longer side that pictures are looked at; smaller ones are enlarged
SMALLEST, LARGEST, STEP = 0.12, 0.8, 1.09  # longer side of the logo, as a share of the picture's shorter side
FOUND = 0.7  # score from which a logo is called right: `tests/unit/tune/test_logo.py` holds what it finds and misses
SOFT = 0.8  # px: both are blurred by so much, for a place between two pixels is as good as one on them
PLAIN = 12.0  # colours nearer than that are one
ASIDE = 0.4  # share of the distance from logo to ground up to which a colour is the logo's
VARIED = 24.0  # what the colours of a logo are taken to spread at least, for one of a single colour to be measured by
BEST = 6  # places of each size whose outline is looked at
LEAST_AREA = 25  # px of a logo that can be told from anything

Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Logo:
    """A logo: sRGB colours (H W 3) of 0..255, and where it is (H W), 0..1."""

    name: str
    colours: NDArray[np.uint8]
    shape: Pixels

    @property
    def picture(self) -> Image.Image:
        """As it was cut out."""
        alpha = (self.shape * 255).round().astype(np.uint8)
        return Image.fromarray(np.dstack((self.colours, alpha)), "RGBA")


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """Where a logo is most likely on a picture: left, top, right, bottom in its px, and how near it is to it there."""

    score: float
    box: tuple[int, int, int, int]

    @property
    def found(self) -> bool:
        """Whether it is called the logo."""
        return self.score >= FOUND


@dataclass(frozen=True, kw_only=True)
class LogoCheck:
    """A logo on the references, on the base's pictures, and on the chosen checkpoint's."""

    logo: Logo
    references: tuple[Sighting, ...]
    base: tuple[Sighting, ...]
    drawn: tuple[Sighting, ...]


def right(sightings: Sequence[Sighting]) -> float:
    """On what share of the pictures it is."""
    return sum(one.found for one in sightings) / len(sightings) if sightings else 0.0


def read_logo(path: Path) -> Logo:
    """A logo from a picture of it: what is not transparent, or what lies on plain paper, or all.

    Raises:
        BadFile: it is no picture, or there is nothing on it.
        MissingExtra: OpenCV is not installed.
    """
    cv2 = _opencv()
    try:
        with Image.open(path) as file:
            whole = ImageOps.exif_transpose(file).convert("RGBA")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise BadFile(f"{path} cannot be read: {error}", hint="give a picture of the logo, cut out") from None
    whole.thumbnail((2 * LOOK, 2 * LOOK), Image.Resampling.LANCZOS)
    values = np.asarray(whole)
    colours = np.ascontiguousarray(values[..., :3])
    alpha: Pixels = (values[..., 3] / np.float32(255)).astype(np.float32)
    if alpha.min() > 0.5:
        alpha = _off_paper(cv2, colours)
    rows, columns = (np.flatnonzero((alpha > 0.5).any(axis)) for axis in (1, 0))
    if len(rows) < 3 or len(columns) < 3:
        raise BadFile(f"{path} holds nothing to look for", hint="give a picture of the logo, cut out")
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Logo(name=path.name, colours=_filled(cv2, colours[part], alpha[part] > 0.95), shape=alpha[part])


def look_for(logo: Logo, picture: Image.Image) -> Sighting:
    """The place and size at which a picture is most like a logo."""
    cv2 = _opencv()
    times = LOOK / max(picture.size)
    size = (max(1, round(picture.width * times)), max(1, round(picture.height * times)))
    seen = _lab(cv2, np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)))
    side, best = SMALLEST, Sighting(score=0.0, box=(0, 0, 0, 0))
    while side <= LARGEST:
        scale = side * min(size) / max(logo.shape.shape)
        height, width = (max(1, round(length * scale)) for length in logo.shape.shape)
        if height <= size[1] and width <= size[0]:
            score, x, y = _best(cv2, seen, logo, (width, height))
            if score > best.score:
                corners = (x, y, x + width, y + height)
                left, top, end, bottom = (round(value / times) for value in corners)
                best = Sighting(score=score, box=(left, top, end, bottom))
        side *= STEP
    return best


def logo_check(
    logo: Logo, references: Sequence[Image.Image], base: Sequence[Image.Image], drawn: Sequence[Image.Image]
) -> LogoCheck:
    """Look for a logo everywhere."""
    rows = [tuple(look_for(logo, picture) for picture in pictures) for pictures in (references, base, drawn)]
    return LogoCheck(logo=logo, references=rows[0], base=rows[1], drawn=rows[2])


def _best(cv2: Any, seen: Pixels, logo: Logo, size: tuple[int, int]) -> tuple[float, int, int]:
    """The best score at one size, and its place."""
    colours = cv2.resize(logo.colours, size, interpolation=cv2.INTER_AREA)
    shape = (cv2.resize(logo.shape, size, interpolation=cv2.INTER_AREA) > 0.95).astype(np.float32)
    area = float(shape.sum())
    if area < LEAST_AREA:
        return 0.0, 0, 0
    core = cv2.erode(shape, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    inner = core if core.sum() > max(LEAST_AREA, area / 4) else shape  # soft edges are nobody's colour
    area = float(inner.sum())
    wanted = _lab(cv2, colours)
    wide = max(2, round(0.08 * max(size)))
    ring = _ring(cv2, shape, wide)
    mean = (wanted * inner[..., None]).sum((0, 1)) / area
    spread = float((((wanted - mean) ** 2).sum(-1) * inner).sum() / area)
    off = cv2.matchTemplate(seen, wanted, cv2.TM_SQDIFF, mask=np.dstack([inner] * 3)).clip(min=0) / area
    padded = cv2.copyMakeBorder(seen, wide, wide, wide, wide, cv2.BORDER_REPLICATE)
    share = ring / ring.sum()
    ground = np.dstack([cv2.matchTemplate(padded[..., i].copy(), share, cv2.TM_CCORR) for i in range(3)])
    plain = np.maximum(spread + ((ground - mean) ** 2).sum(-1), 1e-6)
    inside, apart = 1 - off / max(spread, VARIED**2), 1 - off / plain
    scores = np.where(plain < PLAIN**2, 0, np.minimum(inside, apart))
    beyond, best = _beyond(cv2, wanted, shape, wide), (0.0, 0, 0)
    for place in np.argsort(scores, axis=None)[::-1][: BEST * 4 : 4]:
        y, x = divmod(int(place), scores.shape[1])
        if scores[y, x] <= best[0]:
            break
        here = seen[y : y + size[1], x : x + size[0]]
        around = padded[y : y + ring.shape[0], x : x + ring.shape[1]]
        tint = ((here - wanted) * inner[..., None]).sum((0, 1)) / area  # of the whole picture, perhaps
        limit = max(PLAIN, ASIDE * float(plain[y, x]) ** 0.5)
        score = min(float(scores[y, x]), _outline(around, beyond + tint, ring, limit))
        best = max(best, (score, x, y))
    return best


def _outline(around: Pixels, beyond: Pixels, ring: Pixels, limit: float) -> float:
    """The share of the ring whose colours are not those of the logo's edge beside them."""
    far = np.sqrt(((around - beyond) ** 2).sum(-1))
    return float(((far > limit) * ring).sum() / ring.sum())


def _ring(cv2: Any, shape: Pixels, wide: int) -> Pixels:
    """What lies around a shape, as far as `wide` px; the first px, where both mix, is left out."""
    room = cv2.copyMakeBorder(shape, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=0)
    kernel = [cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * n + 1, 2 * n + 1)) for n in (1, wide)]
    near, far = (cv2.dilate(room, one) for one in kernel)
    ring: Pixels = far - near
    return ring if ring.sum() else far - room


def _beyond(cv2: Any, wanted: Pixels, shape: Pixels, wide: int) -> Pixels:
    """The logo's colours, gone on outwards from its edge."""
    room = cv2.copyMakeBorder(shape, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=0)
    colours = cv2.copyMakeBorder(wanted, wide, wide, wide, wide, cv2.BORDER_REPLICATE)
    found: Pixels = _filled(cv2, colours, room > 0.5)
    return found


def _filled(cv2: Any, colours: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[Any]:
    """Everywhere the colour of the nearest place inside: what is outside a logo may be of any, and is to bleed into
    nothing.
    """
    outside = (~inside).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros((int(labels.max()) + 1, 3), dtype=colours.dtype)
    table[labels[inside]] = colours[inside]
    found: NDArray[Any] = table[labels]
    return found


def _off_paper(cv2: Any, colours: NDArray[np.uint8]) -> Pixels:
    """Where a picture without transparency is not the plain paper around it; all of it, if there is no such."""
    lab = _lab(cv2, colours)
    border = np.concatenate((lab[0], lab[-1], lab[:, 0], lab[:, -1]))
    paper = np.median(border, axis=0)
    like = (np.sqrt(((lab - paper) ** 2).sum(-1)) < PLAIN).astype(np.uint8)
    edge = np.concatenate((like[0], like[-1], like[:, 0], like[:, -1]))
    if edge.mean() < 0.98:
        return np.ones(like.shape, dtype=np.float32)
    _, labels = cv2.connectedComponents(like)
    outer = np.unique(np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1])))
    return (~np.isin(labels, outer[outer > 0])).astype(np.float32)


def _lab(cv2: Any, colours: NDArray[np.uint8]) -> Pixels:
    soft = cv2.GaussianBlur(colours.astype(np.float32) / 255, (0, 0), SOFT)
    found: Pixels = cv2.cvtColor(soft, cv2.COLOR_RGB2LAB)
    return found


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError:
        raise MissingExtra("control", "looking for a logo needs OpenCV, which is not installed") from None
    found: ModuleType = cv2
    return found
