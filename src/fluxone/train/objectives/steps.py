"""Step distillation: a teacher's walk through a quarter of the noise becomes one step of a student.

    noised picture at a window's start --teacher, several steps--> its end
    student, anywhere on the straight line between the two --> their difference

The student is FLUX.1-schnell's kind: no guidance embedding (the teacher's, at one guidance, becomes a constant of
its time embedding) and an unshifted schedule. It starts as the teacher. With `model.rank`, adapters are trained that
make a guided network one, told that same guidance.

Source: Yan et al. 2024, "PeRFlow: piecewise rectified flow".
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from PIL.Image import Image
from torch import Tensor

from fluxone.nn.layers import sinusoid
from fluxone.nn.transformer import TIME, Flux
from fluxone.sampling.schedule import DEV_SHIFT, SCHEDULES
from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch
from fluxone.train.objectives.flow import WEIGHTS, FlowObjective
from fluxone.train.parts import frozen_copy

WINDOWS = 4
STEPS_INSIDE = 4  # of the teacher, through one window
TOLD = 3.0  # guidance that the student keeps for good
AT_START = 0.5  # share of the samples at a window's very start, where a walk of four steps asks


class StepObjective(FlowObjective):
    """The flow objective's data; the teacher's walks as the target."""

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        super().__init__(replace(config, model=replace(config.model, guided=True)), bank)
        for part in (self.t5, self.clip, self.answer):
            part.requires_grad_(False).eval()
        if self.adapters is None:
            self.teacher = self.flux.requires_grad_(False).eval()
            self.flux = unguided(self.teacher, TOLD)
        else:  # beside the network as it is, which goes on being told that guidance
            self.teacher = frozen_copy(self.flux)
        self.weights = WEIGHTS | config.weights

    def _terms(self, batch: Batch, noise_: Tensor, sigma: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        window = torch.randint(WINDOWS, sigma.shape, generator=rng)
        inside = torch.rand(sigma.shape, generator=rng) * (torch.rand(sigma.shape, generator=rng) > AT_START)
        start, inside = (1 - window / WINDOWS).to(self.device), inside.to(self.device)[:, None, None]
        text = self.read(batch.ids)
        begin = torch.lerp(batch.x, noise_, start[:, None, None])
        end, told = begin, torch.full_like(start, TOLD)
        step = 1 / (WINDOWS * STEPS_INSIDE)
        with torch.no_grad():
            for k in range(STEPS_INSIDE):
                end = end - step * self.velocity(end, start - k * step, *text, told, given=batch, flux=self.teacher)
        state = torch.lerp(begin, end, inside)
        v = self.velocity(state, start - inside[:, 0, 0] / WINDOWS, *text, told, given=batch)
        loss = self.error(v, (begin - end) * WINDOWS, batch)
        return {"flow": loss, "loss": self.weights["flow"] * loss}

    def schedule(self, steps: int) -> list[float]:
        """Even noise levels, as FLUX.1-schnell's."""
        return SCHEDULES["linear"](steps, self.side**2, DEV_SHIFT)

    def sheet(self) -> Image:
        """Pictures of held-out prompts in as many steps as there are windows, told what was distilled."""
        return self._sheet(WINDOWS, guidance=TOLD)


def unguided(flux: Flux, told: float) -> Flux:
    """A network without a guidance embedding that computes what `flux` does when it is told that guidance."""
    assert flux.guidance_in is not None, "the teacher is guided"
    made = Flux(replace(flux.shape, guided=False))
    rows = {name: p for name, p in flux.state_dict().items() if not name.startswith("guidance_in.")}
    made.load_state_dict(copy.deepcopy(rows))
    made.attend = flux.attend
    device = flux.guidance_in.in_layer.weight.device
    with torch.no_grad():
        told_ = TIME * torch.tensor([told], device=device)
        made.to(device).time_in.out_layer.bias.add_(flux.guidance_in(sinusoid(told_))[0])
    return made.train()
