"""A whole run: look at the pictures, decide how, train, look at what came of it, choose, write, prove, report.

    plan.prepare   folder, model, wishes -> Plan: everything decided, nothing trained
    carry_out      Plan -> Outcome: files, their proof, and the report

A run that was ended goes on where its folder says it was. What is told to the user is told through `Told`.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from fluxone.errors import BadFile
from fluxone.train import checkpoint
from fluxone.train.group import Group, agreed
from fluxone.tune import wordmark
from fluxone.tune.agree import disagreements
from fluxone.tune.alone import alone
from fluxone.tune.beside import Beside
from fluxone.tune.cache import Cache
from fluxone.tune.choice import LIMITS, STRENGTHS, Choice, choose, leading, stalled
from fluxone.tune.context import check
from fluxone.tune.folder import open_picture
from fluxone.tune.learner import Learner
from fluxone.tune.lint import Finding
from fluxone.tune.logo import LogoCheck, logo_check, right
from fluxone.tune.looks import Look, Looker, Prompts, prompts_for, without
from fluxone.tune.material import Material
from fluxone.tune.plan import Plan, Told
from fluxone.tune.presets import small
from fluxone.tune.priors import pictures, prompts_of
from fluxone.tune.prove import Proof, prove
from fluxone.tune.recompute import recomputed
from fluxone.tune.swap import here
from fluxone.tune.trainer import Trainer
from fluxone.tune.wordmark import Wordmark, wordmarks
from fluxone.tune.write import Written, metadata, scaled, write
from fluxone.weights.keymap import TRANSFORMER

SAVES = 20  # checkpoints of a run, besides those at looks
LEAST_APART = 10  # steps
FEW_LOOK_STEPS = 12  # steps of the pictures of a look, at most, if nothing is said
STATE = "state"
FEW_PICTURES = 60  # up to which captions are held against each other


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
    findings: tuple[Finding, ...] = ()
    words: tuple[Wordmark, ...] = ()
    logo: LogoCheck | None = None


def carry_out(plan: Plan, told: Told | None = None, group: Group | None = None) -> Outcome | None:
    """Train, choose, write and prove; goes on from the folder's checkpoint if there is one.

    Of several processes all train, and the first alone does the rest; None is what the others come to.

    Raises:
        BrokenModel: a loss is not finite.
        CannotWrite: the disk is full, or the folder is not writable.
        BadRequest: the folder holds another run.
    """
    told = told or Told()
    wish, out = plan.wish, plan.wish.out
    group = replace(group or Group(), context=plan.settings.context)
    check(group, plan.settings)
    with alone(out) if group.first else nullcontext():
        if wish.fresh and group.first:
            _clear(out)
        agreed(group, True, plan.pipeline.on_device.device)  # nobody reads what is being cleared
        run = Run(plan, told, group)
        with run.staying:
            run.train()
            with run.trainer.whole():
                return run.concluded() if group.first else None


class Run:
    """The moving parts of one run."""

    def __init__(self, plan: Plan, told: Told, group: Group) -> None:
        self.plan, self.told, self.group = plan, told, group
        wish, settings, pipeline = plan.wish, plan.settings, plan.pipeline
        self.out = wish.out
        cache = Cache(pipeline, self.out / "cache")
        material = Material(pipeline, cache, settings, plan.trained, wish.name)
        said = dict.fromkeys([*material.bare, *material.bare.values()])
        others = {text: without(text, wish.name, wish.class_word) for text in said}
        told.line(f"encoding {len(plan.trained) + len(plan.held)} pictures and their captions")
        material.prepare(list(others.values()))
        self.held = Material(pipeline, cache, replace(settings, batch=1, crops=0), plan.held)
        self.held.prepare()
        priors = None
        if settings.preserve == "pictures":
            own = pictures(plan, self._steps(), group, told.line)
            priors = Material(pipeline, cache, replace(settings, crops=0), own)
            priors.prepare()
        self.staying = ExitStack()  # the network is on the device until the run is over; the other parts come and go
        self.staying.enter_context(here(pipeline, settings.swap))
        self.beside = Beside(pipeline.transformer, plan.deltas)
        if settings.checkpointing and not settings.swap:
            recomputed(pipeline.transformer)
        asked = others if settings.preserve == "class" else {}
        calm = prompts_of(plan) if settings.preserve == "other" else ()
        learner = Learner(pipeline, self.beside, material, settings, others=asked, other_prompts=calm, priors=priors)
        for prompt in calm:
            cache.text(prompt)
        self.trainer = Trainer(learner, settings, self.out / STATE, data=plan.data, group=group)
        self.went_on = self.trainer.resume()
        self._looker: Looker | None = None

    @property
    def looker(self) -> Looker:
        """Made when it is first asked for: of the first process alone, while it has the whole network."""
        if self._looker is None:
            plan, wish = self.plan, self.plan.wish
            prompts = prompts_for(plan.held, wish.name, wish.class_word, wish.prompts, style=wish.what == "style")
            self.told.line("drawing what the base makes of the prompts")
            self._looker = Looker(
                plan.pipeline, self.beside, prompts, plan.held, plan.trained, size=plan.size, steps=self._steps()
            )
        return self._looker

    def disagreeing(self) -> list[Finding]:
        """Captions that fit another picture better, as the base reads them; looked for once, where that is cheap."""
        notes = self.trainer.notes
        if "findings" not in notes:
            cheap = small(self.plan.pipeline.variant) and len(self.plan.trained) <= FEW_PICTURES
            found = disagreements(self.trainer.learner) if cheap else []
            notes["findings"] = [asdict(finding) for finding in found]
            for finding in found:
                self.told.line(f"notice: {finding}")
        return [Finding(**row) for row in notes["findings"]]

    @property
    def looks(self) -> list[Look]:
        """Those so far."""
        rows = self.trainer.notes.setdefault("looks", [])
        return [Look(**{**row, "pictures": tuple(row["pictures"])}) for row in rows]

    def train(self) -> None:
        """All steps that are left, with the looks that are due."""
        trainer, settings = self.trainer, self.plan.settings
        every = max(LEAST_APART, settings.steps // SAVES)
        if self.group.first:
            _announce(self.plan)
        due = {round(settings.steps * (i + 1) / settings.looks) for i in range(settings.looks)}
        if self.went_on:
            self.told.line(f"going on at step {trainer.step} of {settings.steps}")
        with trainer.whole():
            if self.group.first:
                self.disagreeing()
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
            if agreed(self.group, self.told.stop(), trainer.learner.device):
                trainer.save()
                raise KeyboardInterrupt

    def _look(self) -> None:
        """The first process draws and measures, while the others wait for what is decided."""
        trainer, over = self.trainer, False
        with trainer.averaged(), trainer.whole():
            if self.group.first:
                look = self.looker.look(trainer.step, 1.0, self.out, self._held())
                checkpoint.save(self._place(trainer.step), {"weights": self.beside.values()}, {"step": trainer.step})
                self._note(look)
                self.told.line(told_of(look))
                over = stalled(self.looks, LIMITS[self.plan.wish.what])
        if agreed(self.group, over, trainer.learner.device):
            trainer.notes["stopped"] = trainer.step
            self.told.line(f"stopped at step {trainer.step}: no better for three looks, and drifting")
        trainer.save()

    def concluded(self) -> Outcome:
        """Choose, write, prove and report."""
        from fluxone.tune.report import write_report

        plan = self.plan
        looks = self.tried()
        choice = choose(looks, LIMITS[plan.wish.what])
        look = choice.look
        self.told.line(f"chosen: step {look.step} at strength {look.strength:g}: {choice.reason}")
        written, proof = self.finish(choice)
        outcome = Outcome(
            plan=plan,
            choice=choice,
            looks=tuple(looks),
            written=tuple(written),
            proof=proof,
            prompts=self.looker.prompts,
            seconds=float(self.trainer.notes.get("seconds", 0.0)),
            told=self.looker.subject.told,
            notes=tuple(self.trainer.notes["looks"]),
            findings=(*plan.findings, *self.disagreeing()),
            words=self._words(look),
            logo=self._logo(look),
        )
        write_report(outcome, self.looker.palette)
        return outcome

    def tried(self) -> list[Look]:
        """All looks, the best checkpoints at other strengths too."""
        own = self.beside.values()
        for best in leading([look for look in self.looks if look.step], LIMITS[self.plan.wish.what]):
            self._put(best.step)
            for strength in STRENGTHS:
                if not any((look.step, look.strength) == (best.step, strength) for look in self.looks):
                    look = self.looker.look(best.step, strength, self.out, best.held)
                    self._note(look)
                    self.told.line(told_of(look))
        self.beside.put(own)
        if self.trainer.shards is None:
            self.trainer.save()  # the looks at other strengths; of weights that are shared, they are drawn again
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
        self.beside.leave()
        used = choice.look.strength if dora else 1.0
        chosen = Beside(plan.pipeline.transformer, lora.deltas)  # a factor outside would round otherwise
        with chosen.at(used):
            drawn = self.looker.draw(self.looker.prompts.named[:2])
        chosen.leave()
        proof = prove(plan.pipeline, [one.path for one in written], used, self.looker, drawn)
        return written, proof

    def _words(self, chosen: Look) -> tuple[Wordmark, ...]:
        read = wordmark.able() if self.plan.wish.what in wordmark.WHAT else None
        if read is None:
            return ()
        self.told.line("reading what stands on the pictures")
        references, drawn = self._shown(chosen)
        return wordmarks(read, references, self.looker.base_named, drawn)

    def _logo(self, chosen: Look) -> LogoCheck | None:
        if self.plan.logo is None:
            return None
        self.told.line("looking for the logo")
        references, drawn = self._shown(chosen)
        found = logo_check(self.plan.logo, references, self.looker.base_named, drawn)
        seen, own, before = (f"{right(each):.0%}" for each in (found.references, found.drawn, found.base))
        self.told.line(f"the logo is on {own} of the pictures (base {before}, references {seen})")
        return found

    def _shown(self, chosen: Look) -> tuple[list[Image], list[Image]]:
        """The references, and the pictures of a look."""
        references = [open_picture(example.path) for example in (*self.plan.held, *self.plan.trained)]
        return references, [open_picture(self.out / name) for name in chosen.pictures]

    def _put(self, step: int) -> None:
        found = checkpoint.load(self._place(step))
        if found is None:
            raise BadFile(f"{self._place(step)} is gone", hint="start again with --fresh")
        self.beside.put(found[0]["weights"])

    def _place(self, step: int) -> Path:
        return self.out / STATE / f"{step:06}"

    def _note(self, look: Look) -> None:
        self.trainer.notes["looks"] = [one.told() for one in self.looks] + [look.told()]
        if look.strength in (0, 1):
            seen = {name: value for name, value in look.told().items() if isinstance(value, float)}
            self.trainer.events.scalars(look.step, {f"look/{name}": value for name, value in seen.items()})

    def _held(self) -> float:
        if not self.plan.held:
            return 0.0
        rows = self.trainer.learner.checked(self.held)
        return sum(rows.values()) / len(rows)

    def _steps(self) -> int:
        """Of the pictures that are drawn on the way."""
        return self.plan.settings.look_steps or min(FEW_LOOK_STEPS, self.plan.pipeline.variant.steps)


def told_of(look: Look) -> str:
    """One line."""
    return (
        f"step {look.step}, strength {look.strength:g}: identity {look.identity:.0%}, copied {look.copied:.0%}, "
        f"leak {look.leak:.0%}, drift {look.drift:.0%}, palette {look.palette:.1f}, held-out loss {look.held:.4f}"
    )


def _announce(plan: Plan) -> None:
    """For whoever watches from outside: how far it is to go."""
    path = plan.wish.out / STATE / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"steps": plan.settings.steps, "title": plan.title}), encoding="utf-8")
    part.replace(path)


def _clear(out: Path) -> None:
    """Forget a run; the cache stays, for it knows what it was made of."""
    for name in (STATE, "looks", "base"):
        shutil.rmtree(out / name, ignore_errors=True)
