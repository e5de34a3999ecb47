"""Train the whole mini family in one process against the clock, from one bank of samples: what a rented GPU is for.

    python tools/train_family.py OUT --start runs/mini-128-longer --device cuda --seconds 500

Recipes are `recipes/mini-128-*.toml`; this says how long each may take, and at what batch. What is finished is in OUT
at any moment, in few files: a stage that fails is told, and the others go on from what there is.

    python tools/train_family.py OUT --export FOLDER      what came back, as a model, adapters, and runs to go on from
"""

from __future__ import annotations

import argparse
import os
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from fluxone import storybook
from fluxone.train import checkpoint, config, loop, objectives
from fluxone.train import tokenizer as words
from fluxone.train.config import TrainConfig
from fluxone.train.data.answers import survey
from fluxone.train.data.bank import CHUNK, FRESH, MIXES, Bank, Order
from fluxone.train.data.scenes import world_of
from fluxone.train.export import autoencoder, export, export_adapters, export_redux

RECIPES = Path(__file__).parents[1] / "recipes"
FIRST = (("text", 8192), ("edit", 2048), ("both", 512))
REST = (
    ("text", 32_768), ("edit", 32_768), ("text", 114_688), ("edit", 98_304), ("both", 16_384), ("control", 24_576),
    ("pose", 12_288), ("photo", 12_288), ("text", 131_072), ("edit", 196_608),
)  # fmt: skip
KEPT = 20_000  # samples whose pictures stay: 200 KB each
NEVER = 10**9
BESIDE = "adapters"  # the file that all small adapters are in
LATER = {"matching": "schnell"}  # stages whose weights take the place of an earlier one's


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run: its share of the time, and what is otherwise than the recipe says.

    Attributes:
        halves: share of the batches whose pictures are half as large.
        file: what the finished weights are put into.
        start: runs that it goes on from, where they are there; those of before, and these.
        adapters: file or member of the family whose change it goes on from.
        compiled: whether compiling its blocks is worth the time.
        task: in place of the recipe's.
    """

    share: float
    batch: int
    halves: float = 0.0
    file: str = BESIDE
    start: tuple[str, ...] = ("longer", "guidance")
    adapters: str = ""
    compiled: bool = False
    frozen: tuple[str, ...] = ("t5", "clip")
    task: str = ""
    rates: dict[str, Any] = field(default_factory=dict)


STAGES: dict[str, Stage] = {
    "longer": Stage(
        share=0.48, batch=1024, file="longer", start=(), compiled=True, frozen=(), rates={"muon": 4e-3, "adam": 2e-3},
        task="mix",  # a base that has learnt captions alone takes edits badly
    ),
    "guidance": Stage(share=0.07, batch=1024, file="guidance", start=("longer",), compiled=True),
    "kontext": Stage(share=0.225, batch=1024, file="kontext", adapters="mini-kontext", compiled=True),
    "schnell": Stage(share=0.03, batch=512, adapters="mini-schnell"),
    "matching": Stage(share=0.04, batch=256, start=("longer", "guidance", "schnell")),
    "control": Stage(share=0.04, batch=768, adapters="mini-depth"),
    "fill": Stage(share=0.03, batch=768, adapters="mini-fill"),
    "raw": Stage(share=0.025, batch=768, adapters="mini-raw"),
    "redux": Stage(share=0.025, batch=512, file="redux"),
    "redux-drawn": Stage(share=0.035, batch=512, file="redux", start=("longer", "guidance", "redux")),
}  # fmt: skip


class Hurried(loop.Trainer):
    """Without looking back: drawing held-out scenes takes seconds that are rented."""

    def _due(self) -> None:
        if self.finished or self.step % self.config.save_every == 0:
            self.save()


class Family:
    """The stages' common ground."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out, self.began = args, Path(args.out), time.monotonic()
        self.runs = Path(args.runs or self.out / "runs")
        self.base = recipe("longer", args)
        self.chosen = {name: stage for name, stage in STAGES.items() if not args.only or name in args.only}
        shelves = {shelf for name in self.chosen for shelf in MIXES[recipe(name, args).data.task]}
        self.first = [(name, int(count * args.scale)) for name, count in FIRST if name in shelves]
        rest = [(name, int(count * args.scale)) for name, count in REST if name in shelves]
        world = world_of(recipe(next(iter(self.chosen)), args).data)
        world = replace(world, edit_weights=recipe("kontext", args).data.edits)  # who learns edits says which
        self.tokenizer = words.build(storybook.vocabulary(world))
        phases = [(name, max(CHUNK, count)) for name, count in (*self.first, *rest)]
        order = Order(
            world=world, phases=tuple(phases), size=self.base.data.size, length=self.base.model.text_tokens,
            workers=args.workers, keep=max(CHUNK, int(KEPT * args.scale) // CHUNK * CHUNK),
        )  # fmt: skip
        self.bank = Bank(order, self.tokenizer, survey(world))
        self.bank.fresh = args.fresh
        self.packed: dict[str, dict[str, dict[str, Tensor]]] = {}  # file, run, tensors

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
        model = replace(self.base.model, autoencoder=self.args.autoencoder)
        self.bank.attach(autoencoder(model).to(device), device)
        for name, count in self.first:
            self.bank.fill(name, max(CHUNK, count))
            self.say(f"{name}: {self.bank.shelves[name].filled} samples")

    def config(self, name: str, seconds: float) -> TrainConfig:
        """The recipe as it is trained here; paths lead to the runs of this process."""
        stage, made = STAGES[name], recipe(name, self.args)
        start = (*self.args.start, *(str(self.runs / run) for run in stage.start if (self.runs / run).exists()))
        return replace(
            made,
            out=str(self.runs / name), export="", batch=self.batch(stage), device=self.args.device, steps=NEVER,
            minutes=seconds / 60, compile=self.args.compile and stage.compiled,
            save_every=self.args.save, sheet_every=NEVER, validate_every=NEVER, log_every=self.args.log,
            rates=replace(made.rates, **stage.rates),
            model=replace(made.model, start=start, adapters="" if self.args.anew else stage.adapters),
        )  # fmt: skip

    def batch(self, stage: Stage) -> int:
        """Samples a step."""
        return max(8, int(stage.batch * self.args.batch))

    def train(self, name: str, seconds: float) -> None:
        """One stage by the clock; compiling comes before it starts."""
        made, stage = self.config(name, seconds), STAGES[name]
        self.bank.halves = stage.halves
        objective = objectives.make(made, bank=self.bank)
        began = time.monotonic()
        for step in range(2):
            objective.loss(step, slice(0, made.batch))["loss"].backward()
            for part in objective.modules().values():
                part.zero_grad(set_to_none=True)
        self.say(f"{name}: ready after {time.monotonic() - began:.1f} s")
        left = seconds - (time.monotonic() - began)
        trainer = Hurried(replace(made, minutes=max(left, seconds / 3) / 60), objective, self.say)
        trainer.resume()
        while not trainer.finished:
            trainer.advance()
        self.pack(name)

    def pack(self, name: str) -> None:
        """The average weights, in bfloat16: what is brought home."""
        found = checkpoint.load(self.runs / name)
        assert found is not None, "a finished run has a checkpoint"
        packed = self.packed.setdefault(STAGES[name].file, {})
        packed[name] = {key: value.bfloat16() for key, value in found[0]["average"].items()}
        checkpoint.save(self.out / STAGES[name].file, packed, {})

    def run(self) -> None:
        """All stages that are asked for, each within its share."""
        self.attach()
        whole = sum(stage.share for stage in self.chosen.values())
        for name, stage in self.chosen.items():
            left = self.args.seconds - (time.monotonic() - self.began) - self.args.reserve
            seconds = max(1.0, left * stage.share / whole)
            whole -= stage.share
            self.say(f"{name}: {seconds:.0f} s; " + ", ".join(f"{k} {v.filled}" for k, v in self.bank.shelves.items()))
            try:
                self.train(name, seconds)
            except Exception:  # noqa: BLE001 (the machine is rented: the other stages go on)
                traceback.print_exc()
            if self.args.device != "cpu":
                self.say(f"{name}: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most")
                torch.cuda.empty_cache()
        self.say("done")


def recipe(name: str, args: argparse.Namespace) -> TrainConfig:
    """The recipe with this stage's changes, at this run's size."""
    stage, made = STAGES[name], config.read(RECIPES / f"mini-128-{name}.toml")
    model = replace(made.model, autoencoder=args.autoencoder, frozen=stage.frozen)
    return replace(made, data=replace(made.data, size=args.size, task=stage.task or made.data.task), model=model)


def exported(source: Path, out: Path, args: argparse.Namespace) -> None:
    """What `pack` wrote, as runs to go on from, a model's folder, adapters and Redux."""
    runs: dict[str, Path] = {}
    for file in {stage.file for stage in STAGES.values()}:
        found = checkpoint.load(source / file)
        for name, rows in (found[0] if found else {}).items():
            average = {key: value.float() for key, value in rows.items()}
            runs[name] = checkpoint.save(out / "runs" / name, {"average": average}, {"step": 0}).parent
    for name, folder in runs.items():
        made = replace(recipe(name, args), out=str(folder))
        if made.model.rank:
            print(export_adapters(made, out / f"{LATER.get(name, name)}.safetensors"))
        elif name.startswith("redux"):  # the later stage's in place of the earlier one's
            print(export_redux(made, out / "redux"))
    base = [str(runs[name]) for name in ("longer", "guidance") if name in runs]
    if base:
        print(export(recipe("longer", args), base, out / "mini"))


def main() -> None:
    """Read the arguments, train, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--start", nargs="*", default=["mini"], help="models or runs that all stages go on from")
    parser.add_argument("--anew", action="store_true", help="adapters begin at nothing, not at the package's")
    parser.add_argument("--autoencoder", default="mini", help="run or model")
    parser.add_argument("--runs", help="where stages' own folders are; default: in OUT")
    parser.add_argument("--compile", action="store_true", help="let torch compile the longest stages' blocks")
    parser.add_argument("--size", type=int, default=128, help="px each way")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--reserve", type=float, default=8, help="seconds kept for writing at the end")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all numbers of samples")
    parser.add_argument("--batch", type=float, default=1.0, help="factor of all batches")
    parser.add_argument("--log", type=int, default=100, help="steps between two lines")
    parser.add_argument("--save", type=int, default=NEVER, help="steps between two checkpoints of a stage")
    parser.add_argument("--fresh", type=float, default=FRESH, help="share of a step's samples that may be new ones")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=[])
    parser.add_argument("--export", metavar="FOLDER", help="turn OUT's files into models and runs there, and end")
    args = parser.parse_args()
    if args.export:
        exported(Path(args.out), Path(args.export), args)
    else:
        Family(args).run()


if __name__ == "__main__":
    main()
