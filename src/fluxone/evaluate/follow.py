"""What a picture is held to without the judge: what was to stay as it is, and the map that it was to follow.

    kept       px that the true change leaves alone, compared with the true picture
    edges      edges found in the picture against the asked ones
    outlines   how much of the outline of things in the asked depth has an edge in the picture
    stance     which of the rig's poses has its outline in the picture

The bars were set on rendered truth and on it after an autoencoder; `docs/evaluate.md` says where these are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fluxone import storybook
from fluxone.conditions.control import canny
from fluxone.evaluate.given import Prompt, shown
from fluxone.storybook import Scene
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Person

KEPT = 25.0  # dB
SAME, SPARED, REST = 6, 4, 0.03  # grey levels that are no change; px around a change; least share that is left alone
TOLERANCE = 2  # px between an edge and its like
EDGES, OUTLINES, TIE = 0.6, 0.75, 0.03  # bars
Mask = Bool[Tensor, "H W"]


@dataclass(frozen=True, kw_only=True)
class Held:
    """A number, and whether it is good enough; None where there is nothing to measure."""

    value: float | None
    right: bool


def kept(prompt: Prompt, image: Image.Image) -> Held:
    """How like the true picture it is (dB) where the true change leaves the given picture alone."""
    rest = untouched(prompt, image.width)
    if rest.mean() < REST:
        return Held(value=None, right=True)
    true = np.asarray(shown(prompt.scene, "rgb", image.width), np.float64)
    value = decibels(float(np.square(np.asarray(image.convert("RGB"), np.float64) - true)[rest].mean()))
    return Held(value=value, right=value > KEPT)


@lru_cache(maxsize=256)
def untouched(prompt: Prompt, size: int) -> NDArray[np.bool_]:
    """The px that are alike in the given picture and in the true one, and not next to others."""
    given = next(one for one in prompt.given if one.mode == "rgb")
    hole = next((one for one in prompt.given if one.field == "mask"), None)
    if hole is not None:
        whole: NDArray[np.bool_] = np.asarray(shown(hole.scene, hole.mode, size)) == 0
        return whole
    before, after = (np.asarray(shown(scene, "rgb", size), np.int16) for scene in (given.scene, prompt.scene))
    changed = torch.from_numpy(np.abs(before - after).max(2) > SAME)
    rest: NDArray[np.bool_] = (~wide(changed, SPARED)).numpy()
    return rest


def decibels(error: float) -> float:
    """Peak signal to noise ratio of a mean squared error of grey levels, at most 99."""
    return 99.0 if error <= 0 else min(99.0, float(10 * np.log10(255**2 / error)))


def wide(mask: Mask, reach: int) -> Mask:
    """The mask grown by `reach` px."""
    grown: Tensor = F.max_pool2d(mask[None, None].float(), 2 * reach + 1, 1, reach)[0, 0]
    return grown > 0


def edges(prompt: Prompt, image: Image.Image) -> Held:
    """The F score of the picture's edges against the asked ones, each near enough to one of the other."""
    asked, found = found_in(shown(prompt.scene, "edges", image.width)), found_in(canny(image))
    right, there = share(found, asked), share(asked, found)
    value = 2 * right * there / (right + there) if right + there else 0.0
    return Held(value=value, right=value > EDGES)


def found_in(edges: Image.Image) -> Mask:
    """The px that are edges."""
    return torch.from_numpy(np.asarray(edges.convert("L")) > 127)


def share(of: Mask, near: Mask) -> float:
    """The share of the first's px that have one of the second near."""
    return float((of & wide(near, TOLERANCE)).sum() / of.sum().clamp(min=1))


def outlines(prompt: Prompt, image: Image.Image) -> Held:
    """How much of the outlines of the scene's things has an edge near it."""
    value = share(outline(prompt.scene, image.width), soft_edges(image))
    return Held(value=value, right=value > OUTLINES)


def outline(scene: Scene, size: int) -> Mask:
    """The px where one thing ends and another, or the ground, begins."""
    labels = torch.from_numpy(storybook.render(scene, size, mode="labels").astype(np.int64))
    found = torch.zeros(labels.shape, dtype=torch.bool)
    found[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    found[1:] |= labels[1:] != labels[:-1]
    return found


def soft_edges(image: Image.Image, *, level: float = 12.0) -> Mask:
    """The px where a colour changes by more than `level` grey levels within 2 px."""
    x = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32)).permute(2, 0, 1)
    found = torch.zeros(x.shape[1:], dtype=torch.bool)
    found[:, 1:-1] |= (x[:, :, 2:] - x[:, :, :-2]).abs().amax(0) > level
    found[1:-1] |= (x[:, 2:] - x[:, :-2]).abs().amax(0) > level
    return found


def stance(prompt: Prompt, image: Image.Image) -> Held:
    """Whether no pose of the rig, either way round, fits the picture's edges clearly better than the asked one."""
    found = soft_edges(image)
    asked, best = share(outline(prompt.scene, image.width), found), 0.0
    for other in others(prompt.scene):
        best = max(best, share(outline(other, image.width), found))
    return Held(value=asked, right=asked > OUTLINES and asked > best - TIE)


@lru_cache(maxsize=64)
def others(scene: Scene) -> tuple[Scene, ...]:
    """The scene with each person in every other pose and direction, one person at a time; nothing else is in it."""
    people = [item for item in scene.items if isinstance(item, Person)]
    alone = replace(scene, items=tuple(people))
    made = []
    for i, person in enumerate(people):
        for pose in POSES:
            for flip in (False, True):
                if (pose, flip) != (person.pose, person.flip):
                    items = (*people[:i], replace(person, pose=pose, flip=flip), *people[i + 1 :])
                    made.append(replace(alone, items=items))
    return tuple(made)


FOLLOWED: dict[str, Callable[[Prompt, Image.Image], Held]] = {
    "kept": kept,
    "edges": edges,
    "outlines": outlines,
    "stance": stance,
}
UNITS = {"kept": "dB", "edges": "F", "outlines": "%", "stance": "%"}
