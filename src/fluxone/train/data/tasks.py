"""What a flow learns to draw from: words alone, words and a picture to edit, words and a depth map, ...

    (scene numbers) --task--> Batch: the picture to draw, the words, the pictures that are given

A task says nothing about losses, an objective nothing about tasks: any objective distils or trains any task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from fluxone.conditions.fill import mask_tokens
from fluxone.conditions.reference import LAYOUT, laid_out
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.tokens import image_ids, pack
from fluxone.storybook import Scene
from fluxone.train.config import TrainConfig
from fluxone.train.data.answers import Answers
from fluxone.train.data.batch import Batch, Tokens
from fluxone.train.data.latents import Pool, encode
from fluxone.train.data.samples import plain as worded_plainly
from fluxone.train.data.scenes import PEOPLED, draw, nth, world_of
from fluxone.train.data.views import cover, edited
from fluxone.train.data.views import referring as paired
from fluxone.train.parts import caption
from fluxone.train.tokenizer import encode as encode_words

DESCRIBED = 0.15  # share of edits that are asked for by a caption of what comes out
WITHOUT = 0.1  # share of the steps of `edit` that give no picture: the model must still draw from words
WORDS_ALONE = 0.8  # share of the steps of `mix` that give no picture
REFERRING = {"character": 0.22, "both": 0.1, "pose": 0.08}  # shares of the steps of `kontext`; the rest are of `edit`
DESCRIBED_PAIRS = ("character",)  # kinds whose caption says all that the text does
FOLLOWING = 0.15  # share of edits in which the picture is a depth map, to be followed


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which scenes a process takes in one step.

    Attributes:
        first: place of the first of them in the step's batch.
        held_out: whether the numbers count the scenes that are never trained on; these keep their own captions.
    """

    numbers: list[int]
    step: int = 0
    first: int = 0
    held_out: bool = False


class Material:
    """The world's scenes and their latents, for one run; and what words and tokens are numbered as."""

    def __init__(self, config: TrainConfig, encoder: AutoEncoder, tokenizer: Tokenizer, answers: Answers) -> None:
        self.config, self.encoder, self.tokenizer, self.answers = config, encoder, tokenizer, answers
        self.world = world_of(config.data)
        self.size, self.length = config.data.size, config.model.text_tokens
        self.side = self.size // encoder.shape.factor // 2
        self._pools: dict[str, Pool] = {}
        self._held_out: dict[tuple[str, int], Tensor] = {}

    def known(self, step: int) -> int:
        """How many scenes may be drawn at a step."""
        return self._pool("scene").known(step, self.config.steps)

    def take(self, view: str, rows: Rows) -> Tokens:
        """Tokens of the rows' scenes, seen so."""
        if not rows.held_out:
            return pack(self._pool(view, fill=rows.first == 0).take(torch.tensor(rows.numbers)))
        for number in rows.numbers:
            if (view, number) not in self._held_out:
                only = range(number, number + 1)
                latent = encode(self.encoder, self.world, self.size, only, held_out=True, view=view)
                self._held_out[view, number] = latent
        return pack(torch.cat([self._held_out[view, number] for number in rows.numbers]))

    def batch(self, x: Tokens, scenes: Sequence[Scene], prompts: Sequence[str]) -> Batch:
        """The samples that show these scenes and are told these words."""
        shown = torch.stack([self.answers.shown(scene, self.side) for scene in scenes])
        ids = torch.tensor(encode_words(self.tokenizer, prompts, self.length))
        return Batch(x=x, ids=ids, shown=shown, prompts=tuple(prompts))

    def scene(self, number: int, rows: Rows) -> Scene:
        """The scene of that number, of the rows' side of the hold-out."""
        return nth(self.world, number, held_out=rows.held_out)

    def rng(self, rows: Rows, row: int) -> torch.Generator:
        """The generator of one row's words."""
        return draw(self.config.seed, rows.step, 1, rows.first + row)

    def said(self, scene: Scene, rows: Rows, row: int) -> str:
        """A caption of the scene: its own, or in training a new wording."""
        return scene.caption if rows.held_out else caption(scene, self.rng(rows, row))

    def _pool(self, view: str, *, fill: bool | None = None) -> Pool:
        if view not in self._pools:
            place = Path(self.config.out).parent / "latents"
            self._pools[view] = Pool(place, self.config.data, self.config.model, view)
        pool = self._pools[view]
        if fill is not None and not pool.opened:
            pool.open(fill=fill)
        return pool


Task = Callable[[Material, Rows], Batch]


def told(view: str) -> Task:
    """The task of a caption alone, of scenes that are seen so."""

    def task(material: Material, rows: Rows) -> Batch:
        scenes = [material.scene(number, rows) for number in rows.numbers]
        prompts = [material.said(scene, rows, row) for row, scene in enumerate(scenes)]
        return material.batch(material.take(view, rows), scenes, prompts)

    return task


text = told("scene")


