"""Redux: an eye that says a picture in the words' own space, learnt from T5, or through a transformer that rests.

    picture --SigLIP's shape--> tokens --embedder--> tokens as T5's, after the prompt's --Flux, at rest--> velocity

Two terms, by the recipe's factors. `words`: the tokens should be what T5 makes of the picture's caption (task
`plain`), which needs no transformer and teaches a small eye in minutes. `flow`: what is drawn from them should be the
picture; the prompt is empty most of the time (`drop`). The eye sees what the autoencoder makes of the latents.

Source: Black Forest Labs 2024, "FLUX.1 Redux" (pictures' tokens after the text's); how it was trained is not published.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

from fluxone.errors import BadRequest
from fluxone.nn import tokens
from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch
from fluxone.train.export import load_average
from fluxone.train.objectives.flow import (
    PLAIN_GUIDANCE,
    SHEET_CFG,
    SHEET_SCENES,
    SHEET_STEPS,
    FlowObjective,
)
from fluxone.train.parts import EYE, eye

AT_ONCE = 16  # latents that are decoded together
KEPT = 12_000  # pictures that are not decoded again


class ImageObjective(FlowObjective):
    """Trains the picture encoder and the embedder; everything else rests."""

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        super().__init__(config, bank)
        for part in (self.flux, self.t5, self.clip, self.answer):
            part.requires_grad_(False).eval()
        self.weights = {"words": 0.0} | self.weights
        if not self.weights["flow"] and config.data.drop:
            raise BadRequest("a picture whose words are dropped teaches nothing", hint="drop = 0, or a factor of flow")
        self._decoded: dict[int, Tensor] = {}
        self.eye, self.embedder = eye(config.model)
        load_average(self.modules(), config.model.start)
        for taught in self.modules().values():
            taught.to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        return {"eye": self.eye, "embedder": self.embedder}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and ".layers." in name

    def _terms(self, batch: Batch, noise_: Tensor, sigma: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        seen = self.seen(batch)
        terms = {}
        told = (batch.ids != self.empty).any(dim=1)
        if self.weights["words"] and told.any():
            terms["words"] = F.mse_loss(seen[told].float(), self._in_words(batch.ids[told], seen.shape[1]))
        if self.weights["flow"]:
            state = torch.lerp(batch.x, noise_, sigma[:, None, None])
            v = self.velocity(state, sigma, *self._after(batch, seen), torch.full_like(sigma, PLAIN_GUIDANCE))
            terms["flow"] = self.error(v, noise_ - batch.x, batch)
        terms["loss"] = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return terms

    @torch.no_grad()
    def _in_words(self, ids: Tensor, count: int) -> Tensor:
        """What T5 says to these words, as `count` tokens."""
        rest = self.empty[-1].expand(len(ids), max(0, count - ids.shape[1]))  # the empty prompt ends in padding
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            said: Tensor = self.t5(torch.cat((ids, rest), dim=1))
        return said[:, :count].float()

    def seen(self, batch: Batch) -> Tensor:
        """What the eye says to the pictures, as tokens (B, N, C) beside T5's."""
        pictures = self.looked_at(batch.x) if batch.pictures is None else shrunk(batch.pictures)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            said: Tensor = self.embedder(self.eye(pictures))
        return said

    def _after(self, batch: Batch, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The words and, after them, the pictures, as (txt, pooled)."""
        with torch.no_grad():
            txt, pooled = self.read(batch.ids)
        return torch.cat((txt, seen.to(txt)), dim=1), pooled

    def said(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The words and, after them, what the eye says to the pictures, as (txt, pooled)."""
        return self._after(batch, self.seen(batch))

    @torch.no_grad()
    def looked_at(self, x: Tensor) -> Tensor:
        """Packed latents as the eye takes their pictures: decoded, shrunk to its size, -1 to 1; kept."""
        if len(self._decoded) > KEPT:
            self._decoded.clear()
        keys = [hash(row.numpy().tobytes()) for row in x.cpu()]
        new = [row for row, key in enumerate(keys) if key not in self._decoded]
        for rows in torch.split(torch.tensor(new, dtype=torch.long), AT_ONCE) if new else ():
            pictures = self.autoencoder.decode(tokens.unpack(x[rows.to(x.device)], self.side, self.side))
            small = area(pictures.float().clamp(-1, 1))
            self._decoded |= {keys[row]: picture.half() for row, picture in zip(rows.tolist(), small, strict=True)}
        return torch.stack([self._decoded[key] for key in keys]).float()

    def sheet(self) -> Image:
        """Pictures that were looked at, and what is drawn from them without a word."""
        batch = self._validation(SHEET_SCENES)
        batch = batch.without_words(torch.ones(len(batch.x), dtype=torch.bool), self.empty)
        drawn = self._walked(batch, self.said(batch), SHEET_STEPS, guidance=SHEET_CFG)
        return self._pairs(self._pictures(batch.x), drawn, ["looked at", "drawn"] * len(batch.x))

    def meta(self) -> dict[str, Any]:
        return {"eye": vars(EYE)}


def area(pictures: Tensor) -> Tensor:
    """Pictures (B 3 H W) at the eye's size."""
    return F.interpolate(pictures, size=(EYE.size, EYE.size), mode="area")


def shrunk(pictures: Tensor) -> Tensor:
    """Pictures (B H W 3) of bytes as the eye takes them, -1 to 1."""
    return area(pictures.permute(0, 3, 1, 2).float()) / 127.5 - 1
