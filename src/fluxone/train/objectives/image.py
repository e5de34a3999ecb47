"""Redux: an eye that says a picture in the words' own space, learnt through a transformer that rests.

    picture --SigLIP's shape--> tokens --embedder--> tokens as T5's, after the prompt's --Flux, at rest--> velocity

The prompt is empty most of the time (`drop` in the recipe). The eye sees what the autoencoder makes of the latents.

Source: Black Forest Labs 2024, "FLUX.1 Redux" (pictures' tokens after the text's); how it was trained is not published.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

from fluxone.nn import tokens
from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch
from fluxone.train.objectives.flow import (
    PLAIN_GUIDANCE,
    SHEET_CFG,
    SHEET_SCENES,
    SHEET_STEPS,
    FlowObjective,
    drawn_error,
)
from fluxone.train.parts import EYE, eye

AT_ONCE = 16  # latents that are decoded together


class ImageObjective(FlowObjective):
    """Trains the picture encoder and the embedder; everything else rests."""

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        super().__init__(config, bank)
        for part in (self.flux, self.t5, self.clip, self.answer):
            part.requires_grad_(False).eval()
        self.eye, self.embedder = (part.to(self.device) for part in eye(config.model))

    def modules(self) -> dict[str, nn.Module]:
        return {"eye": self.eye, "embedder": self.embedder}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and ".layers." in name

    def _terms(self, batch: Batch, noise_: Tensor, sigma: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        state = torch.lerp(batch.x, noise_, sigma[:, None, None])
        v = self.velocity(state, sigma, *self.said(batch), torch.full_like(sigma, PLAIN_GUIDANCE))
        loss = drawn_error(v, noise_ - batch.x, batch.shown, self.weights["inked"])
        return {"flow": loss, "loss": loss}

    def said(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The words and, after them, the pictures, as (txt, pooled)."""
        with torch.no_grad():
            txt, pooled = self.read(batch.ids)
            seen = self.looked_at(batch.x)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            words: Tensor = self.embedder(self.eye(seen))
        return torch.cat((txt, words.to(txt)), dim=1), pooled

    def looked_at(self, x: Tensor) -> Tensor:
        """Packed latents as the eye takes their pictures: decoded, shrunk to its size, -1 to 1."""
        latent = tokens.unpack(x, self.side, self.side)
        pictures = torch.cat([self.autoencoder.decode(part) for part in torch.split(latent, AT_ONCE)])
        return F.interpolate(pictures.float().clamp(-1, 1), size=(EYE.size, EYE.size), mode="area")

    def sheet(self) -> Image:
        """Pictures that were looked at, and what is drawn from them without a word."""
        batch = self._validation(SHEET_SCENES)
        batch = batch.without_words(torch.ones(len(batch.x), dtype=torch.bool), self.empty)
        drawn = self._walked(batch, self.said(batch), SHEET_STEPS, guidance=SHEET_CFG)
        return self._pairs(self._pictures(batch.x), drawn, ["looked at", "drawn"] * len(batch.x))

    def meta(self) -> dict[str, Any]:
        return {"eye": vars(EYE)}
