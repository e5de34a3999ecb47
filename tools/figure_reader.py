"""Whether a drawn figure is the one that was asked for, without a network: by what the renderer would have drawn there.

    picture --best place, size, pose of the true figure--> each attribute: which of its values is nearest there?

An attribute is right when the true value's rendering is nearer than that of every other value; nothing is right where
the figure is not found at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fluxone.storybook.canvas import SPAN, Canvas
from fluxone.storybook.colours import PALETTE
from fluxone.storybook.engines import ENGINES
from fluxone.storybook.people import HAIR
from fluxone.storybook.render import draw
from fluxone.storybook.spec import Person

SMALL, LARGE = 64, 128  # px: where it is looked for, and where it is looked at
HEIGHTS = (46.0, 52.0, 58.0, 64.0, 70.0, 76.0)
POSES = ("standing", "waving", "jumping")
FOUND = 0.17  # root mean square distance of the colours (0..1) up to which the figure is there
NOTHING = 0.25  # the distance that an absent hat is credited with
TOLD = 0.08  # of a pixel: where two renderings differ
SHIFTS = 3  # px that a figure may be off its place

Values = Mapping[str, Person]


def _colours(person: Person, field: str, names: Sequence[str]) -> dict[str, Person]:
    return {name: replace(person, **{field: name}) for name in names}


ATTRIBUTES: dict[str, Callable[[Person], Values]] = {
    "hair": lambda p: _colours(p, "hair", tuple(HAIR)),
    "hair style": lambda p: _colours(p, "style", ("pigtails", "long", "bun", "short")),
    "clothes' colour": lambda p: _colours(p, "shirt", tuple(PALETTE)),
    "clothes": lambda p: _colours(p, "bottom", ("dress", "skirt", "trousers", "shorts")),
    "hat": lambda p: _colours(p, "hat", ("", "crown", "cap", "beanie", "hat")),
}
TRUE: dict[str, Callable[[Person], str]] = {
    "hair": lambda p: p.hair,
    "hair style": lambda p: p.style,
    "clothes' colour": lambda p: p.shirt,
    "clothes": lambda p: p.bottom,
    "hat": lambda p: p.hat,
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the figure was found, how near it is there, and how it stands."""

    person: Person
    distance: float


@lru_cache(maxsize=4096)
def rendered(person: Person, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The figure alone: colours (H W 3) in 0..1, and how much of each pixel it covers (H W)."""
    canvas = Canvas()
    draw(person, canvas)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {SPAN:g} {SPAN:g}">'
    pixels = ENGINES["resvg"](f"{head}{canvas.body}</svg>", size).astype(np.float32) / 255
    return pixels[..., :3], pixels[..., 3]


def pixels(picture: Image.Image, size: int) -> NDArray[np.float32]:
    """(H W 3) in 0..1."""
    return np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BOX), dtype=np.float32) / 255


def find(picture: Image.Image, person: Person) -> Place:
    """The best place of the figure as it truly looks."""
    image = torch.from_numpy(pixels(picture, SMALL)).permute(2, 0, 1)[None]
    best: Place | None = None
    for pose in POSES:
        for flip in (False, True) if pose == "waving" else (False,):
            for height in HEIGHTS:
                one = replace(person, pose=pose, flip=flip, height=height, x=50.0, foot=92.0)
                distance, dx, dy = _matched(image, one)
                if best is None or distance < best.distance:
                    unit = SPAN / SMALL
                    best = Place(person=replace(one, x=50 + dx * unit, foot=92 + dy * unit), distance=distance)
    assert best is not None
    return best


def _matched(image: Tensor, person: Person) -> tuple[float, int, int]:
    """The least distance over all places inside the picture, and how far that is from where it was rendered, px."""
    colour, cover = rendered(person, SMALL)
    rows, columns = np.nonzero(cover > 0.5)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    mask = torch.from_numpy((cover[top:bottom, left:right] > 0.5).astype(np.float32))
    patch = torch.from_numpy(colour[top:bottom, left:right]).permute(2, 0, 1) * mask
    area = mask.sum() * 3
    squares = F.conv2d(image.square(), mask.expand(1, 3, *mask.shape))
    products = F.conv2d(image, patch[None])
    cost = (squares - 2 * products + patch.square().sum()) / area
    at = int(cost.argmin())
    y, x = divmod(at, cost.shape[-1])
    return float(cost.flatten()[at].clamp(min=0).sqrt()), x - int(left), y - int(top)


def read(picture: Image.Image, person: Person) -> dict[str, bool]:
    """Which of the attributes are right."""
    place = find(picture, person)
    if place.distance > FOUND:
        return dict.fromkeys(ATTRIBUTES, False)
    image = pixels(picture, LARGE)
    return {name: _right(image, place.person, name) for name in ATTRIBUTES}


def _right(image: NDArray[np.float32], person: Person, name: str) -> bool:
    values = ATTRIBUTES[name](person)
    drawn = {value: rendered(one, LARGE) for value, one in values.items()}
    true = TRUE[name](person)
    where = np.zeros(image.shape[:2], dtype=bool)
    for colour, cover in drawn.values():
        other, own = drawn[true]
        where |= (np.abs(colour * cover[..., None] - other * own[..., None]).max(-1) > TOLD) & ((cover + own) > 0.5)
    rows, columns = np.nonzero(where)
    if not len(rows):
        return False
    part = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    wide = np.pad(image, ((SHIFTS, SHIFTS), (SHIFTS, SHIFTS), (0, 0)), mode="edge")
    costs = {
        value: _cost(wide, colour[part], cover[part], where[part], part) for value, (colour, cover) in drawn.items()
    }
    return min(costs, key=lambda value: costs[value]) == true


def _cost(
    image: NDArray[np.float32],
    colour: NDArray[np.float32],
    cover: NDArray[np.float32],
    where: NDArray[np.bool_],
    part: tuple[slice, slice],
) -> float:
    """How far the picture is at best from a rendering, where the values differ.

    Args:
        image: with `SHIFTS` px more on every side than the rendering that `part` is cut out of.
    """
    best = np.inf
    for dy in range(2 * SHIFTS + 1):
        for dx in range(2 * SHIFTS + 1):
            rows, columns = part
            there = image[rows.start + dy : rows.stop + dy, columns.start + dx : columns.stop + dx]
            square = ((there - colour) ** 2).mean(-1)
            best = min(best, float(np.where(cover > 0.5, square, NOTHING**2)[where].mean()))
    return best
