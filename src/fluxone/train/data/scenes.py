"""Scenes by index: any process can draw the n-th training or validation scene without drawing the ones before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluxone import storybook
from fluxone.errors import BadRequest, pick
from fluxone.storybook import Scene, World
from fluxone.train.config import Data

TRIES = 1 << 10  # seeds kept for an index; a scene of the wrong side of the hold-out is drawn again
VALIDATION = 1 << 50  # seeds from here on are never trained on
MASK = (1 << 63) - 1


def world_of(data: Data) -> World:
    """The world a run is trained on: a row of `WORLDS`, narrowed as the recipe says.

    Raises:
        UnknownName: no world, or none of its objects, colours, stages or signs, has that name.
    """
    row = pick(storybook.WORLDS, data.world, "world")
    chosen: dict[str, Any] = {"random_words": data.random_words, "mirrored": data.mirrored}
    for field in ("objects", "colours", "stages", "signs", "words", "kinds"):
        names = getattr(data, field)
        for name in names if field != "words" else ():
            pick({known: known for known in getattr(row, field)}, name, f"one of the {field} of world {data.world}")
        if names:
            chosen[field] = names
    return replace(row, **chosen)


def nth(world: World, index: int, *, held_out: bool = False) -> Scene:
    """The scene number `index`: of combinations that are trained on, or only of those held out.

    Raises:
        BadRequest: the world is so small that one side is empty.
    """
    base = index * TRIES + (VALIDATION if held_out else 0)
    for seed in range(base, base + TRIES):
        scene = storybook.scene(seed, world)
        if storybook.held_out(scene) == held_out:
            return scene
    side = "held out" if held_out else "trained on"
    raise BadRequest(f"none of {TRIES} scenes of this world is {side}", hint="give it more objects, colours or words")


def pixels(picture: np.ndarray) -> Float[Tensor, "3 H W"]:
    """A uint8 picture (H, W, 3) as values from -1 to 1."""
    return torch.from_numpy(picture).permute(2, 0, 1).float().div_(127.5).sub_(1)


def draw(seed: int, *position: int) -> torch.Generator:
    """The generator of one step (or sample) of a run: the same whatever ran before.

    The numbers are mixed as splitmix64 does, so neighbouring steps have unrelated streams.
    """
    mixed = seed & MASK
    for number in position:
        mixed = (mixed * 0x9E3779B97F4A7C15 + number + 0x632BE59BD9B4E019) & ((1 << 64) - 1)
        mixed ^= mixed >> 30
        mixed = (mixed * 0xBF58476D1CE4E5B9) & ((1 << 64) - 1)
        mixed ^= mixed >> 27
    return torch.Generator().manual_seed(mixed & MASK)
