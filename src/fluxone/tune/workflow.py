"""A whole run: look at the pictures, decide how, train, look at what came of it, choose, write, prove, report.

    prepare   folder, model, wishes -> Plan: everything decided, nothing trained
    carry_out Plan -> Outcome: files, their proof, and the report

A run that was ended goes on where its folder says it was. What is told to the user is told through `Told`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fluxone.assembly import assemble, best_device
from fluxone.errors import BadFile, BadRequest
from fluxone.lora.delta import Delta
from fluxone.lora.load import load_lora
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from fluxone.request import Request
from fluxone.train import checkpoint
from fluxone.train.group import Group
from fluxone.tune import folder as folders
from fluxone.tune.beside import Beside, fresh, taken
from fluxone.tune.buckets import held_out
from fluxone.tune.cache import Cache
from fluxone.tune.choice import LIMITS, STRENGTHS, Choice, choose, leading, stalled
from fluxone.tune.folder import Example, digest
from fluxone.tune.kinds import Size
from fluxone.tune.learner import Learner
from fluxone.tune.lint import Finding, lint
from fluxone.tune.looks import ELSEWHERE, Look, Looker, Prompts, prompts_for, without
from fluxone.tune.material import Material
from fluxone.tune.memory import Memory, estimate
from fluxone.tune.presets import Reason, preset
from fluxone.tune.prove import Proof, prove
from fluxone.tune.recompute import recomputed
from fluxone.tune.settings import Settings
from fluxone.tune.trainer import Tick, Trainer
from fluxone.tune.write import Written, metadata, scaled, write
from fluxone.weights.keymap import TRANSFORMER
from fluxone.weights.load import resolve

SAVES = 20  # checkpoints of a run, besides those at looks
LEAST_APART = 10  # steps
FEW_LOOK_STEPS = 12  # steps of the pictures of a look, at most, if nothing is said
STATE = "state"
THINGS = ("cat", "dog", "car", "house", "tree", "star", "rabbit", "boat")
BASE_PICTURES = 32  # drawn by the base of other prompts, where it is to stay what it was on these


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asks for.

    Attributes:
        what: row of `presets.WHAT`.
        name: trigger word; `class_word`: what kind of thing it is.
        given: fields of `Settings` that were chosen.
        start: adapter to go on from.
        prompts: the user's own, drawn at each look.
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

    @property
    def title(self) -> str:
        """Of the files: the name, or the folder's."""
        word = self.wish.name or self.wish.folder.resolve().name
        return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in word) or "adapter"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    plan: Plan
    choice: Choice
    looks: tuple[Look, ...]
    written: tuple[Written, ...]
    proof: Proof
    prompts: Prompts
    seconds: float
    told: bool
    notes: tuple[dict[str, Any], ...] = ()


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
    examples = folders.read(wish.folder)
    broken = [f for f in lint(examples, size=1, trigger="") if f.level == "error"]
    if broken:
        raise BadFile("; ".join(str(finding) for finding in broken[:5]), hint="mend or remove these pictures")
    row, _ = resolve(wish.model, token=wish.recipe.token)
    recipe = wish.recipe
    if row is not None and wish.vram is not None:
        quant = preset(wish.what, row, len(examples), wish.given, quant=recipe.quant, vram=wish.vram).quant
        recipe = replace(recipe, quant=quant)
    told.line(f"loading {wish.model}")
    pipeline = assemble(wish.model, _typed(recipe))
    decided = preset(wish.what, pipeline.variant, len(examples), wish.given, quant=recipe.quant, vram=wish.vram)
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
    tokens = (size // pipeline.token) ** 2 * (2 if examples[0].references else 1)
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
    )  # fmt: skip


