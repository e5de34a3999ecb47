"""The loop of a fine-tuning run, which can be ended at any time and goes on to the last bit as if it had not been.

    gradients of the batch, in parts --all processes--> clip --> step --> log --> now and then a checkpoint

Not a number ends a run, with the batch that made it beside the checkpoint; it is never passed over.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxone.errors import BadFile, BadRequest, BrokenModel
from fluxone.lines import read_lines
from fluxone.train import checkpoint
from fluxone.train.ema import Ema
from fluxone.train.group import Group, average, total
from fluxone.tune import shards
from fluxone.tune.context import check, sharing
from fluxone.tune.events import Events
from fluxone.tune.learner import BINS, Learner, Tally
from fluxone.tune.optimizers import Pace, make
from fluxone.tune.rates import FALLS, factor
from fluxone.tune.settings import Settings

LOG = "log.jsonl"
DUMP = "broken"


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What is told after each step."""

    step: int
    loss: float
    seconds: float


class Trainer:
    """One run.

    Args:
        folder: of checkpoint and log.
        data: what is trained on, by content: a run goes on only with the same.
        group: the processes that share each batch.
    """

    def __init__(
        self, learner: Learner, settings: Settings, folder: Path, *, data: str, group: Group | None = None
    ) -> None:
        self.learner, self.settings, self.folder, self.data = learner, settings, folder, data
        self.group = replace(group or Group(), context=settings.context)
        check(self.group, settings)
        self.sharing = sharing(learner.network, self.group)
        self.shards: shards.Shards | None = None
        self.params: dict[str, nn.Parameter] = dict(learner.beside.named_parameters())
        if self.group.world > 1 and (settings.shard or settings.kind == "full"):
            self.shards = shards.Shards(learner.network, learner.beside, self.group, settings)
            self.params = self.shards.rows
            with torch.no_grad(), self.sharing():  # the first pass tells FSDP that the network is the root
                learner.losses(learner.material.batch(0, self.group.share(settings.batch)).to(learner.device))
        pace = Pace(rate=settings.rate, betas=settings.betas, decay=settings.decay)
        self.optimizer = make(settings.optimizer, self.params, pace)
        self.ema = Ema(self.params, settings.ema) if settings.ema else None
        self.events = Events(folder)
        self.step = 0
        self.notes: dict[str, Any] = {}  # what the workflow wants kept with the checkpoint

    def resume(self) -> bool:
        """Take up the folder's checkpoint, if there is one.

        Raises:
            BadRequest: it is of other settings or other pictures.
        """
        found = self._found()
        if found is None:
            return False
        groups, meta = found
        self._same(meta)
        try:
            with torch.no_grad():
                for name, p in self.params.items():
                    p.copy_(groups["weights"][name])
            self.optimizer.load(groups["optimizer"])
            if self.ema is not None:
                self.ema.load(groups["average"])
            self.step, self.notes = int(meta["step"]), dict(meta["notes"])
        except (KeyError, RuntimeError) as error:
            raise BadFile(f"{self.folder} holds another run's checkpoint: {error}", hint="delete it") from None
        self._cut_log()
        return True

    def _found(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """The last checkpoint, of one process or of several, as this process needs it."""
        own, shared = checkpoint.load(self.folder), shards.pointer_of(self.folder)
        if shared is not None and (own is None or shared["meta"]["step"] >= own[1]["step"]):
            if self.shards is None:
                return shards.read(self.folder)
            self._same(shared["meta"])
            groups = self._groups()
            meta = self.shards.load(self.folder, groups)
            return None if meta is None else ({name: dict(rows) for name, rows in groups.items()}, meta)
        if own is None or self.shards is None:
            return own
        spread = self.shards.spread
        return {g: {name: spread(name, value) for name, value in rows.items()} for g, rows in own[0].items()}, own[1]

    def _same(self, meta: Mapping[str, Any]) -> None:
        other = self.settings.differing(meta.get("settings", {}))
        if other:
            was = ", ".join(f"{name} {meta['settings'][name]}" for name in other)
            raise BadRequest(
                f"{self.folder} holds a run with {was}", hint="use the same, another folder with -o, or --fresh"
            )
        if meta.get("data") != self.data:
            raise BadRequest(f"{self.folder} holds a run on other pictures", hint="use another folder, or --fresh")

    def save(self) -> None:
        """Write the checkpoint, whole or not at all. The first process does; where weights are shared, all of them."""
        meta = {"step": self.step, "settings": self.settings.told(), "data": self.data, "notes": self.notes}
        if self.shards is not None:
            self.shards.save(self.folder, self._groups(), meta)
            return
        if self.group.first:
            checkpoint.save(self.folder, self._groups(), meta)
            shards.forget(self.folder)

    def _groups(self) -> dict[str, Mapping[str, Tensor]]:
        """All that a run goes on from."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "weights": {name: p.detach() for name, p in self.params.items()},
            "optimizer": self.optimizer.state(),
        }
        if self.ema is not None:
            groups["average"] = self.ema.average
        return groups

    def advance(self) -> Tick:
        """One step.

        Raises:
            BrokenModel: a loss or a gradient is not finite. The last checkpoint stays as it was.
        """
        begun, settings, tally = time.perf_counter(), self.settings, Tally()
        mine = self.group.share(settings.batch)
        with self.sharing():
            for part in parts(mine, settings.micro or settings.batch):
                self.learner.backward(self.step, part, tally)
        norm = self._gathered()
        loss = self._mean(tally)
        if not (math.isfinite(norm) and math.isfinite(loss)):
            self._dump(loss, norm)
        share = factor(self.step, settings.steps, settings.warmup, FALLS[settings.fall])
        self.optimizer.step(share)
        for p in self.params.values():
            p.grad = None
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.step)
        seconds = time.perf_counter() - begun
        self._log(tally, loss, norm, seconds)
        return Tick(step=self.step, loss=loss, seconds=seconds)

    def _gathered(self) -> float:
        """Add up the gradients of all processes, and shorten them; how long they were."""
        if self.shards is not None:
            self.shards.collect()
            return self.shards.clip(self.settings.clip)
        average(self.group, self.params.values(), 1.0)
        return float(nn.utils.clip_grad_norm_(list(self.params.values()), self.settings.clip))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A context in which this process has the whole network; all processes must enter it."""
        with self.shards.whole() if self.shards is not None else nullcontext():
            yield

    def _mean(self, tally: Tally) -> float:
        """The loss of the whole batch, over all processes."""
        sums = torch.tensor([tally.flow, float(tally.count)], dtype=torch.float64, device=self.learner.device)
        total(self.group, sums)
        return float(sums[0] / sums[1].clamp(min=1))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context with the weights that are looked at and written."""
        if self.ema is not None:
            with self.ema.applied():
                yield
        else:
            with self.optimizer.averaged():
                yield

    def _dump(self, loss: float, norm: float) -> None:
        """Leave the batch and the gradients for whoever wants to know, and stop."""
        batch = self.learner.material.batch(self.step, slice(None))
        place = self.folder / DUMP
        grads = {name: p.grad for name, p in self.params.items() if p.grad is not None}
        broken = [name for name, grad in grads.items() if not torch.isfinite(grad).all()]
        tensors = {
            "batch": {"x": batch.x, "noise": batch.noise, "sigma": batch.sigma},
            "weights": {name: p.detach() for name, p in self.params.items()},
        }
        meta = {"step": self.step, "pictures": batch.names, "prompts": batch.prompts, "gradients": broken[:50]}
        checkpoint.save(place, tensors, meta)
        raise BrokenModel(
            f"step {self.step} of {', '.join(dict.fromkeys(batch.names))}: loss {loss}, gradient {norm}; nothing was "
            f"learnt from it, and what made it is in {place}",
            hint="lower --rate and run the same command: it goes on from the last checkpoint",
        )

    def _log(self, tally: Tally, loss: float, norm: float, seconds: float) -> None:
        if not self.group.first:
            return
        row: dict[str, Any] = {"step": self.step, "loss": round(loss, 6), "norm": round(norm, 5)}
        row["sigmas"] = [round(s / n, 6) if n else None for s, n in zip(tally.sums, tally.counts, strict=True)]
        if tally.kept_count:
            row["kept"] = round(tally.kept / tally.kept_count, 7)
        row["seconds"] = round(seconds, 4)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        levels = {f"sigma/{k / BINS:.3f}": value for k, value in enumerate(row["sigmas"]) if value is not None}
        self.events.scalars(self.step, {name: row[name] for name in ("loss", "norm", "kept") if name in row} | levels)

    def _cut_log(self) -> None:
        """Drop the rows of steps that are walked again."""
        if not self.group.first:
            return
        rows = [row for row in read_lines(self.folder / LOG) if row["step"] <= self.step]
        path = self.folder / LOG
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        part.replace(path)


def parts(whole: slice, most: int) -> list[slice]:
    """A share of a batch in parts of at most so many samples."""
    return [slice(start, min(start + most, whole.stop)) for start in range(whole.start, whole.stop, most)]


Told = Callable[[Tick], None]
