"""A look at what was learnt so far: pictures of prompts that are not trained on, and what they measure to.

identity   likeness to the references, 0 the base .. 1 another reference (`eyes`)
copied     share of the pictures that are a training picture again
leak       identity of pictures of the class without the name, more than the base's: 0 is none
drift      how far pictures of other prompts have moved from the base's, against how far two seeds are apart: 0..1
palette    CIEDE2000 from the references' main colours to those of the pictures
held       the loss on held-out pictures at fixed noise
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from PIL import Image

from fluxone.geometry import Resolution
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from fluxone.tune.beside import Beside
from fluxone.tune.eyes import Subject, drift, subject
from fluxone.tune.folder import Example, names_of, open_picture
from fluxone.tune.palette import Palette, difference, palette
from fluxone.variants import Kind

SCENES = ("{} in the snow", "{} on the beach", "{} at night under the stars", "{} next to a red car in a meadow")
ELSEWHERE = (
    "a red car in the snow",
    "a house next to a tree in a meadow",
    "a blue boat to the left of a yellow star on the beach",
    "a cactus in a room",
)
AT_ONCE = 4  # pictures of a batch
MOST = 6  # held-out captions that are asked for


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What is asked for at each look.

    Attributes:
        named: with the name: the held-out captions first.
        plain: the same with the class' words in the name's place, or without it.
        others: that have nothing to do with it.
    """

    named: tuple[str, ...]
    plain: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen after `step` steps at a strength; `pictures`: file names below the run's folder."""

    step: int
    strength: float
    identity: float
    copied: float
    leak: float
    drift: float
    palette: float
    held: float
    pictures: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def prompts_for(
    held: Sequence[Example], name: str, class_word: str, extra: Sequence[str] = (), *, style: bool = False
) -> Prompts:
    """The prompts of a run.

    Args:
        name: trigger, or several with commas between them; empty for a style that every prompt is to have.
        extra: prompts of the user's own, with the name in them.
        style: whether the name stands after what is drawn, and not for it.
    """
    subjects = names_of(name) or (class_word or "a picture",)
    captions = [example.text for example in held if example.text][:MOST]
    named = tuple(dict.fromkeys([*captions, *extra, *(_styled(name) if style else _scenes(subjects))]))
    return Prompts(named=named, plain=tuple(without(text, name, class_word) for text in named), others=ELSEWHERE)


def without(text: str, name: str, class_word: str) -> str:
    """The prompt with the class' words in the name's place."""
    for one in names_of(name):
        text = re.sub(rf"(?i)\b{re.escape(one)}\b", class_word, text)
    return " ".join(text.split()).removesuffix(",")


def _styled(name: str) -> list[str]:
    """Other things, in the style."""
    return [f"{text}, {name}" if name else text for text in ELSEWHERE]


def _scenes(subjects: Sequence[str]) -> list[str]:
    """Each scene with one of them in turn, and each of them in one scene at least."""
    count = max(len(SCENES), len(subjects))
    return [SCENES[n % len(SCENES)].format(subjects[n % len(subjects)]) for n in range(count)]


