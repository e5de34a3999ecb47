"""Guidance distillation: two passes of a teacher, with and without the prompt, become one pass of a student.

    target = without + guidance * (with - without)        guidance ~ U(1, 5), told to the student's embedding

The student starts as the teacher, or, where the recipe names another, as what has learnt from one like it. The text
encoders stay as they are.

Source: Meng et al. 2023, "On distillation of guided diffusion models".
"""

from __future__ import annotations

import torch
from PIL.Image import Image
from torch import Tensor

from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch
from fluxone.train.export import load_average
from fluxone.train.objectives.flow import PLAIN_GUIDANCE, SHEET_STEPS, WEIGHTS, FlowObjective
from fluxone.train.parts import frozen_copy

GUIDANCE = (1.0, 5.0)
SHEET_GUIDANCE = 3.0


class GuidanceObjective(FlowObjective):
    """The flow objective's data, the teacher's guided velocity as the target."""

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        super().__init__(config, bank)
        for part in (self.t5, self.clip, self.answer):
            part.requires_grad_(False).eval()
        self.teacher = frozen_copy(self.flux)
        load_average({"transformer": self.teacher}, config.model.teacher)
        self.weights = WEIGHTS | config.weights

    def _terms(self, batch: Batch, noise_: Tensor, sigma: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        low, high = GUIDANCE
        told = (low + (high - low) * torch.rand(len(sigma), generator=rng)).to(self.device)
        state = torch.lerp(batch.x, noise_, sigma[:, None, None])
        with torch.no_grad():
            text, empty = self.read(batch.ids), self.read(self.empty.expand_as(batch.ids))
            plain = torch.full_like(told, PLAIN_GUIDANCE)
            without = self.velocity(state, sigma, *empty, plain, given=batch, flux=self.teacher)
            guided = self.velocity(state, sigma, *text, plain, given=batch, flux=self.teacher)
            target = without + told[:, None, None] * (guided - without)
        v = self.velocity(state, sigma, *text, told, given=batch)
        loss = self.error(v, target, batch)
        return {"flow": loss, "loss": self.weights["flow"] * loss}

    def sheet(self) -> Image:
        """Pictures of held-out prompts, guidance told to the embedding, one pass a step."""
        return self._sheet(SHEET_STEPS, guidance=SHEET_GUIDANCE)
