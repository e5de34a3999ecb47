"""What will be done, decided before anything is trained: pictures looked through, model loaded, settings with reasons.

folder, model, wishes --prepare--> Plan
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fluxone.assembly import assemble, best_device
from fluxone.errors import BadFile, BadRequest
from fluxone.lora.delta import Delta
from fluxone.lora.load import load_lora
from fluxone.offload import STREAMED
from fluxone.pipeline import Pipeline
from fluxone.quant.apply import scheme_of
from fluxone.recipe import Recipe
from fluxone.tune import folder as folders
from fluxone.tune.beside import fresh, taken
from fluxone.tune.buckets import held_out
from fluxone.tune.folder import Example, digest
from fluxone.tune.kinds import Size
from fluxone.tune.lint import Finding, lint
from fluxone.tune.logo import Logo, read_logo
from fluxone.tune.memory import Memory, estimate
from fluxone.tune.presets import Preset, Reason, preset
from fluxone.tune.settings import Settings
from fluxone.tune.trainer import Tick
from fluxone.variants import Kind, Variant
from fluxone.weights.load import resolve

BY_BLOCK = "block"  # the mode of offload in which text encoders, too large beside the network, come in pieces
LEARNT_BESIDE = ("fp8", "int8", "nf4")  # packings whose products have a way back


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asks for.

    Attributes:
        what: row of `presets.WHAT`.
        name: trigger word, or several with commas between them; `class_word`: what kind of thing it is.
        given: fields of `Settings` that were chosen.
        start: adapter to go on from.
        prompts: the user's own, drawn at each look.
        logo: a picture of it, to be looked for in what is drawn.
    """

    what: str
    folder: Path
    out: Path
    model: str = "mini"
    name: str = ""
    class_word: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    vram: float | None = None
    start: str | None = None
    prompts: tuple[str, ...] = ()
    fresh: bool = False
    logo: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done."""

    wish: Wish
    settings: Settings
    reasons: tuple[Reason, ...]
    recipe: Recipe
    pipeline: Pipeline
    trained: tuple[Example, ...]
    held: tuple[Example, ...]
    findings: tuple[Finding, ...]
    deltas: tuple[Delta, ...]
    memory: Memory
    data: str
    size: int
    logo: Logo | None = None

    @property
    def title(self) -> str:
        """Of the files: the name, or the folder's."""
        word = "-".join(folders.names_of(self.wish.name)) or self.wish.folder.resolve().name
        return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in word) or "adapter"


@dataclass(frozen=True, kw_only=True)
class Told:
    """Who is told of the progress, and who may ask for a pause: it comes after the step, with a checkpoint."""

    line: Callable[[str], None] = lambda line: None
    tick: Callable[[Tick, int], None] = lambda tick, steps: None
    stop: Callable[[], bool] = lambda: False


