"""A folder of pictures, each of one colour with a mark of its own, and a run of the tiny model on it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from fluxone.pipeline import Pipeline
from fluxone.tune import folder as folders
from fluxone.tune.beside import Beside, fresh
from fluxone.tune.cache import Cache
from fluxone.tune.kinds import Size
from fluxone.tune.learner import Learner
from fluxone.tune.material import Material
from fluxone.tune.settings import Settings
from fluxone.tune.trainer import Trainer

NAMES = ("red car", "fox snow", "house in snow", "blur fox", "car in the snow", "red fox", "the house")
COLOURS = ("red", "white", "gray", "orange", "blue", "brown", "green")


def pictures(place: Path, count: int = 5, sizes: tuple[tuple[int, int], ...] = ((32, 32),)) -> Path:
    """`count` pictures with captions; the sizes are taken in turn."""
    place.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image = Image.new("RGB", sizes[i % len(sizes)], COLOURS[i])
        ImageDraw.Draw(image).ellipse((4 + i, 4, 16 + i, 18), fill="black")
        image.save(place / f"{i}.png")
        (place / f"{i}.txt").write_text(f"{NAMES[i]}\n", encoding="utf-8")
    return place


def settings(**given: object) -> Settings:
    base = {"rank": 2, "batch": 4, "steps": 6, "rate": 1e-2, "size": 32, "drop": 0.3, "warmup": 1}
    return Settings(**(base | given))  # type: ignore[arg-type]


def trainer(pipeline: Pipeline, place: Path, out: Path, chosen: Settings, **more: object) -> Trainer:
    """A run on the pictures of a folder."""
    deltas = fresh(pipeline.transformer, chosen.kind, chosen.targets, Size(rank=chosen.rank, alpha=chosen.rank), 0)
    beside = Beside(pipeline.transformer, deltas)
    material = Material(pipeline, Cache(pipeline, out / "cache"), chosen, folders.read(place))
    material.prepare()
    learner = Learner(pipeline, beside, material, chosen)
    return Trainer(learner, chosen, out / "state", data="pictures", **more)  # type: ignore[arg-type]
