"""Flow that learns guidance towards what is given on the way: words and pictures, against neither.

    half of the samples    told 1:  v -> noise - picture
    the others             told g:  v -> noise - picture + (g - 1) * (own v, told 1 - v of the start, nothing given)

What a reference shows is as uncertain to a small network as what words say; guidance that takes words away alone does
nothing for it. Nothing is distilled from a finished teacher, so the two are learnt in one run. The network that a run
starts from is asked without words and pictures: what stands beside a model has never seen neither.

Source: Tang et al. 2025, "Diffusion models without classifier-free guidance"; Brooks et al. 2023, "InstructPix2Pix"
(guidance by the picture).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch
from fluxone.train.objectives.flow import PLAIN_GUIDANCE, FlowObjective, drawn_error
from fluxone.train.parts import frozen_copy

GUIDANCE = (1.0, 4.0)


class GuidedObjective(FlowObjective):
    """The flow objective's data; the second half of a batch is told a guidance."""

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        super().__init__(config, bank)
        self.start = frozen_copy(self.flux)

    def _terms(self, batch: Batch, noise_: Tensor, sigma: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        low, high = GUIDANCE
        told = low + (high - low) * torch.rand(len(sigma), generator=rng).to(self.device)
        told[: len(told) // 2] = PLAIN_GUIDANCE
        text = self.read(batch.ids)
        state = torch.lerp(batch.x, noise_, sigma[:, None, None])
        target = noise_ - batch.x
        target[len(told) // 2 :] += self._urged(batch, text, state, sigma, told, slice(len(told) // 2, None))
        loss = drawn_error(self.velocity(state, sigma, *text, told, given=batch), target, batch.shown, self.weights)
        return {"flow": loss, "loss": self.weights["flow"] * loss}

    @torch.no_grad()
    def _urged(
        self, batch: Batch, text: tuple[Tensor, Tensor], x: Tensor, sigma: Tensor, told: Tensor, rows: slice
    ) -> Tensor:
        """What guidance adds to the velocities of these rows."""
        x, sigma, told = x[rows], sigma[rows], told[rows]
        reference = None if batch.reference is None else batch.reference[rows]
        channels = None if batch.channels is None else batch.channels[rows]
        given, plain = replace(batch, reference=reference, channels=channels), torch.full_like(told, PLAIN_GUIDANCE)
        own = self.velocity(x, sigma, text[0][rows], text[1][rows], plain, given=given)
        nothing = self.read(self.empty.expand(len(x), -1))
        dark = None if channels is None else replace(given, reference=None, channels=torch.zeros_like(channels))
        without = self.velocity(x, sigma, *nothing, plain, given=dark, flux=self.start)
        return (told - 1)[:, None, None] * (own - without)
