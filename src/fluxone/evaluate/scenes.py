"""The pictures that the judge learns from: rendered scenes with their truth, drawn once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

import numpy as np
from numpy.typing import NDArray

from fluxone import storybook
from fluxone.evaluate.truth import Spot, spots
from fluxone.storybook import Scene, World
from fluxone.storybook.library import lettering
from fluxone.storybook.spec import Sign
from fluxone.storybook.worlds import WORLDS

SIZE = 128  # px: what the judge looks at
KINDS = {
    "one": 0.2,
    "side": 0.25,
    "stack": 0.08,
    "count": 0.2,
    "sign": 0.1,
    "reading": 0.05,
    "inside": 0.05,
    "hiding": 0.1,
    "person": 0.04,
}
PLAIN = 0.4  # share of the scenes that are of the mini's world, where all things look one way


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture (uint8, H W 3) and what is on it."""

    picture: NDArray[np.uint8]
    scene: Scene
    spots: tuple[Spot, ...]


def drawn(count: int, *, seed: int, kinds: Sequence[str] = tuple(KINDS), tell: Callable[[int], None]) -> list[Shown]:
    """`count` pictures of scenes of the first world, some of them as the mini's world draws them.

    Args:
        tell: called after each picture with how many there are.
    """
    shown = []
    for scene in islice(_scenes(seed, kinds), count):
        shown.append(Shown(picture=storybook.render(scene, SIZE), scene=scene, spots=tuple(spots(scene))))
        tell(len(shown))
    return shown


def _scenes(seed: int, kinds: Sequence[str]) -> Iterator[Scene]:
    r = Random(seed)
    worlds = [_world(name, kinds) for name in ("first", "mini")]
    while True:
        yield storybook.scene(r.getrandbits(48), worlds[r.random() < PLAIN])


def _world(name: str, kinds: Sequence[str]) -> World:
    return replace(WORLDS[name], kinds={kind: KINDS[kind] for kind in kinds}, random_words=0.6, max_letters=8)


def sign_of(scene: Scene) -> Sign:
    """The one sign of a scene of that kind."""
    return next(item for item in scene.items if isinstance(item, Sign))


def letters(sign: Sign) -> list[tuple[str, float, float]]:
    """Each letter with its left and right edge, in picture units."""
    ends = [lettering(sign.text[:n], sign.font).width * sign.em for n in range(len(sign.text) + 1)]
    left = sign.x - ends[-1] / 2
    return [(letter, left + ends[n], left + ends[n + 1]) for n, letter in enumerate(sign.text)]
