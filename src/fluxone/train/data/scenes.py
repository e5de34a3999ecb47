"""The world of a run, its pictures as tensors, and the randomness of its steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluxone import storybook
from fluxone.errors import pick
from fluxone.storybook import World
from fluxone.storybook.compose import PEOPLED as PEOPLED
from fluxone.storybook.generate import TRIES as TRIES
from fluxone.storybook.generate import VALIDATION as VALIDATION
from fluxone.storybook.generate import nth as nth
from fluxone.train.config import Data

MASK = (1 << 63) - 1


def world_of(data: Data) -> World:
    """The world a run is trained on: a row of `WORLDS`, narrowed as the recipe says.

    Raises:
        UnknownName: no world, or none of its objects, colours, stages or signs, has that name.
    """
    row = pick(storybook.WORLDS, data.world, "world")
    given = {"random_words": data.random_words, "mirrored": data.mirrored}
    chosen: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    for field in ("objects", "colours", "stages", "signs", "words", "kinds"):
        names = getattr(data, field)
        for name in names if field != "words" else ():
            pick({known: known for known in getattr(row, field)}, name, f"one of the {field} of world {data.world}")
        if names:
            chosen[field] = names
    for name in data.edits:
        pick({known: known for known in row.edits}, name, f"one of the edits of world {data.world}")
    if data.edits:
        chosen["edit_weights"] = data.edits
    return replace(row, **chosen)


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