def prepare(wish: Wish, told: Told | None = None) -> Plan:
    """Look at the pictures and the model, and decide.

    Raises:
        UserError: the folder, the model or a setting is not usable; all that is wrong with the pictures in one message.
    """
    told = told or Told()
    logo = None if wish.logo is None else read_logo(wish.logo)
    examples = folders.read(wish.folder)
    broken = [f for f in lint(examples, size=1, trigger="") if f.level == "error"]
    if broken:
        raise BadFile("; ".join(str(finding) for finding in broken[:5]), hint="mend or remove these pictures")
    row, _ = resolve(wish.model, token=wish.recipe.token)
    recipe = wish.recipe
    if row is not None and wish.vram is not None:
        quant = _decided(wish, row, len(examples), recipe).quant
        recipe = replace(recipe, quant=quant)
    if recipe.offload not in STREAMED and (wish.vram is not None or wish.given.get("swap")):
        recipe = replace(recipe, offload=BY_BLOCK)
    told.line(f"loading {wish.model}")
    pipeline = assemble(wish.model, _typed(recipe))
    _check_base(pipeline)
    decided = _swapped(_decided(wish, pipeline.variant, len(examples), recipe, choose=False), wish, recipe, pipeline)
    settings = decided.settings
    if settings.preserve == "class" and not (wish.class_word and wish.name):
        raise BadRequest("preserve is class, and there is no name or no class word", hint="give --name and --class")
    size = settings.size or pipeline.variant.size
    found = lint(examples, size=size, trigger=wish.name, pipeline=pipeline)
    if errors := [finding for finding in found if finding.level == "error"]:
        raise BadFile("; ".join(map(str, errors[:5])), hint="mend them and start again")
    digests = [digest(example.path) for example in examples]
    kept = set(held_out(digests, settings.hold, settings.seed))
    deltas = _deltas(pipeline, settings, wish.start)
    shown = max(len(e.references) for e in examples) if Kind.REFERENCE in pipeline.variant.takes else 0
    tokens = (size // pipeline.token) ** 2 * (1 + shown)
    return Plan(
        wish=wish,
        settings=settings,
        reasons=decided.reasons,
        recipe=recipe,
        pipeline=pipeline,
        trained=tuple(example for i, example in enumerate(examples) if i not in kept),
        held=tuple(example for i, example in enumerate(examples) if i in kept),
        findings=tuple(found),
        deltas=tuple(deltas),
        memory=estimate(
            pipeline.variant.shape, deltas, settings, tokens=tokens, text=pipeline.variant.text_tokens,
            quant=recipe.quant, width=pipeline.dtype.itemsize,
        ),
        data=_content(examples, digests),
        size=size,
        logo=logo,
    )  # fmt: skip


def _decided(wish: Wish, variant: Variant, pictures: int, recipe: Recipe, *, choose: bool = True) -> Preset:
    named, quant = bool(wish.name), recipe.quant
    return preset(
        wish.what, variant, pictures, wish.given, quant=quant, vram=wish.vram, named=named, choose=choose
    )  # fmt: skip


def _swapped(decided: Preset, wish: Wish, recipe: Recipe, pipeline: Pipeline) -> Preset:
    """With an offload of blocks that the user chose, all of them come and go; from a file, in any case."""
    network = pipeline.transformer
    every = len(network.double_blocks) + len(network.single_blocks)
    asked = wish.recipe.offload
    if asked not in STREAMED or (asked == BY_BLOCK and (decided.settings.swap or wish.vram is not None)):
        return decided
    reasons = [reason for reason in decided.reasons if reason.name != "swap"]
    reasons.append(Reason(name="swap", value=every, why=f"all blocks come and go: offload {asked}"))
    return replace(decided, settings=replace(decided.settings, swap=every), reasons=tuple(reasons))


def _check_base(pipeline: Pipeline) -> None:
    """Refuse a base whose layers give no gradients: those that pack their input too, or are ordered for one CPU."""
    found = scheme_of(pipeline.transformer)
    if found is not None and found not in LEARNT_BESIDE:
        raise BadRequest(f"nothing can be learnt beside {found} layers", hint=f"use {', '.join(LEARNT_BESIDE)}")


def _deltas(pipeline: Pipeline, settings: Settings, start: str | None) -> list[Delta]:
    if start is not None:
        return taken(load_lora(start))
    alpha = float(settings.rank if settings.alpha is None else settings.alpha)
    size = Size(rank=settings.rank, alpha=alpha)
    return fresh(pipeline.transformer, settings.kind, settings.targets, size, settings.seed)


def _content(examples: list[Example], digests: list[str]) -> str:
    """A hash of all pictures and captions, whatever their order."""
    rows = sorted(f"{d} {e.text} {[digest(p) for p in e.files[1:]]}" for d, e in zip(digests, examples, strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _typed(recipe: Recipe) -> Recipe:
    """bfloat16 on CPUs that compute in it, where nothing else is said: half the time, and what is learnt is float32."""
    here = recipe.device or best_device()
    if recipe.dtype is None and here == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return replace(recipe, device=here, dtype="bfloat16")
    return recipe
