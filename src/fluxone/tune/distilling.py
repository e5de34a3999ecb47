"""A whole distillation: the teacher draws, the student learns, and both are shown beside each other.

prompts --teacher--> pictures --distil--> adapter --> files, `sheet.png`, `figures.json`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image

from fluxone.assembly import assemble
from fluxone.errors import BadRequest, pick
from fluxone.lora.adapters import Strength, read_scale
from fluxone.lora.load import load_lora
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from fluxone.request import Request
from fluxone.storybook import sheet
from fluxone.tune.beside import Beside, fresh
from fluxone.tune.cache import Cache
from fluxone.tune.distil import GuidanceLearner, StepsLearner
from fluxone.tune.eyes import drift
from fluxone.tune.folder import Example
from fluxone.tune.kinds import Size
from fluxone.tune.learner import Learner
from fluxone.tune.material import Material
from fluxone.tune.recompute import recomputed
from fluxone.tune.settings import Settings
from fluxone.tune.trainer import Tick, Trainer
from fluxone.tune.write import Written, metadata, write
from fluxone.weights.keymap import TRANSFORMER

WAYS = {
    "steps": "the teacher's walk in fewer steps",
    "guidance": "two passes with and without the prompt in one that is told the guidance",
}
SHOWN = 6  # prompts on the sheet and in the figures; they are not learnt from where there are enough
SAVES = 20


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What a TOML file asks for.

    Attributes:
        adapters: merged into the teacher, as FILE or FILE:SCALE.
        way: row of `WAYS`.
        prompts: what the teacher draws, `draws` pictures in all.
        few, inner: steps of the student, and of the teacher in each of them.
        teacher_steps, guidance, cfg: of the teacher's pictures; 0 and None are the model's own.
        train: fields of `Settings`.
    """

    model: str = "mini"
    adapters: tuple[str, ...] = ()
    way: str = "steps"
    prompts: tuple[str, ...] = ()
    draws: int = 64
    few: int = 4
    inner: int = 4
    teacher_steps: int = 0
    guidance: float | None = None
    cfg: float = 1.0
    out: str = "runs/distilled"
    device: str | None = None
    dtype: str | None = None
    quant: str | None = None
    train: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pick(WAYS, self.way, "way to distil")
        if not self.prompts:
            raise BadRequest("there are no prompts", hint="give prompts, as many and as different as you have")
        for name in ("draws", "few", "inner"):
            if getattr(self, name) < 1:
                raise BadRequest(f"{name} is {getattr(self, name)}", hint="use 1 or more")


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What came of it: differences of colour from the teacher's pictures, before and after, and the files."""

    before: float
    after: float
    written: tuple[Written, ...]
    sheet: Path


