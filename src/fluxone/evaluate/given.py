"""What a model is given besides words, told as scenes and ways to see them; the pictures are made when needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from fluxone import storybook
from fluxone.conditions.control import canny
from fluxone.geometry import Resolution
from fluxone.request import Request
from fluxone.storybook import Scene

EDGES, HOLE = "edges", "hole"  # ways to see a scene besides the renderer's modes
MARGIN = 0.03  # of the picture: how far a hole reaches beyond the thing that it hides


@dataclass(frozen=True, kw_only=True)
class Given:
    """One picture for a request.

    Attributes:
        field: of the request.
        mode: row of the renderer's modes; `edges`, found in the picture; or `hole`, white where the first thing is.
    """

    field: str
    scene: Scene
    mode: str = "rgb"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked, and the scene that is to come out of it, which no training saw.

    Attributes:
        sort: of the prompts of a suite, where it has several.
        group: prompts of one group are about the same thing, and resemble each other.
    """

    text: str
    scene: Scene
    given: tuple[Given, ...] = ()
    sort: str = ""
    group: int = 0


@lru_cache(maxsize=512)
def shown(scene: Scene, mode: str, size: int) -> Image.Image:
    """The scene's picture, seen so.

    Raises:
        MissingExtra: what draws it, or finds edges in it, is not installed.
    """
    if mode == EDGES:
        return canny(shown(scene, "rgb", size))
    if mode == HOLE:
        return _hole(scene, size)
    return Image.fromarray(storybook.render(scene, size, mode=mode))


def _hole(scene: Scene, size: int) -> Image.Image:
    left, top, right, bottom = scene.facts.things[0].box
    mask = np.zeros((size, size), np.uint8)
    rows, columns = (
        slice(int(max(0.0, low - MARGIN) * size), round(min(1.0, high + MARGIN) * size))
        for low, high in ((top, bottom), (left, right))
    )
    mask[rows, columns] = 255
    return Image.fromarray(mask)


def request(prompt: Prompt, *, seed: int, steps: int, size: int, guidance: float | None = None) -> Request:
    """The request that asks a model for the prompt's picture, `size` px square; no guidance is the model's own."""
    fields: dict[str, list[Image.Image]] = {}
    for one in prompt.given:
        fields.setdefault(one.field, []).append(shown(one.scene, one.mode, size))
    several = {name: tuple(fields.get(name, ())) for name in ("references", "image_prompts")}
    single = {name: fields[name][0] if name in fields else None for name in ("init", "mask", "control")}
    return Request(
        prompt=prompt.text,
        seed=seed,
        steps=steps,
        guidance=guidance,
        resolution=Resolution(height=size, width=size),
        strength=1.0 if single["init"] else None,
        references=several["references"],
        image_prompts=several["image_prompts"],
        init=single["init"],
        mask=single["mask"],
        control=single["control"],
    )
