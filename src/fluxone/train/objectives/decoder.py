"""The decoder learns to see past the transformer's own mistakes: what it drew should come out as what is true.

    picture --encoder, at rest--> latent --noise--> --transformer, a few steps--> drawn latent --decoder--> the picture

The walk begins at half the noise or so, where it is decided what is where: things stay where they are; faces, letters
and edges are drawn anew, with the mistakes that they always have. A share of the batch is decoded as it was encoded,
so that what people give to be edited comes back as well as before. The encoder rests: all latents stay what they are.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from fluxone import storybook
from fluxone.nn.tokens import pack, unpack
from fluxone.pixels import to_images, unit
from fluxone.storybook import Scene
from fluxone.train import tokenizer as words
from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.scenes import draw, nth, pixels
from fluxone.train.export import BESIDE
from fluxone.train.objectives.autoencoder import WEIGHTS, compare
from fluxone.train.objectives.flow import FlowObjective
from fluxone.train.objectives.steps import TOLD

LEVELS = (0.15, 0.7)  # of the noise that a walk begins with
STEPS = 12  # of a walk through all of the noise
PLAIN = 0.25  # share of the batch that is decoded as it was encoded
VALIDATION_SCENES, VALIDATION_LEVEL = 32, 0.45


class DecoderObjective(FlowObjective):
    """Trains the autoencoder's decoder; the encoder, the transformer and its text encoders rest.

    Args:
        bank: is not drawn from: every picture is new.
    """

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        super().__init__(config, bank)
        for part in (self.flux, self.t5, self.clip, self.answer):
            part.requires_grad_(False).eval()
        self.weights = WEIGHTS | {"structure": 1.0} | config.weights
        self.taught = deepcopy(self.autoencoder).to(self.device)
        self.taught.decoder.requires_grad_(True).train()

    def modules(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.taught}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 4 and "conv_in" not in name and "conv_out" not in name

    def meta(self) -> dict[str, Any]:
        return super().meta() | {BESIDE: [self.model.autoencoder]}

    def loss(self, step: int, share: slice) -> dict[str, Tensor]:
        count = self.config.batch
        rng = draw(self.config.seed, step)
        level = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * float(torch.rand((), generator=rng))
        scenes, texts = self._fresh(step, share)
        noise = torch.stack([self._noise(step, row) for row in range(count)[share]])
        x = self._pictures_of(scenes)
        plain = torch.arange(count)[share] < round(PLAIN * count)
        latents = self._drawn(x, texts, noise, level, plain)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            terms = compare(self.taught.decode(latents).float(), x)
        terms["loss"] = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return terms

    @torch.no_grad()
    def _drawn(
        self, x: Float[Tensor, "B 3 H W"], texts: list[str], noise: Tensor, level: float, plain: Tensor
    ) -> Float[Tensor, "B 16 h w"]:
        """Latents of pictures: those that are plain as they are, the others walked to from noise of a level."""
        latent = self.taught.encode(x)
        state = torch.lerp(pack(latent), noise.to(self.device), level)
        ids = words.encode(self.tokenizer, texts, self.model.text_tokens)
        text = self.read(torch.tensor(ids, device=self.device))
        told = torch.full((len(x),), TOLD, device=self.device)
        sigmas = torch.linspace(level, 0, max(2, round(level * STEPS)) + 1).tolist()
        for sigma, below in pairwise(sigmas):
            state = state + (below - sigma) * self.velocity(state, torch.full_like(told, sigma), *text, told)
        drawn = unpack(state, latent.shape[-2] // 2, latent.shape[-1] // 2)
        return torch.where(plain.to(self.device)[:, None, None, None], latent, drawn)

    def _pictures_of(self, scenes: list[Scene]) -> Float[Tensor, "B 3 H W"]:
        rows = [pixels(storybook.render(scene, self.data.size)) for scene in scenes]
        return torch.stack(rows).to(self.device)

    def _held_out(self, count: int, *, drawn: bool) -> tuple[Tensor, Tensor]:
        """Pictures that are never trained on, and what the decoder makes of their latents, drawn or as encoded."""
        scenes = [nth(self.world, number, held_out=True) for number in range(count)]
        x, plain = self._pictures_of(scenes), torch.full((count,), not drawn)
        noise = torch.stack([self._noise(-1, number) for number in range(count)])
        latents = self._drawn(x, [scene.caption for scene in scenes], noise, VALIDATION_LEVEL, plain)
        return x, self.taught.decode(latents).float().clamp(-1, 1)

    def validate(self) -> dict[str, float]:
        """Decibels of what was encoded, and of what was drawn."""
        found = {}
        for name in ("encoded", "drawn"):
            x, made = self._held_out(VALIDATION_SCENES, drawn=name == "drawn")
            error = ((made - x) / 2).square().mean((1, 2, 3))
            found[name] = round(float((-10 * error.log10()).mean()), 3)
        return found

    def sheet(self) -> Image:
        """Pictures, and what the decoder makes of their drawn latents."""
        x, made = self._held_out(12, drawn=True)
        both = torch.stack([x, made], 1).flatten(0, 1)
        return storybook.sheet(to_images(unit(both)), ["picture", "drawn"] * 12, 6)