def plain(material: Material, rows: Rows) -> Batch:
    """A caption in the one wording that a scene always has: what an eye can learn to say."""
    scenes = [material.scene(number, rows) for number in rows.numbers]
    prompts = [worded_plainly(scene) for scene in scenes]
    return material.batch(material.take("scene", rows), scenes, prompts)


def edit(material: Material, rows: Rows) -> Batch:
    """A picture and an instruction; now and then a depth map and a caption, or no picture.

    Source: Black Forest Labs et al. 2025, "FLUX.1 Kontext" (the picture's tokens after the noise's, as another index).
    """
    whole = draw(material.config.seed, rows.step, 2)
    if not rows.held_out and torch.rand((), generator=whole) < WITHOUT:
        return text(material, rows)
    pairs = [edited(material.world, number, held_out=rows.held_out) for number in rows.numbers]
    chance = torch.stack([torch.rand(2, generator=draw(material.config.seed, rows.step, 3, n)) for n in rows.numbers])
    follows, described = (chance < torch.tensor([FOLLOWING, DESCRIBED])).T
    scenes, prompts = [], []
    for row, (before, after, instruction) in enumerate(pairs):
        scenes.append(before if follows[row] else after)
        words = bool(follows[row]) or (bool(described[row]) and not rows.held_out)
        prompts.append(material.said(scenes[-1], rows, row) if words else instruction)
    here = follows[:, None, None]
    scene, other, depth = (material.take(view, rows) for view in ("scene", "edited", "depth"))
    x, reference = torch.where(here, scene, other), torch.where(here, depth, scene)
    places = image_ids(material.side, material.side, 1)
    return replace(material.batch(x, scenes, prompts), reference=reference, places=places)


def referring(kind: str) -> Task:
    """What a kind of pairs asks for, and the one or two pictures that it refers to."""

    def task(material: Material, rows: Rows) -> Batch:
        pairs = [paired(material.world, number, kind, held_out=rows.held_out) for number in rows.numbers]
        prompts = [found.text for found in pairs]
        for row, found in enumerate(pairs):
            chance = torch.rand((), generator=draw(material.config.seed, rows.step, 7, rows.first + row))
            if kind in DESCRIBED_PAIRS and not rows.held_out and chance < DESCRIBED:
                prompts[row] = material.said(found.target, rows, row)
        count = len(pairs[0].references)
        seen = [material.take(f"{kind} pair {place + 1}", rows) for place in range(count)]
        places = laid_out([(material.side, material.side)] * count, LAYOUT)
        made = material.batch(material.take(f"{kind} pair", rows), [found.target for found in pairs], prompts)
        return replace(made, reference=torch.cat(seen, dim=1), places=places)

    return task


def kontext(material: Material, rows: Rows) -> Batch:
    """All that a reference is good for, one sort for a whole step; held-out scenes are edited."""
    whole = float(torch.rand((), generator=draw(material.config.seed, rows.step, 8)))
    for kind, share in REFERRING.items():
        if not rows.held_out and whole < share:
            return referring(kind)(material, rows)
        whole -= share
    return edit(material, rows)


def control(view: str) -> Task:
    """A caption and a map of the scene, as more channels.

    Source: black-forest-labs/flux, `sampling.prepare_control`.
    """

    def made(material: Material, rows: Rows) -> Batch:
        return replace(text(material, rows), channels=material.take(view, rows))

    return made


def fill(material: Material, rows: Rows) -> Batch:
    """A caption and the scene with a box cut out, as more channels, and the box itself.

    Source: black-forest-labs/flux, `sampling.prepare_fill`.
    """
    covers = np.stack([cover(number, material.size) for number in rows.numbers])
    mask = mask_tokens(torch.from_numpy(covers)[:, None].float() / 255, material.encoder.shape.factor)
    return replace(text(material, rows), channels=torch.cat((material.take("covered", rows), mask), dim=-1))


def mix(material: Material, rows: Rows) -> Batch:
    """Words alone, or a picture to edit: one or the other for a whole step. Held-out scenes are drawn from words."""
    whole = draw(material.config.seed, rows.step, 5)
    if rows.held_out or torch.rand((), generator=whole) < WORDS_ALONE:
        return text(material, rows)
    return edit(material, rows)


def following(material: Material, rows: Rows) -> Batch:
    """A caption and a map of the scene: depth, edges or, where the world has people, pose for a whole step.

    Held-out scenes have their depth.
    """
    whole = draw(material.config.seed, rows.step, 6)
    maps = ("depth", "canny", "pose") if set(material.world.kinds) & set(PEOPLED) else ("depth", "canny")
    view = maps[0 if rows.held_out else int(torch.randint(len(maps), (), generator=whole))]
    return control(view)(material, rows)


TASKS: dict[str, Task] = {
    "text": text,
    "photo": told("photo"),
    "plain": plain,
    "edit": edit,
    "kontext": kontext,
    "mix": mix,
    "control": following,
    "fill": fill,
    "depth": control("depth"),
    "canny": control("canny"),
    "pose": control("pose"),
}
