"""What a worker makes of a number: pictures, words, and what they show. One row a shelf of the bank.

number --row of SHELVES--> Sample(pictures, scene, texts)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fluxone import storybook
from fluxone.conditions.control import DETECTORS
from fluxone.storybook import Scene, World
from fluxone.storybook.pairs import Pair, pair
from fluxone.train.data.scenes import PEOPLED, nth
from fluxone.train.data.views import GREY, box, covered

Picture = UInt8[np.ndarray, "H W 3"]
WORDINGS = 4  # texts of a sample, one of which is drawn each time it is learnt from
WORDING = 3  # a seed whose captions tell the place
DESCRIBED = ("edit", "character")  # kinds of pairs that now and then are asked for by a caption of what comes out


def _quickest() -> str:
    """The quickest renderer that works here."""
    try:
        importlib.import_module("skia")
    except ImportError:  # not installed, or without the system's libraries
        return "resvg"
    return "skia"


ENGINE = _quickest()
STRETCH = 256  # pairs looked at for one with the wanted number of references
APART = 1 << 30  # between the numbers of shelves that draw from the same world


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample.

    Attributes:
        pictures: by name; `x` is the one to draw.
        scene: what `x` shows.
        texts: `WORDINGS` of them.
        plain: the one wording that the scene always has.
        hole: left, top, right, bottom of what is covered, in shares of the picture.
    """

    pictures: dict[str, Picture]
    scene: Scene
    texts: tuple[str, ...]
    plain: str = ""
    hole: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


Maker = Callable[[World, int, int], Sample]  # (world, number, px each way) -> sample


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """One row: how its samples are made, and which pictures they have besides the one to draw."""

    make: Maker
    given: tuple[str, ...] = ()


def captions(scene: Scene, seed: int) -> tuple[str, ...]:
    """Different wordings of one scene."""
    return tuple(storybook.caption(scene, Random(seed * WORDINGS + n)) for n in range(WORDINGS))


def draw(scene: Scene, size: int, mode: str = "rgb") -> Picture:
    """The picture, by the quickest renderer that is installed."""
    return storybook.render(scene, size, mode=mode, engine=ENGINE)


def plain(scene: Scene) -> str:
    """The caption in the one wording that a scene always has: what an eye can learn to say."""
    return storybook.caption(scene, Random(WORDING))


def text(world: World, number: int, size: int) -> Sample:
    """A scene and its captions."""
    scene = nth(world, number)
    return Sample(pictures={"x": draw(scene, size)}, scene=scene, texts=captions(scene, number), plain=plain(scene))


def photo(world: World, number: int, size: int) -> Sample:
    """Another scene as a photograph, of which the captions say nothing."""
    scene = nth(world, 3 * APART + number)
    picture = draw(replace(scene, style="photo"), size)
    return Sample(pictures={"x": picture}, scene=scene, texts=captions(scene, number))


def referring(count: int) -> Maker:
    """A picture to make from `count` others, and the words that ask for it."""

    def made(world: World, number: int, size: int) -> Sample:
        found = _with(count, world, number)
        views = zip(("first", "second"), found.references, strict=False)
        pictures = {name: draw(view.scene, size, view.mode) for name, view in views}
        asked = [found.text] * WORDINGS
        if found.kind in DESCRIBED:
            asked[-1] = captions(found.target, number)[0]
        return Sample(pictures={"x": draw(found.target, size)} | pictures, scene=found.target, texts=tuple(asked))

    return made


def _with(count: int, world: World, number: int) -> Pair:
    """The first pair from `number`'s own stretch on that has as many references."""
    stretch = range(number * STRETCH, (number + 1) * STRETCH)
    return next(found for n in stretch if len((found := pair(n, world)).references) == count)


def control(world: World, number: int, size: int) -> Sample:
    """A scene with its depth, its edges, and itself with a hole."""
    scene = nth(world, APART + number)
    x, hole = draw(scene, size), box(number)
    pictures = {
        "x": x,
        "depth": draw(scene, size, "depth"),
        "canny": np.array(DETECTORS["canny"](Image.fromarray(x))),
        "covered": np.where(covered(hole, size)[..., None] > 0, np.uint8(GREY), x),
    }
    return Sample(pictures=pictures, scene=scene, texts=captions(scene, number), hole=hole)


def pose(world: World, number: int, size: int) -> Sample:
    """People, and how they stand."""
    scene = nth(_peopled(world), 2 * APART + number)
    pictures = {"x": draw(scene, size), "pose": draw(scene, size, "pose")}
    return Sample(pictures=pictures, scene=scene, texts=captions(scene, number))


def _peopled(world: World) -> World:
    return replace(world, kinds={kind: share for kind, share in world.kinds.items() if kind in PEOPLED})


SHELVES: dict[str, Shelf] = {
    "text": Shelf(make=text),
    "photo": Shelf(make=photo),
    "edit": Shelf(make=referring(1), given=("first",)),
    "both": Shelf(make=referring(2), given=("first", "second")),
    "control": Shelf(make=control, given=("depth", "canny", "covered")),
    "pose": Shelf(make=pose, given=("pose",)),
}
