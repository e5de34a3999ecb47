"""Trains the judge from rendered scenes, a batch at a time, on pictures that are on the device already.

    learner = Learner("cuda")
    while (progress := ...) < 1:                       # pictures (B 256 256 3) uint8, answers: stacks of `targets`
        learner.step(pictures, answers, progress=progress)
    learner.save(path)

Every step sees its pictures moved, bent, softened and grained anew, because what a model draws is softer than what the
renderer draws, and not in quite the same places. `tools/train_judge.py` does it all on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from fluxone.evaluate.answers import targets
from fluxone.evaluate.judge import Judge, save
from fluxone.evaluate.labels import TABLES
from fluxone.evaluate.losses import NEAR_LINE, focal, heat, lines, off, things
from fluxone.evaluate.network import COLUMNS, FINE, GRID, PLACE, Looker, Reader, cut
from fluxone.evaluate.wear import Moved, move, still, wear

__all__ = ["Learner", "adam", "pace", "targets"]

RATE, BETAS, DECAY = 3e-3, (0.9, 0.99), 0.01
RISE, FALL, CLIP = 0.03, 0.6, 5.0  # shares of the course over which the rate rises and falls; gradient norm
WEIGHTS = {"place": 0.5, "whole": 0.2, "line place": 0.5}
Move = Callable[[float], None]  # one step of an optimizer, at this share of its rates


class Learner:
    """Both networks, their optimizer, and its own chance.

    Args:
        optimizer: makes the step of an optimizer for a module; AdamW if None.
        half: whether the networks compute in bfloat16; None is yes on a GPU.
    """

    def __init__(
        self,
        device: torch.device | str,
        *,
        seed: int = 0,
        optimizer: Callable[[nn.Module], Move] | None = None,
        half: bool | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.half = self.device.type == "cuda" if half is None else half
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = nn.ModuleDict({"looker": Looker(TABLES), "reader": Reader()})
        self.model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.move = (optimizer or adam)(self.model)

    def step(
        self, pictures: UInt8[Tensor, "B 256 256 3"], targets: dict[str, Tensor], *, progress: float | None = None
    ) -> dict[str, Tensor]:
        """One step on pictures and the stacked answers, all on the device; the losses, not yet waited for.

        Args:
            progress: share of the course, of time or of steps, that is over: 0 to 1; None keeps the full rate.
        """
        self.model.train()
        x, moved = move(pictures.permute(0, 3, 1, 2).float() / 255, self.rng)
        x = wear(x, self.rng)
        losses = self._losses(x, targets, moved)
        total: Tensor = torch.stack([WEIGHTS.get(name, 1.0) * value for name, value in losses.items()]).sum()
        self.model.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.move(1.0 if progress is None else pace(progress))
        return {"loss": total.detach(), **{name: value.detach() for name, value in losses.items()}}

    def _losses(self, x: Tensor, answers: dict[str, Tensor], moved: Moved) -> dict[str, Tensor]:
        looker, reader = self.model["looker"], self.model["reader"]
        windows, letters = lines(answers, moved, self.rng)
        crops = cut(x[windows.picture], windows.box)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            cells, found, whole = looker(x.contiguous(memory_format=torch.channels_last))
            read = reader(crops.contiguous(memory_format=torch.channels_last))
        losses = things(cells.float().split(looker.parts, 1), answers, moved.place(answers["places"]))
        wholes = zip(whole.float().split(looker.whole_parts, 1), answers["whole"].long().unbind(1), strict=True)
        losses["whole"] = torch.stack([F.cross_entropy(logits, number) for logits, number in wholes]).sum()
        middle, place = found.float().split((1, PLACE), 1)
        placed = moved.place(answers["lines"])
        sure, which = heat(placed, answers["lines"][..., 3] > 0, FINE, NEAR_LINE)
        losses["lines"] = focal(middle[:, 0], sure)
        losses["line place"] = off(place, placed, sure, which)
        weight = windows.real[:, None] / (windows.real.sum() * COLUMNS).clamp(min=1)
        losses["letters"] = (F.cross_entropy(read.float(), letters, reduction="none") * weight).sum()
        return losses

    @torch.no_grad()
    def score(self, pictures: UInt8[Tensor, "B 256 256 3"], targets: dict[str, Tensor]) -> dict[str, float]:
        """How often it is right about pictures as they are: how many things, their names, colours, columns of text."""
        self.model.eval()
        x = pictures.permute(0, 3, 1, 2).float() / 255
        looker, places = self.model["looker"], targets["places"]
        middle, _, names, colours, *_ = looker(x)[0].split(looker.parts, 1)
        sure = middle[:, 0].sigmoid()
        peaks = (sure == F.max_pool2d(sure, 3, 1, 1)) & (sure > 0.35)
        there = targets["names"] >= 0
        column, row = (places[..., :2] * GRID).long().clamp(0, GRID - 1).unbind(-1)
        cell = row * GRID + column
        right = {"counts": (peaks.sum((1, 2)) == there.sum(1)).float().mean()}
        for name, logits in (("names", names), ("colours", colours)):
            told = logits.argmax(1).flatten(1).gather(1, cell)
            right[name] = ((told == targets[name]) & there).sum() / there.sum()
        windows, letters = lines(targets, still(len(x), self.device), None)
        told = self.model["reader"](cut(x[windows.picture], windows.box)).argmax(1)
        same = (told == letters) & windows.real[:, None]
        right["columns"] = same.sum() / (windows.real.sum() * COLUMNS).clamp(min=1)
        return {name: float(value) for name, value in right.items()}

    def save(self, path: Path | str) -> None:
        """Write both networks in half precision, with the words that they know."""
        judge = Judge(self.model["looker"], self.model["reader"], TABLES)  # type: ignore[arg-type]  # of a ModuleDict
        save(judge, Path(path))


def adam(model: nn.Module) -> Move:
    """A step of AdamW over all of the module's weights."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, BETAS, weight_decay=DECAY)

    def step(share: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = RATE * share
        optimizer.step()

    return step


def pace(progress: float) -> float:
    """Share of the full rate at a share of the course: a short rise, a plateau, a straight fall to nothing."""
    return max(0.0, min(1.0, (progress + 1e-3) / RISE, (1 - progress) / FALL))
