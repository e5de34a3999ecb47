"""Redux: an eye that says a picture in the words' own space, learnt through a transformer that rests.

    picture --SigLIP's shape--> tokens --embedder--> tokens as T5's, after the prompt's --Flux, at rest--> velocity

The prompt is empty most of the time. Samples come from a bank, which keeps pictures.

Source: Black Forest Labs 2024, "FLUX.1 Redux" (pictures' tokens after the text's); how it was trained is not published.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

from fluxone.errors import BadRequest
from fluxone.nn.siglip import ReduxEmbedder, SiglipEncoder
from fluxone.shapes import ReduxShape, SiglipShape
from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch
from fluxone.train.data.scenes import draw
from fluxone.train.objectives.flow import (
    PLAIN_GUIDANCE,
    SHEET_CFG,
    SHEET_STEPS,
    SIGMA_MEAN,
    FlowObjective,
    drawn_error,
    stratified,
)

EYE = SiglipShape(hidden=128, layers=2, heads=2, mlp=512, size=128, patch=16)
WORDLESS = 0.8  # share of samples whose prompt is empty
SHOWN = 12  # pictures on a sheet


class ImageObjective(FlowObjective):
    """Trains the picture encoder and the embedder; everything else rests."""

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        if bank is None:
            raise BadRequest("the objective `image` learns from pictures of a bank", hint="run tools/train_family.py")
        super().__init__(config, bank)
        for part in (self.flux, self.t5, self.clip, self.answer):
            part.requires_grad_(False).eval()
        self.eye = SiglipEncoder(EYE).to(self.device)
        self.embedder = ReduxEmbedder(ReduxShape(image=EYE.hidden, text=config.model.text_hidden)).to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        return {"eye": self.eye, "embedder": self.embedder}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and ".layers." in name

    def loss(self, step: int, share: slice) -> dict[str, Tensor]:
        assert self.bank is not None
        rng = draw(self.config.seed, step)
        batch = self._seen(self.config.batch, rng)
        dropped = torch.rand(len(batch.x), generator=rng) < WORDLESS
        sigma = stratified(len(batch.x), rng, SIGMA_MEAN).to(self.device)
        return self._terms(batch.without_words(dropped, self.empty), torch.randn_like(batch.x), sigma, rng)

    def _seen(self, count: int, rng: torch.Generator) -> Batch:
        assert self.bank is not None
        rows = self.bank.seen(count, rng)
        return Batch(x=rows["x"].float(), ids=rows["ids"][:, 0].long(), shown=rows["shown"], pictures=rows["pictures"])

    def _terms(self, batch: Batch, noise_: Tensor, sigma: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        state = torch.lerp(batch.x, noise_, sigma[:, None, None])
        v = self.velocity(state, sigma, *self.said(batch), torch.full_like(sigma, PLAIN_GUIDANCE))
        loss = drawn_error(v, noise_ - batch.x, batch.shown, self.weights["inked"])
        return {"flow": loss, "loss": loss}

    def said(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The words and, after them, the pictures, as (txt, pooled)."""
        assert batch.pictures is not None, "pictures are looked at"
        with torch.no_grad():
            txt, pooled = self.read(batch.ids)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            seen: Tensor = self.embedder(self.eye(taken_in(batch.pictures)))
        return torch.cat((txt, seen.to(txt)), dim=1), pooled

    def validate(self) -> dict[str, float]:
        batch = self._seen(64, draw(self.config.seed, -1))
        noise_ = torch.randn(batch.x.shape, generator=draw(self.config.seed, -3)).to(self.device)
        terms = self._terms(batch, noise_, torch.full((64,), 0.5, device=self.device), draw(self.config.seed, -2))
        return {"flow@0.5": round(float(terms["flow"]), 5)}

    def sheet(self) -> Image:
        """Pictures that were looked at, and what is drawn from them without a word."""
        batch = self._seen(SHOWN, draw(self.config.seed, -1))
        batch = batch.without_words(torch.ones(SHOWN, dtype=torch.bool), self.empty)
        drawn = self._walked(batch, self.said(batch), SHEET_STEPS, guidance=SHEET_CFG)
        return self._pairs(self._pictures(batch.x), drawn, ["looked at", "drawn"] * SHOWN)

    def meta(self) -> dict[str, Any]:
        return {"eye": vars(EYE)}


def taken_in(pictures: Tensor) -> Tensor:
    """Pictures (B H W 3), 0 to 255, as the eye takes them: shrunk to its size, -1 to 1."""
    x = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.interpolate(x, size=(EYE.size, EYE.size), mode="area")
