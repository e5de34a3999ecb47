"""What the pictures of a run show: a scene as it is, the same scene edited, its depth, its edges, half covered.

    (world, number) --view--> picture --autoencoder--> latent, kept in a pool

Every view of a number belongs to the same scene, so that any two of them are a pair to learn from.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fluxone import storybook
from fluxone.conditions.control import DETECTORS
from fluxone.errors import BadRequest
from fluxone.storybook import Scene, World
from fluxone.train.data.scenes import TRIES, nth

Picture = UInt8[np.ndarray, "H W 3"]
Covered = UInt8[np.ndarray, "H W"]
View = Callable[[World, int, int, bool], Picture]  # (world, number, px each way, held out) -> picture
COVER = (0.3, 1.0)  # sides of the box that is to be repainted, as shares of the picture's
GREY = 127  # half way between black and white: what is left where a mask takes the picture away


def edited(world: World, number: int, *, held_out: bool = False) -> tuple[Scene, Scene, str]:
    """Scene `number`, the same with one thing changed, and the instruction that asks for it.

    Raises:
        BadRequest: whatever is changed, the combination is one that must not be trained on.
    """
    before = nth(world, number, held_out=held_out)
    for attempt in range(TRIES):
        after, instruction = storybook.edit(before, number * TRIES + attempt, world=world)
        if held_out or not storybook.held_out(after):
            return before, after, instruction
    raise BadRequest(f"no edit of scene {number} may be trained on", hint="give the world more objects or colours")


def cover(number: int, size: int) -> Covered:
    """The part of picture `number` that is to be repainted: 255 inside a box, 0 elsewhere."""
    rng = np.random.default_rng(number)
    wide, high = (round(size * rng.uniform(*COVER)) for _ in range(2))
    left, top = (int(rng.integers(0, size - side + 1)) for side in (wide, high))
    out = np.zeros((size, size), np.uint8)
    out[top : top + high, left : left + wide] = 255
    return out


def _scene(world: World, number: int, size: int, held_out: bool) -> Picture:
    return storybook.render(nth(world, number, held_out=held_out), size)


def _edited(world: World, number: int, size: int, held_out: bool) -> Picture:
    return storybook.render(edited(world, number, held_out=held_out)[1], size)


def _covered(world: World, number: int, size: int, held_out: bool) -> Picture:
    picture = _scene(world, number, size, held_out).copy()
    picture[cover(number, size) > 0] = GREY
    return picture


def _edges(world: World, number: int, size: int, held_out: bool) -> Picture:
    picture = Image.fromarray(_scene(world, number, size, held_out))
    return np.array(DETECTORS["canny"](picture))


def _mode(mode: str) -> View:
    def drawn(world: World, number: int, size: int, held_out: bool) -> Picture:
        return storybook.render(nth(world, number, held_out=held_out), size, mode=mode)

    return drawn


VIEWS: dict[str, View] = {
    "scene": _scene,
    "edited": _edited,
    "covered": _covered,
    "canny": _edges,
    "depth": _mode("depth"),
    "pose": _mode("pose"),
}
