"""Train the whole mini family in one process against the clock, from one bank of samples: what a rented GPU is for.

    python tools/train_family.py OUT --start runs/mini-autoencoder runs/mini-reading --device cuda --seconds 700

Recipes are those of `recipes/`; this says how long each may take, and at what batch. What is finished is in OUT at any
moment: a stage that fails is told, and those that do not need it go on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from safetensors.torch import save_file

from fluxone import storybook
from fluxone.evaluate import learn
from fluxone.train import checkpoint, config, loop, objectives
from fluxone.train import tokenizer as words
from fluxone.train.config import TrainConfig
from fluxone.train.data.answers import survey
from fluxone.train.data.bank import CHUNK, Bank, Order
from fluxone.train.data.scenes import draw, world_of
from fluxone.train.export import autoencoder, export, export_adapters, export_redux

RECIPES = Path(__file__).parents[1] / "recipes"
FIRST = (("text", 6144), ("edit", 3072), ("both", 512), ("control", 512), ("pose", 256))
REST = (
    ("text", 24576), ("edit", 16384), ("both", 3072), ("text", 24576), ("edit", 24576), ("control", 8192),
    ("pose", 4096), ("both", 6144), ("text", 32768), ("control", 8192), ("edit", 32768), ("pose", 4096),
)  # fmt: skip
KEPT = 30_000  # samples whose pictures stay: 200 KB each
NEVER = 10**9


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run: its recipe, its share of the time, and what is otherwise than the recipe says."""

    recipe: str
    share: float
    batch: int
    rates: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)


STAGES: dict[str, Stage] = {
    "mini-128": Stage(
        recipe="mini", share=0.24, batch=512, rates={"muon": 4e-3, "adam": 2e-3, "decay": 0.15}, data={"size": 128},
    ),
    "mini": Stage(recipe="mini", share=0.4, batch=192, rates={"decay": 0.65}, model={"start": ("mini-128",)}),
    "mini-guidance": Stage(recipe="mini-guidance", share=0.09, batch=320, model={"start": ("mini",)}),
    "mini-schnell": Stage(recipe="mini-schnell", share=0.1, batch=256),
    "judge": Stage(recipe="", share=0.09, batch=768),
    "mini-control": Stage(recipe="mini-control", share=0.05, batch=320),
    "mini-fill": Stage(recipe="mini-fill", share=0.035, batch=320),
    "mini-redux": Stage(recipe="mini-redux", share=0.035, batch=256),
    "mini-decoder": Stage(
        recipe="mini-autoencoder", share=0.03, batch=64, rates={"muon": 1e-3, "adam": 5e-4},
        data={"crop": 128}, model={"frozen": ("encoder",)}, top={"autocast": True},
    ),
}  # fmt: skip


