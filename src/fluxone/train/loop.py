"""The loop: loss, gradients, step, average; now and then a log line, a validation, a sheet, a checkpoint."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL.Image import Image
from torch import Tensor, nn

from fluxone.errors import BrokenModel
from fluxone.train import checkpoint, group
from fluxone.train.config import TrainConfig
from fluxone.train.ema import Ema
from fluxone.train.group import Group
from fluxone.train.optim import MuonAdamW, clip


class Objective(Protocol):
    """What a run trains and how it is judged. Rows are in `objectives.OBJECTIVES`."""

    def modules(self) -> dict[str, nn.Module]:
        """The parts that are trained, by name: also what a checkpoint holds."""
        ...

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether Muon takes this parameter; AdamW takes the rest."""
        ...

    def pace(self, name: str) -> float:
        """The share of the learning rates that this parameter takes; 1 for most."""
        ...

    def loss(self, step: int, share: slice) -> dict[str, Tensor]:
        """The loss terms of this share of step `step`'s batch; `loss` is the one to descend."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on scenes that are never trained on."""
        ...

    def sheet(self) -> Image:
        """A picture of what the model makes now."""
        ...

    def meta(self) -> dict[str, Any]:
        """JSON kept in the checkpoint: what is needed to use the weights."""
        ...


def run(config: TrainConfig, objective: Objective, *, report: Callable[[str], None]) -> Path:
    """Train from the last checkpoint, or from nothing, to `config.steps`; returns the run's folder.

    Raises:
        BrokenModel: the loss is not finite. The last checkpoint stays as it was.
    """
    trainer = Trainer(config, objective, report)
    trainer.resume()
    while not trainer.finished:
        trainer.advance()
    return trainer.folder


class Trainer:
    """One run's moving parts; `advance` takes one step and does what is due after it."""

    def __init__(self, config: TrainConfig, objective: Objective, report: Callable[[str], None]) -> None:
        self.config, self.objective, self.report = config, objective, report
        self.folder = Path(config.out)
        self.group: Group = group.join(config.device)
        self.params = {
            f"{part}.{name}": p
            for part, module in objective.modules().items()
            for name, p in module.named_parameters()
            if p.requires_grad
        }
        muon = {name for name, p in self.params.items() if objective.muon(name, p)}
        paces = {name: objective.pace(name) for name in self.params}
        self.optim = MuonAdamW(self.params.items(), muon, config.rates, self.group, paces)
        self.ema = Ema(self.params, config.ema)
        self.step = 0
        self._spent, self._began = 0.0, time.perf_counter()  # seconds of earlier processes; when this one began
        self._since, self._sums, self._count = self._began, dict[str, Tensor](), 0
        self._ended = False
        # An accelerator computes while the loop goes on: gradients are looked at only when a line is written.
        self.ahead = any(p.device.type != "cpu" for p in self.params.values())

    @property
    def seconds(self) -> float:
        """Spent on this run, earlier processes counted."""
        return self._spent + time.perf_counter() - self._began

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1, by steps or by the clock, whichever is ahead."""
        timed = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(self.step / self.config.steps, timed))

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or the time is up."""
        return self._ended or self.step >= self.config.steps

    def resume(self) -> None:
        """Take up the folder's checkpoint, if there is one."""
        found = checkpoint.load(self.folder)
        if found is None:
            return
        groups, meta = found
        for name, p in self.params.items():
            p.data.copy_(groups["weights"][name])
        self.ema.load(groups["average"])
        self.optim.load(groups["optimizer"])
        self.step, self._spent = int(meta["step"]), float(meta.get("seconds", 0.0))
        self.report(f"continuing {self.folder} at step {self.step}")

    def advance(self) -> None:
        """One step of training, then the log, validation, sheet and checkpoint that are due."""
        config = self.config
        share = self.group.share(config.batch)
        terms = self.objective.loss(self.step, share)
        terms["loss"].backward()
        group.average(self.group, self.params.values(), (share.stop - share.start) / config.batch)
        norm = clip(self.params.values(), config.rates.clip)
        if not self.ahead:
            self._check(norm)
        progress = self._progress()
        self.optim.step(config.rates.factor(self.step, progress))
        for p in self.params.values():
            p.grad = None
        self.step += 1
        self.ema.update(self.step)
        self._ended = progress >= 1 and config.minutes > 0
        self._log({name: value.detach() for name, value in terms.items()} | {"norm": norm})
        self._due()

    def _progress(self) -> float:
        """The progress that all processes go by: where a clock counts, the first one's."""
        if not self.config.minutes or self.group.world == 1:
            return self.progress
        device = next(iter(self.params.values())).device
        own = torch.tensor(self.progress if self.group.first else 0.0, device=device)
        return float(group.total(self.group, own))

    def _check(self, norm: Tensor) -> None:
        if not math.isfinite(norm):
            raise BrokenModel(
                f"the gradient up to step {self.step} is {float(norm)}",
                hint="continue from the checkpoint with lower rates",
            )

    def _due(self) -> None:
        config, last = self.config, self.finished
        if not self.group.first:
            return
        if last or self.step % config.save_every == 0:
            self.save()
        if last or self.step % config.validate_every == 0:
            with self._judging():
                self._write({"step": self.step, "validation": self.objective.validate()})
        if last or self.step % config.sheet_every == 0:
            with self._judging():
                self._sheet()

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """The average weights in place, no gradients, and nothing compiled for a batch that is seen so seldom."""
        with self.ema.applied(), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield

    def save(self) -> None:
        """Write the checkpoint: weights, average, momenta, step, and what the objective wants kept."""
        groups = {
            "weights": {name: p.detach() for name, p in self.params.items()},
            "average": self.ema.average,
            "optimizer": self.optim.state(),
        }
        meta = {"step": self.step, "seconds": round(self.seconds, 3)}
        checkpoint.save(self.folder, groups, meta | self.objective.meta())

    def _sheet(self) -> None:
        folder = self.folder / "sheets"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{os.getpid()}.part"
        self.objective.sheet().save(part, format="PNG")
        part.replace(folder / f"{self.step:07d}.png")

    def _log(self, terms: dict[str, Tensor]) -> None:
        """Add up; where a line is due, write it. An accelerator is waited for only then."""
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._count += 1
        due = self.step % self.config.log_every == 0 or self.finished
        if not due and self.step % self.config.save_every:
            return
        self._check(self._sums["norm"])
        if not due:
            return
        means = {name: round(float(value) / self._count, 5) for name, value in self._sums.items()}
        seconds = time.perf_counter() - self._since
        rate = self._count * self.config.batch / seconds
        self._since, self._sums, self._count = time.perf_counter(), {}, 0
        if self.group.first:
            self._write({"step": self.step, "samples_per_second": round(rate, 2)} | means)

    def _write(self, row: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        self.report("  ".join(f"{name} {value}" for name, value in row.items()))
