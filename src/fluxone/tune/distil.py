"""Fewer steps, or one pass instead of two, learnt from the model itself: no pictures but its own.

    steps      a teacher's walk through one of the student's few intervals, in one step of the student:
                   target = (x(high) - x(low)) / (high - low), x(low) by the teacher's small steps from x(high)
    guidance   two passes, with the prompt and without, in one that is told the guidance:
                   target = v(empty) + w (v(prompt) - v(empty))

Teacher is the base with whatever adapters are merged into it, student the same with the adapter that is learnt; the
states are pictures that the teacher drew of the prompts, noised.

Source: Yan et al. 2024 (PeRFlow: piecewise straight walks); Meng et al. 2023 (guidance distillation).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.pipeline import Pipeline
from fluxone.sampling.schedule import SCHEDULES, Shift
from fluxone.tune.beside import Beside
from fluxone.tune.buckets import stream
from fluxone.tune.learner import Learner, distance
from fluxone.tune.material import Batch, Material
from fluxone.tune.settings import Settings

GUIDANCES = (1.0, 5.0)  # that a guidance-distilled network can be told


class StepsLearner(Learner):
    """The teacher's walk through an interval in one step.

    Args:
        steps: of the student; their noise levels are those of the model's own schedule.
        inner: steps of the teacher in each of them.
        guidance: that the student is told; cfg: true guidance of the teacher, 1 for none.
    """

    def __init__(
        self, pipeline: Pipeline, beside: Beside, material: Material, settings: Settings, *, steps: int, inner: int,
        guidance: float, cfg: float,
    ) -> None:  # fmt: skip
        super().__init__(pipeline, beside, material, settings)
        self.few, self.inner, self.told, self.cfg = steps, inner, guidance, cfg

    def losses(self, batch: Batch) -> Tensor:
        """Each sample in the interval that its own sigma falls into."""
        row, columns = batch.x.shape[1], self.pipeline.variant
        name = "shifted" if columns.shifted else "linear"
        levels = torch.tensor(SCHEDULES[name](self.few, row, Shift.of(columns)), device=self.device)
        place = torch.searchsorted(-levels, -batch.sigma, right=True).clamp(1, self.few) - 1
        high, low = levels[place], levels[place + 1]
        start = replace(batch, sigma=high)
        x = start.state
        with torch.no_grad(), self.beside.at(0):
            end = self._walked(start, x, high, low)
        target = (x - end) / (high - low)[:, None, None]
        return distance(self._at(start, x, high, batch.txt, batch.pooled), target, None)

    def _walked(self, batch: Batch, x: Tensor, high: Tensor, low: Tensor) -> Tensor:
        stride = (high - low) / self.inner
        for i in range(self.inner):
            x = x - stride[:, None, None] * self._guided(batch, x, high - i * stride)
        return x

    def _guided(self, batch: Batch, x: Tensor, sigma: Tensor) -> Tensor:
        v = self._at(batch, x, sigma, batch.txt, batch.pooled)
        if self.cfg == 1:
            return v
        txt, pooled = (part.to(self.device) for part in self.material.texts([""] * len(x)))
        away = self._at(batch, x, sigma, txt, pooled)
        return away + self.cfg * (v - away)

    def _at(self, batch: Batch, x: Tensor, sigma: Tensor, txt: Tensor, pooled: Tensor) -> Tensor:
        """The velocity at any state."""
        moved = replace(batch, sigma=sigma, txt=txt, pooled=pooled)
        return self.velocity(moved, state=x, guidance=torch.full_like(sigma, self.told))


class GuidanceLearner(Learner):
    """Two passes of the teacher in one of the student, which is told how strong it is to be.

    Raises:
        BadRequest: the network has no embedding of guidance.
    """

    def __init__(self, pipeline: Pipeline, beside: Beside, material: Material, settings: Settings) -> None:
        super().__init__(pipeline, beside, material, settings)
        if not pipeline.variant.guided:
            raise BadRequest("this network cannot be told a guidance", hint="distil its steps instead")

    def losses(self, batch: Batch) -> Tensor:
        """At a guidance of its own for each sample."""
        low, high = GUIDANCES
        rng = stream(self.settings.seed, "told", tuple(round(level, 9) for level in batch.sigma.tolist()))
        told = (low + (high - low) * torch.rand(len(batch.x), generator=rng)).to(self.device)
        txt, pooled = (part.to(self.device) for part in self.material.texts([""] * len(batch.x)))
        with torch.no_grad(), self.beside.at(0):
            v = self.velocity(batch)
            away = self.velocity(replace(batch, txt=txt, pooled=pooled))
        target = away + told[:, None, None] * (v - away)
        return distance(self.velocity(batch, guidance=told), target, None)