def carry_out(plan: Plan, told: Told | None = None, group: Group | None = None) -> Outcome | None:
    """Train, choose, write and prove; goes on from the folder's checkpoint if there is one.

    Of several processes all train, and the first alone does the rest; None is what the others come to.

    Raises:
        BrokenModel: a loss is not finite.
        CannotWrite: the disk is full, or the folder is not writable.
        BadRequest: the folder holds another run.
    """
    from fluxone.tune.report import write_report

    told = told or Told()
    wish, out = plan.wish, plan.wish.out
    if wish.fresh:
        _clear(out)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(plan, told, group or Group())
    run.train()
    if not run.trainer.group.first:
        return None
    looks = run.tried()
    choice = choose(looks, LIMITS[wish.what])
    told.line(f"chosen: step {choice.look.step} at strength {choice.look.strength:g}: {choice.reason}")
    written, proof = run.finish(choice)
    outcome = Outcome(
        plan=plan,
        choice=choice,
        looks=tuple(looks),
        written=tuple(written),
        proof=proof,
        prompts=run.looker.prompts,
        seconds=float(run.trainer.notes.get("seconds", 0.0)),
        told=run.looker.subject.told,
        notes=tuple(run.trainer.notes["looks"]),
    )
    write_report(outcome, run.looker.palette)
    return outcome


