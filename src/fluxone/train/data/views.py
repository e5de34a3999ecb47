"""What the pictures of a run show: a scene as it is, as a photograph, edited, its depth, its edges, half covered.

    (world, number) --view--> picture --autoencoder--> latent, kept in a pool

Every view of a number belongs to the same scene, so that any two of them are a pair to learn from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fluxone import storybook
from fluxone.conditions.control import DETECTORS
from fluxone.errors import BadRequest
from fluxone.storybook import Scene, World
from fluxone.storybook.pairs import Pair, pair
from fluxone.train.data.scenes import TRIES, nth

Picture = UInt8[np.ndarray, "H W 3"]
Covered = UInt8[np.ndarray, "H W"]
Hole = tuple[float, float, float, float]  # left, top, right, bottom, in shares of the picture
View = Callable[[World, int, int, bool], Picture]  # (world, number, px each way, held out) -> picture
COVER = (0.3, 1.0)  # sides of the box that is to be repainted, as shares of the picture's
CHANGES = 1 << 52  # seeds of edits are those from here on
GREY = 127  # half way between black and white: what is left where a mask takes the picture away


def edited(world: World, number: int, *, held_out: bool = False) -> tuple[Scene, Scene, str]:
    """Scene `number`, the same with one thing changed, and the instruction that asks for it.

    Raises:
        BadRequest: whatever is changed, the combination is one that must not be trained on.
    """
    before = nth(world, number, held_out=held_out)
    for attempt in range(TRIES):
        seed = CHANGES + number * TRIES + attempt  # not the scene's own, whose kind would decide which edits are drawn
        after, instruction = storybook.edit(before, seed, world=world)
        if held_out or not storybook.held_out(after):
            return before, after, instruction
    raise BadRequest(f"no edit of scene {number} may be trained on", hint="give the world more objects or colours")


def referring(world: World, number: int, kind: str, *, held_out: bool = False) -> Pair:
    """Pair `number` of those of a kind."""
    return pair(number, world, held_out=held_out, kinds={kind: 1.0})


def box(number: int) -> Hole:
    """The part of picture `number` that is to be repainted, in shares of the picture."""
    rng = np.random.default_rng(number)
    wide, high = (rng.uniform(*COVER) for _ in range(2))
    left, top = (rng.uniform(0, 1 - side) for side in (wide, high))
    return left, top, left + wide, top + high


def covered(hole: Hole, size: int) -> Covered:
    """255 inside a box, 0 elsewhere."""
    left, top, right, bottom = (round(edge * size) for edge in hole)
    out = np.zeros((size, size), np.uint8)
    out[top:bottom, left:right] = 255
    return out


def cover(number: int, size: int) -> Covered:
    """The part of picture `number` that is to be repainted: 255 inside a box, 0 elsewhere."""
    return covered(box(number), size)


def _scene(world: World, number: int, size: int, held_out: bool) -> Picture:
    return storybook.render(nth(world, number, held_out=held_out), size)


def _edited(world: World, number: int, size: int, held_out: bool) -> Picture:
    return storybook.render(edited(world, number, held_out=held_out)[1], size)


def _photo(world: World, number: int, size: int, held_out: bool) -> Picture:
    return storybook.render(replace(nth(world, number, held_out=held_out), style="photo"), size)


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


def _target(kind: str) -> View:
    def drawn(world: World, number: int, size: int, held_out: bool) -> Picture:
        return storybook.render(referring(world, number, kind, held_out=held_out).target, size)

    return drawn


def _reference(kind: str, place: int) -> View:
    def drawn(world: World, number: int, size: int, held_out: bool) -> Picture:
        view = referring(world, number, kind, held_out=held_out).references[place]
        return storybook.render(view.scene, size, mode=view.mode)

    return drawn


VIEWS: dict[str, View] = {
    "scene": _scene,
    "photo": _photo,
    "edited": _edited,
    "covered": _covered,
    "canny": _edges,
    "depth": _mode("depth"),
    "pose": _mode("pose"),
    "character pair": _target("character"),
    "character pair 1": _reference("character", 0),
    "both pair": _target("both"),
    "both pair 1": _reference("both", 0),
    "both pair 2": _reference("both", 1),
    "pose pair": _target("pose"),
    "pose pair 1": _reference("pose", 0),
}
