"""Guidance distillation: three passes of a teacher become one pass of a student.

    target = without + guidance * (with - without) + SHARPER * (guidance - 1) * (with - blind)
                                                          guidance ~ U(1, 6), told to the student's embedding

`without` has no words; in `blind` the picture's tokens see nothing but themselves in one block, which draws things that
fall apart: away from them things are whole. At guidance 1 the student is the teacher, as which it starts. The text
encoders stay as they are.

Source: Meng et al. 2023, "On distillation of guided diffusion models"; Ahn et al. 2024, "Self-rectifying diffusion
sampling with perturbed-attention guidance".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import torch
from PIL.Image import Image
from torch import Tensor

from fluxone.nn.attention import Heads
from fluxone.nn.transformer import Flux
from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch
from fluxone.train.objectives.flow import PLAIN_GUIDANCE, SHEET_STEPS, WEIGHTS, FlowObjective, drawn_error
from fluxone.train.parts import frozen_copy

GUIDANCE = (1.0, 6.0)
SHARPER = 0.2
BLIND = 1  # the block: of the mini's six the one whose blur is most like the mistakes that were seen
SHEET_GUIDANCE = 4.0


@contextmanager
def blind(flux: Flux, block: int, words: int) -> Iterator[None]:
    """While it lasts, the picture's tokens see only themselves in a block; `words` of text come before them."""
    attend, calls = flux.attend, count()

    def itself(q: Heads, k: Heads, v: Heads) -> Heads:
        seen = attend(q, k, v)
        return seen if next(calls) != block else torch.cat((seen[:, :, :words], v[:, :, words:]), dim=2)

    flux.attend = itself
    try:
        yield
    finally:
        flux.attend = attend


class GuidanceObjective(FlowObjective):
    """The flow objective's data, the teacher's guided velocity as the target."""

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        super().__init__(config, bank)
        for part in (self.t5, self.clip, self.answer):
            part.requires_grad_(False).eval()
        self.teacher = frozen_copy(self.flux)
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
            with blind(self.teacher, BLIND, batch.ids.shape[-1]):
                blurred = self.velocity(state, sigma, *text, plain, given=batch, flux=self.teacher)
            scale = told[:, None, None]
            target = without + scale * (guided - without) + SHARPER * (scale - PLAIN_GUIDANCE) * (guided - blurred)
        v = self.velocity(state, sigma, *text, told, given=batch)
        loss = drawn_error(v, target, batch.shown, self.weights["inked"])
        return {"flow": loss, "loss": self.weights["flow"] * loss}

    def sheet(self) -> Image:
        """Pictures of held-out prompts, guidance told to the embedding, one pass a step."""
        return self._sheet(SHEET_STEPS, guidance=SHEET_GUIDANCE)