def distil(
    asked: Distillation, *, line: Callable[[str], None] = lambda text: None,
    tick: Callable[[Tick, int], None] = lambda tick, steps: None,
) -> Distilled:  # fmt: skip
    """Do it; goes on from the folder's checkpoint if there is one.

    Raises:
        UserError: the model, an adapter or a setting is not usable.
        BrokenModel: a loss is not finite.
    """
    settings, out = _settings(asked), Path(asked.out)
    line(f"loading {asked.model}")
    pipeline = assemble(asked.model, Recipe(device=asked.device, dtype=asked.dtype, quant=asked.quant))
    for text in asked.adapters:
        place, scale = read_scale(text)
        pipeline.adapters.load(load_lora(place), place)
        pipeline.adapters.use({**pipeline.adapters.active, place: Strength(scale=scale)})
    pipeline.adapters.fuse()
    shown = asked.prompts[:SHOWN]
    learnt = asked.prompts[SHOWN:] or asked.prompts
    line(f"the teacher draws {asked.draws} pictures")
    examples = _drawn(pipeline, asked, learnt, out / "teacher")
    ours = _told_guidance(asked, pipeline)
    full = [_draw(pipeline, asked, text, 10_000 + i) for i, text in enumerate(shown)]
    base = [_draw(pipeline, asked, text, 10_000 + i, student=True) for i, text in enumerate(shown)]
    alpha = float(settings.rank if settings.alpha is None else settings.alpha)
    size = Size(rank=settings.rank, alpha=alpha)
    beside = Beside(
        pipeline.transformer, fresh(pipeline.transformer, settings.kind, settings.targets, size, settings.seed)
    )
    if settings.checkpointing:
        recomputed(pipeline.transformer)
    material = Material(pipeline, Cache(pipeline, out / "cache"), settings, examples)
    material.prepare()
    learner: Learner
    if asked.way == "steps":
        learner = StepsLearner(
            pipeline, beside, material, settings, steps=asked.few, inner=asked.inner, guidance=ours, cfg=asked.cfg
        )
    else:
        learner = GuidanceLearner(pipeline, beside, material, settings)
    trainer = Trainer(learner, settings, out / "state", data=json.dumps([asked.model, *asked.adapters, *asked.prompts]))
    trainer.resume()
    every = max(10, settings.steps // SAVES)
    while trainer.step < settings.steps:
        tick(trainer.advance(), settings.steps)
        if trainer.step % every == 0 or trainer.step == settings.steps:
            trainer.save()
    with trainer.averaged():
        after = [_draw(pipeline, asked, text, 10_000 + i, student=True) for i, text in enumerate(shown)]
        return _told(asked, pipeline, beside, settings, out, (full, base, after))


def _settings(asked: Distillation) -> Settings:
    """How the student learns."""
    settings = Settings(**{"rank": 64, "batch": 8, "steps": 600, "rate": 5e-4, "law": "uniform", "drop": 0.0,
                           "fall": "linear", **asked.train})  # fmt: skip
    if settings.swap:
        hint = "take it out; quant packs the teacher"
        raise BadRequest(f"swap is {settings.swap}, and a teacher is whole on the device", hint=hint)
    if settings.context > 1:
        raise BadRequest(f"context is {settings.context}, and one process distils", hint="take it out")
    return settings


def _told_guidance(asked: Distillation, pipeline: Pipeline) -> float:
    """The guidance that teacher and student are told."""
    return pipeline.variant.guidance if asked.guidance is None else asked.guidance


def _told(
    asked: Distillation, pipeline: Pipeline, beside: Beside, settings: Settings, out: Path,
    pictures: tuple[list[Image.Image], list[Image.Image], list[Image.Image]],
) -> Distilled:  # fmt: skip
    full, base, after = pictures
    before_apart, after_apart = (mean(map(drift, row, full)) for row in (base, after))
    captions = [
        f"{who}: {text}"
        for who in ("teacher", "before", "after")
        for text in asked.prompts[:SHOWN]
    ]  # fmt: skip
    path = out / "sheet.png"
    part = path.with_suffix(".part")
    sheet([*full, *base, *after], captions, len(full)).save(part, format="PNG")
    part.replace(path)
    told = metadata(
        name=out.name, base=asked.model, base_hash=pipeline.bundle.hashes.get(TRANSFORMER, ""), trigger="",
        settings=settings.told(),
    )  # fmt: skip
    written = write(beside.lora(), out, out.name, told)
    figures = {"way": asked.way, "few": asked.few, "before": before_apart, "after": after_apart, "prompts": len(full)}
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return Distilled(before=before_apart, after=after_apart, written=tuple(written), sheet=path)


def _draw(pipeline: Pipeline, asked: Distillation, prompt: str, seed: int, *, student: bool = False) -> Image.Image:
    """As the teacher draws, or as the student will."""
    request = Request(
        prompt=prompt, seed=seed, steps=asked.teacher_steps or None, guidance=asked.guidance, cfg=asked.cfg,
        sampler="euler",  # the walk that is distilled; fresh noise would set teacher and student apart
    )  # fmt: skip
    if student and asked.way == "steps":
        request = replace(request, steps=asked.few, cfg=1.0)
    elif student:
        request = replace(request, guidance=asked.cfg if asked.cfg > 1 else asked.guidance, cfg=1.0)
    return pipeline(request).images[0]


def _drawn(pipeline: Pipeline, asked: Distillation, prompts: Sequence[str], place: Path) -> list[Example]:
    """The teacher's pictures; those that are there already are kept."""
    place.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(asked.draws):
        path, text = place / f"{number:05}.png", prompts[number % len(prompts)]
        if not path.exists():
            _draw(pipeline, asked, text, number).save(path.with_suffix(".part"), format="PNG")
            path.with_suffix(".part").replace(path)
        found.append(Example(path=path, text=text))
    return found
