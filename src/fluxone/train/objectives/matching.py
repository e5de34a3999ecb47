"""Distribution matching: a walk of a few steps learns to end where the teacher says pictures are.

    noise --student, all of its steps--> picture --noised--> teacher: where such pictures lie
                                                       `---> shadow:  where the student's lie
    student:  picture -> picture + (teacher's guess - shadow's guess)      gradients go through the whole walk
    shadow:   flow matching on the student's own pictures

No pictures are needed, and no walks of the teacher, whose errors on the way a student of its walks learns too: the
student is only told in which direction its own pictures are unlikely. Where the velocity's error is least at a blur
of all that may be there, this is least at one thing that may be there. Teacher, student and shadow are one network;
the last two have adapters beside it.

Source: Yin et al. 2024, "Improved distribution matching distillation" (there with a discriminator besides).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.errors import BadRequest
from fluxone.nn.transformer import Flux
from fluxone.train import tokenizer as words
from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch, Tokens
from fluxone.train.data.scenes import draw
from fluxone.train.export import load_average
from fluxone.train.lowrank import LowRankAdapters
from fluxone.train.objectives.flow import VALIDATION_SCENES, WEIGHTS, compiled
from fluxone.train.objectives.steps import TOLD, WINDOWS, StepObjective
from fluxone.train.parts import frozen_copy

SHADOW = "shadow"  # a part of the checkpoint, and its loss
LEAD = 60  # steps in which only the shadow learns: what the student draws at first is not what the teacher does
PACE = 3.0  # of the shadow's rates to the student's, whom it must not lose sight of
VIEWS = 2  # noise levels at which the shadow sees each picture
LEVELS = (0.02, 0.98)  # of the noise at which pictures are compared
WORDS = "text"  # the task that is given nothing but words


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a batch of walks is told.

    Attributes:
        batch: what is given; its latents are not looked at.
    """

    batch: Batch
    text: tuple[Tensor, Tensor]
    told: Float[Tensor, " B"]


class MatchingObjective(StepObjective):
    """Trains a student of `WINDOWS` steps, and the shadow that knows what it draws; needs `model.rank`.

    Args:
        bank: where words, and pictures that are given, come from; None: from a pool, and words alone from nowhere else.

    Raises:
        BadRequest: the recipe trains no adapters.
    """

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        if not config.model.rank:
            raise BadRequest("matching trains adapters, and rank is 0", hint="set [model] rank, e.g. 56")
        super().__init__(config, bank)
        load_average({"transformer": self.teacher}, config.model.teacher)
        self.follower = frozen_copy(self.teacher)
        self.shadow = LowRankAdapters(self.follower, config.model.rank, whole=config.model.whole).to(self.device)
        if config.compile:
            for flux in (self.teacher, self.follower):
                compiled(flux, self.device)
        self.weights = WEIGHTS | {"matching": 1.0, SHADOW: 1.0} | config.weights

    def modules(self) -> dict[str, nn.Module]:
        return super().modules() | {SHADOW: self.shadow}

    def pace(self, name: str) -> float:
        return PACE if name.startswith(SHADOW) else super().pace(name)

    def loss(self, step: int, share: slice) -> dict[str, Tensor]:
        noise = torch.stack([self._noise(step, row) for row in range(self.config.batch)[share]])
        rng = draw(self.config.seed, step, 4, share.start)
        asked = self._asked(self._given(step, share))
        learns = step >= LEAD
        with torch.set_grad_enabled(learns):
            drawn = self._walk(noise.to(self.device), asked)
        terms = {SHADOW: torch.stack([self._followed(drawn.detach(), asked, rng) for _ in range(VIEWS)]).mean()}
        if learns:
            terms["matching"] = self._matched(drawn, asked, rng)
        terms["loss"] = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return terms

    def _given(self, step: int, share: slice) -> Batch:
        """A step's words, and the pictures that are given with them."""
        if self.bank is not None:
            return self._from_bank(self.bank, step)[0]
        if self.data.task != WORDS:
            return self._from_pool(step, share)[0]
        ids = torch.tensor(words.encode(self.tokenizer, self._fresh(step, share)[1], self.model.text_tokens))
        return Batch(x=torch.empty(0), ids=ids, shown=torch.empty(0, dtype=torch.long)).to(self.device)

    def _asked(self, batch: Batch) -> Asked:
        with torch.no_grad():
            text = self.read(batch.ids)
        return Asked(batch=batch, text=text, told=torch.full((len(batch.ids),), TOLD, device=self.device))

    def _asks(self, flux: Flux, x: Tokens, sigma: Tensor, asked: Asked) -> Tensor:
        return self.velocity(x, sigma, *asked.text, asked.told, given=asked.batch, flux=flux)

    def _walk(self, x: Tokens, asked: Asked) -> Tokens:
        """The student's pictures from noise, as they are drawn later."""
        for sigma, below in pairwise(self.schedule(WINDOWS)):
            x = x - (sigma - below) * self._asks(self.flux, x, torch.full_like(asked.told, sigma), asked)
        return x

    def _noised(self, x: Tokens, rng: torch.Generator) -> tuple[Tokens, Tokens, Tensor]:
        """Pictures with noise, the noise, and its levels, one from each of as many equal shares."""
        low, high = LEVELS
        share = (torch.randperm(len(x), generator=rng) + torch.rand(len(x), generator=rng)) / len(x)
        sigma = (low + (high - low) * share).to(self.device)
        noise = torch.randn(x.shape, generator=rng).to(self.device)
        return torch.lerp(x, noise, sigma[:, None, None]), noise, sigma

    def _followed(self, drawn: Tokens, asked: Asked, rng: torch.Generator) -> Tensor:
        """The shadow's own loss."""
        state, noise, sigma = self._noised(drawn, rng)
        return F.mse_loss(self._asks(self.follower, state, sigma, asked), noise - drawn)

    def _matched(self, drawn: Tokens, asked: Asked, rng: torch.Generator) -> Tensor:
        """Half the squared distance to where pictures should go, in units of how far the teacher would move them."""
        with torch.no_grad():
            state, _, sigma = self._noised(drawn, rng)
            level = sigma[:, None, None]
            asks = (self._asks(flux, state, sigma, asked) for flux in (self.teacher, self.follower))
            likely, own = (state - level * velocity for velocity in asks)
            unit = (drawn - likely).abs().mean((1, 2), keepdim=True).clamp_min(1e-3)
            goal = drawn + (likely - own) / unit
        return 0.5 * F.mse_loss(drawn, goal)

    def validate(self) -> dict[str, float]:
        """How far teacher and shadow are apart on the student's pictures of held-out prompts."""
        asked = self._asked(self._validation(VALIDATION_SCENES))
        noise = torch.stack([self._noise(-1, row) for row in range(VALIDATION_SCENES)])
        state, _, sigma = self._noised(self._walk(noise.to(self.device), asked), draw(self.config.seed, -3))
        teachers, own = (self._asks(flux, state, sigma, asked) for flux in (self.teacher, self.follower))
        return {"apart": round(float(F.mse_loss(teachers, own)), 5)}