class Looker:
    """Draws and measures.

    Args:
        held, trained: the references.
        size: px that is drawn at.
        steps: of each picture.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        beside: Beside,
        prompts: Prompts,
        held: Sequence[Example],
        trained: Sequence[Example],
        *,
        size: int,
        steps: int,
    ) -> None:
        self.pipeline, self.beside, self.prompts = pipeline, beside, prompts
        self.size, self.steps = size, steps
        token = pipeline.token
        side = max(token, size // token * token)
        self.resolution = Resolution(height=side, width=side)
        self.references = self._references([*held, *trained])
        kept, learnt = [open_picture(e.path) for e in held], [open_picture(e.path) for e in trained]
        self.palette: Palette = palette([*kept, *learnt])
        captions = [example.text for example in (*held, *trained)][: 2 * MOST]
        with self.beside.at(0):
            base = self.draw(captions)
            self.base_named = self.draw(self.prompts.named)
            self.base_plain = self.draw(self.prompts.plain)
            self.base_others = self.draw(self.prompts.others)
            again = self.draw(self.prompts.others, seed=1000)
        self.subject: Subject = subject([*kept, *learnt], learnt, base)
        self.usual = max(mean(map(drift, self.base_others, again)), 1e-6)
        self.leaked = mean(map(self.subject.likeness, self.base_plain))

    def look(self, step: int, strength: float, folder: Path, held: float) -> Look:
        """Draw all prompts with the adapter at a strength, and measure."""
        with self.beside.at(strength):
            named = self.draw(self.prompts.named)
            plain = self.draw(self.prompts.plain)
            others = self.draw(self.prompts.others)
        place = folder / "looks" / f"{step:06}-{strength:g}"
        return Look(
            step=step,
            strength=strength,
            identity=mean(map(self.subject.likeness, named)),
            copied=mean(self.subject.copying(picture) >= 1 for picture in named),
            leak=mean(map(self.subject.likeness, plain)) - self.leaked,
            drift=mean(map(drift, others, self.base_others)) / self.usual,
            palette=difference(self.palette, palette(named)),
            held=held,
            pictures=tuple(keep(place, named)),
        )

    def first(self, folder: Path, held: float) -> Look:
        """The base itself, as a look at step 0."""
        names = keep(folder / "looks" / "000000-0", self.base_named)
        identity = mean(map(self.subject.likeness, self.base_named))
        far = difference(self.palette, palette(self.base_named))
        return Look(
            step=0, strength=0.0, identity=identity, copied=0.0, leak=0.0, drift=0.0, palette=far, held=held,
            pictures=tuple(names),
        )  # fmt: skip

    def draw(self, prompts: Sequence[str], seed: int = 0) -> list[Image.Image]:
        """A picture of each prompt, its seed its place."""
        made: list[Image.Image] = []
        requests = [self._request(text, seed + i) for i, text in enumerate(prompts)]
        with torch.no_grad():
            for _, row in groupby(requests, lambda request: len(request.references)):  # one batch sees as many
                alike = list(row)
                for start in range(0, len(alike), AT_ONCE):
                    for result in self.pipeline.together(alike[start : start + AT_ONCE]):
                        made += result.images
        return made

    def _request(self, prompt: str, seed: int) -> Request:
        """A picture that is cheap; models that cannot draw without pictures are given those of the references."""
        given: dict[str, Any] = {}
        takes = self.pipeline.variant.takes
        if takes and self.references:
            shown, mask = self.references[seed % len(self.references)]
            if Kind.REFERENCE in takes:
                given["references"] = shown
            elif Kind.CONTROL in takes:
                given["control"] = shown[0]
            elif Kind.FILL in takes:
                given |= {"init": shown[0], "mask": mask}
        return Request(prompt=prompt, seed=seed, steps=self.steps, resolution=self.resolution, **given)

    def _references(self, examples: Sequence[Example]) -> list[tuple[tuple[Image.Image, ...], Image.Image | None]]:
        size = (self.resolution.width, self.resolution.height)
        found = []
        for example in examples:
            paths = example.references or (example.path,)
            mask = None if example.mask is None else open_picture(example.mask).convert("L").resize(size)
            if example.references or mask is not None:
                found.append((tuple(open_picture(path).resize(size) for path in paths), mask))
        return found


def keep(place: Path, pictures: Sequence[Image.Image]) -> list[str]:
    """Write pictures; their names below the run's folder."""
    place.mkdir(parents=True, exist_ok=True)
    names = []
    for number, picture in enumerate(pictures):
        part = place / f".{number:02}.part"
        picture.save(part, format="PNG")
        part.replace(place / f"{number:02}.png")
        names.append(f"{place.parent.name}/{place.name}/{number:02}.png")
    return names