class Family:
    """The stages' common ground."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out, self.began = args, Path(args.out), time.monotonic()
        self.runs = self.out / "runs"
        self.seconds = args.seconds
        self.base = config.read(RECIPES / "mini.toml")
        self.encoder, self.reading = args.start
        world = world_of(self.base.data)
        self.tokenizer = words.build(storybook.vocabulary(world))
        scale = args.scale
        phases = [(name, max(CHUNK, int(count * scale))) for name, count in (*FIRST, *REST)]
        order = Order(
            world=world, phases=tuple(phases), size=self.base.data.size, length=self.base.model.text_tokens,
            workers=args.workers, keep=max(CHUNK, int(KEPT * scale) // CHUNK * CHUNK), extra=learn.targets,
        )  # fmt: skip
        self.bank = Bank(order, self.tokenizer, survey(world))

    def say(self, line: str) -> None:
        """A line with the time since the beginning."""
        print(f"{time.monotonic() - self.began:7.1f} {line}", flush=True)

    def attach(self) -> None:
        """The accelerator begins here: after the workers were forked."""
        device = torch.device(self.args.device)
        torch.set_float32_matmul_precision("high")
        if device.type != "cpu":
            torch._dynamo.config.recompile_limit = 64
            torch._dynamo.config.suppress_errors = True
        model = replace(self.base.model, autoencoder=self.encoder)
        self.bank.attach(autoencoder(model).to(device), device)
        for name, count in FIRST[:3]:
            self.bank.fill(name, max(CHUNK, int(count * self.args.scale)))
            self.say(f"{name}: {self.bank.shelves[name].filled} samples")

    def config(self, name: str, stage: Stage, seconds: float) -> TrainConfig:
        """The recipe with this stage's changes; paths lead to the runs of this process."""
        made = config.read(RECIPES / f"{stage.recipe}.toml")
        start = stage.model.get("start")
        begins = (self.reading, *self.args.base) if name == "mini-128" else self._starts(name, start)
        model = replace(made.model, **{**stage.model, "start": begins, "autoencoder": self.encoder})
        return replace(
            made,
            **stage.top,
            out=str(self.runs / name), export="", batch=self.batch(stage), device=self.args.device, steps=NEVER,
            minutes=seconds / 60, compile=self.args.compile,
            save_every=NEVER, sheet_every=NEVER, validate_every=NEVER, log_every=self.args.log,
            rates=replace(made.rates, **stage.rates), data=replace(made.data, **stage.data), model=model,
        )  # fmt: skip

    def made(self, name: str) -> bool:
        """Whether that run has weights."""
        return (self.runs / name / checkpoint.NAME).exists()

    def batch(self, stage: Stage) -> int:
        """Samples a step."""
        return max(8, int(stage.batch * self.args.batch))

    def _starts(self, name: str, start: tuple[str, ...] | None) -> tuple[str, ...]:
        if name == "mini-decoder":
            return (self.encoder,)
        return tuple(str(self.runs / run) for run in start or ("mini", "mini-guidance"))

    def train(self, name: str, stage: Stage, seconds: float) -> None:
        """One stage by the clock; compiling comes before it starts."""
        made = self.config(name, stage, seconds)
        objective = objectives.make(made, bank=self.bank)
        began = time.monotonic()
        for step in range(2):
            objective.loss(step, slice(0, made.batch))["loss"].backward()
            for part in objective.modules().values():
                part.zero_grad(set_to_none=True)
        self.say(f"{name}: ready after {time.monotonic() - began:.1f} s")
        left = seconds - (time.monotonic() - began)
        trainer = loop.Trainer(replace(made, minutes=max(left, seconds / 3) / 60), objective, self.say)
        while not trainer.finished:
            trainer.advance()

    def judge(self, stage: Stage, seconds: float) -> None:
        """The networks that look at pictures, on what is drawn and on what the autoencoder makes of it."""
        device = torch.device(self.args.device)
        learner = learn.Learner(device, seed=0)
        through = autoencoder(replace(self.base.model, autoencoder=self.encoder)).to(device)
        began, step, batch = time.monotonic(), 0, self.batch(stage)
        while (spent := time.monotonic() - began) < seconds:
            rows = self.bank.seen(batch, draw(1, step))
            pictures = rows.pop("pictures")
            if step % 3 == 2:
                half = pictures[: batch // 2].permute(0, 3, 1, 2).float() / 127.5 - 1
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                    rebuilt = through.decode(through.encode(half)).float()
                pictures[: batch // 2] = ((rebuilt.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
            terms = learner.step(pictures, rows, progress=min(1.0, spent / seconds))
            step += 1
            if step % self.args.log == 0:
                self.say(f"judge {step} " + " ".join(f"{k} {float(v):.4f}" for k, v in terms.items()))
        learner.save(self.out / "judge.safetensors")
        self.say(f"judge: {step} steps of {batch}")

    def finish(self) -> None:
        """Write what runs made: the model's folder, adapters, the eye."""
        if not self.made("mini"):
            return
        encoder = str(self.runs / "mini-decoder") if self.made("mini-decoder") else self.encoder
        made = replace(self.base, model=replace(self.base.model, autoencoder=encoder))
        runs = [str(self.runs / name) for name in ("mini", "mini-guidance") if self.made(name)]
        export(made, runs, self.out / "mini")
        for name in ("mini-schnell", "mini-control", "mini-fill"):
            if self.made(name):
                stage = STAGES[name]
                export_adapters(self.config(name, stage, 60), self.out / f"{name.removeprefix('mini-')}.safetensors")
        if self.made("mini-redux"):
            export_redux(self.config("mini-redux", STAGES["mini-redux"], 60), self.out / "redux")
        if found := checkpoint.load(self.runs / "mini"):
            rows = {key: value.bfloat16() for key, value in found[0]["average"].items()}
            save_file(rows, self.out / "mini-average.safetensors")

    def run(self) -> None:
        """All stages that are asked for, each within its share."""
        self.attach()
        chosen = {name: stage for name, stage in STAGES.items() if not self.args.only or name in self.args.only}
        whole = sum(stage.share for stage in chosen.values())
        for name, stage in chosen.items():
            left = self.seconds - (time.monotonic() - self.began) - self.args.reserve
            seconds = max(1.0, left * stage.share / whole)
            whole -= stage.share
            self.say(f"{name}: {seconds:.0f} s; " + ", ".join(f"{k} {v.filled}" for k, v in self.bank.shelves.items()))
            try:
                if stage.recipe:
                    self.train(name, stage, seconds)
                else:
                    self.judge(stage, seconds)
            except Exception:  # noqa: BLE001 (the machine is rented: the other stages go on)
                traceback.print_exc()
            if self.args.device != "cpu":
                torch.cuda.empty_cache()
        self.finish()
        self.say("done")


def main() -> None:
    """Read the arguments, train, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--start", nargs=2, metavar=("AUTOENCODER", "READING"), required=True, help="run folders")
    parser.add_argument("--base", nargs="*", default=[], help="runs that transformer and text encoders go on from")
    parser.add_argument("--compile", action="store_true", help="let torch compile the blocks: over a minute at first")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=700)
    parser.add_argument("--reserve", type=float, default=12, help="seconds kept for writing at the end")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all numbers of samples")
    parser.add_argument("--batch", type=float, default=1.0, help="factor of all batches")
    parser.add_argument("--log", type=int, default=100, help="steps between two lines")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=[])
    family = Family(parser.parse_args())
    family.run()


if __name__ == "__main__":
    sys.exit(main())