class Run:
    """The moving parts of one run."""

    def __init__(self, plan: Plan, told: Told, group: Group) -> None:
        self.plan, self.told = plan, told
        wish, settings, pipeline = plan.wish, plan.settings, plan.pipeline
        self.out = wish.out
        cache = Cache(pipeline, self.out / "cache")
        material = Material(pipeline, cache, settings, plan.trained)
        others = {example.text: without(example.text, wish.name, wish.class_word) for example in plan.trained}
        told.line(f"encoding {len(plan.trained) + len(plan.held)} pictures and their captions")
        material.prepare(list(others.values()))
        self.held = Material(pipeline, cache, replace(settings, batch=1), plan.held)
        self.held.prepare()
        priors = self._priors(cache)
        with pipeline.using("transformer"), pipeline.using("modulators"):
            pass  # where they are from now on, the adapters are made
        self.beside = Beside(pipeline.transformer, plan.deltas)
        if settings.checkpointing:
            recomputed(pipeline.transformer)
        asked = others if settings.preserve == "class" else {}
        calm = _calm(plan) if settings.preserve == "other" else ()
        learner = Learner(pipeline, self.beside, material, settings, others=asked, other_prompts=calm, priors=priors)
        for prompt in calm:
            cache.text(prompt)
        self.trainer = Trainer(learner, settings, self.out / STATE, data=plan.data, group=group)
        self.went_on = self.trainer.resume()
        prompts = prompts_for(plan.held, wish.name, wish.class_word, wish.prompts)
        steps = settings.look_steps or min(FEW_LOOK_STEPS, pipeline.variant.steps)
        told.line("drawing what the base makes of the prompts")
        self.looker = Looker(pipeline, self.beside, prompts, plan.held, plan.trained, size=plan.size, steps=steps)

    @property
    def looks(self) -> list[Look]:
        """Those so far."""
        rows = self.trainer.notes.setdefault("looks", [])
        return [Look(**{**row, "pictures": tuple(row["pictures"])}) for row in rows]

    def train(self) -> None:
        """All steps that are left, with the looks that are due."""
        trainer, settings = self.trainer, self.plan.settings
        every = max(LEAST_APART, settings.steps // SAVES)
        due = {round(settings.steps * (i + 1) / settings.looks) for i in range(settings.looks)}
        if self.went_on:
            self.told.line(f"going on at step {trainer.step} of {settings.steps}")
        if not self.looks:
            self._note(self.looker.first(self.out, self._held()))
        while trainer.step < settings.steps and not trainer.notes.get("stopped"):
            tick = trainer.advance()
            trainer.notes["seconds"] = trainer.notes.get("seconds", 0.0) + tick.seconds
            self.told.tick(tick, settings.steps)
            if trainer.step in due:
                self._look()
            elif trainer.step % every == 0:
                trainer.save()
            if self.told.stop():
                trainer.save()
                raise KeyboardInterrupt

    def _look(self) -> None:
        trainer = self.trainer
        with trainer.averaged():
            weights = {name: p.detach().clone() for name, p in trainer.params.items()}
            look = self.looker.look(trainer.step, 1.0, self.out, self._held())
        if trainer.group.first:
            checkpoint.save(self._place(trainer.step), {"weights": weights}, {"step": trainer.step})
        self._note(look)
        self.told.line(told_of(look))
        if stalled(self.looks, LIMITS[self.plan.wish.what]):
            trainer.notes["stopped"] = trainer.step
            self.told.line(f"stopped at step {trainer.step}: no better for three looks, and drifting")
        trainer.save()

    def tried(self) -> list[Look]:
        """All looks, the best checkpoints at other strengths too."""
        own = {name: p.detach().clone() for name, p in self.trainer.params.items()}
        for best in leading([look for look in self.looks if look.step], LIMITS[self.plan.wish.what]):
            self._put(best.step)
            for strength in STRENGTHS:
                if not any((look.step, look.strength) == (best.step, strength) for look in self.looks):
                    look = self.looker.look(best.step, strength, self.out, best.held)
                    self._note(look)
                    self.told.line(told_of(look))
        self.beside.put(own)
        self.trainer.save()
        return [look for look in self.looks if look.step]

    def finish(self, choice: Choice) -> tuple[list[Written], Proof]:
        """Write what was chosen, take it off, and draw with the files."""
        plan = self.plan
        self._put(choice.look.step)
        lora = self.beside.lora()
        dora = any(delta.magnitude is not None for delta in lora.deltas)
        strength = 1.0 if dora else choice.look.strength
        lora = replace(lora, deltas=scaled(lora.deltas, strength))
        told = metadata(
            name=plan.title,
            base=plan.wish.model,
            base_hash=plan.pipeline.bundle.hashes.get(TRANSFORMER, ""),
            trigger=plan.wish.name,
            settings=plan.settings.told(),
        )
        if dora:
            told["fluxone.strength"] = f"{choice.look.strength:g}"
        written = write(lora, self.out, plan.title, told)
        with self.beside.at(choice.look.strength):
            drawn = self.looker.draw(self.looker.prompts.named[:2])
        self.beside.leave()
        used = choice.look.strength if dora else 1.0
        proof = prove(plan.pipeline, [one.path for one in written], used, self.looker, drawn)
        return written, proof

    def _put(self, step: int) -> None:
        found = checkpoint.load(self._place(step))
        if found is None:
            raise BadFile(f"{self._place(step)} is gone", hint="start again with --fresh")
        self.beside.put(found[0]["weights"])

    def _place(self, step: int) -> Path:
        return self.out / STATE / f"{step:06}"

    def _note(self, look: Look) -> None:
        self.trainer.notes["looks"] = [one.told() for one in self.looks] + [look.told()]

    def _held(self) -> float:
        if not self.plan.held:
            return 0.0
        rows = self.trainer.learner.checked(self.held)
        return sum(rows.values()) / len(rows)

    def _priors(self, cache: Cache) -> Material | None:
        """Pictures of other prompts by the base, drawn once."""
        plan = self.plan
        if plan.settings.preserve != "pictures":
            return None
        place = self.out / "base"
        place.mkdir(parents=True, exist_ok=True)
        texts = _calm(plan)
        self.told.line(f"drawing {BASE_PICTURES} pictures of other prompts by the base")
        found = []
        for number in range(BASE_PICTURES):
            path, text = place / f"{number:03}.png", texts[number * 7 % len(texts)]
            if not path.exists():
                picture = plan.pipeline(Request(prompt=text, seed=1000 + number)).images[0]
                picture.save(path.with_suffix(".part"), format="PNG")
                path.with_suffix(".part").replace(path)
            found.append(Example(path=path, text=text))
        priors = Material(plan.pipeline, cache, plan.settings, found)
        priors.prepare()
        return priors


def told_of(look: Look) -> str:
    """One line."""
    return (
        f"step {look.step}, strength {look.strength:g}: identity {look.identity:.0%}, copied {look.copied:.0%}, "
        f"leak {look.leak:.0%}, drift {look.drift:.0%}, palette {look.palette:.1f}, held-out loss {look.held:.4f}"
    )


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


def _calm(plan: Plan) -> tuple[str, ...]:
    """Prompts without the subject: the captions with common things, or its class, in the name's place."""
    word = plan.wish.name
    things = [f"a {thing}" for thing in (*THINGS, *((plan.wish.class_word,) if plan.wish.class_word else ()))]
    texts = [example.text for example in plan.trained if word and word.lower() in example.text.lower()]
    made = [without(text, word, thing) for text in texts for thing in things]
    return tuple(dict.fromkeys(made)) or ELSEWHERE


def _clear(out: Path) -> None:
    """Forget a run; the cache stays, for it knows what it was made of."""
    for name in (STATE, "looks", "base"):
        shutil.rmtree(out / name, ignore_errors=True)
