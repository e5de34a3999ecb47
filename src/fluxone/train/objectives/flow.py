"""Flow matching: the velocity from noise to picture, learnt along straight lines.

    x(sigma) = (1 - sigma) * picture + sigma * noise        velocity = noise - picture

The transformer and, unless they are frozen, its text encoders learn together. On the way the middle of the
network is also asked which thing, colour and letter is at each token (the storybook world knows): what REPA
does with a pretrained eye, done with ground truth. The question's small layers are not shipped.

Source: Lipman et al. 2023; Esser et al. 2024 (logit-normal sigma); Yu et al. 2025, "REPA" (the auxiliary term).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from fluxone import storybook
from fluxone.nn import tokens
from fluxone.nn.attention import ATTENTION
from fluxone.nn.transformer import Flux
from fluxone.pixels import to_images, unit
from fluxone.sampling.samplers import SAMPLERS
from fluxone.sampling.schedule import DEV_SHIFT, SCHEDULES
from fluxone.train import tokenizer as words
from fluxone.train.config import TrainConfig
from fluxone.train.data.answers import LETTERS, survey
from fluxone.train.data.latents import Pool, encode
from fluxone.train.data.scenes import draw, nth, world_of
from fluxone.train.export import autoencoder, load_average
from fluxone.train.parts import caption, pace, text_encoders, transformer

WEIGHTS = {"flow": 1.0, "names": 0.05, "colours": 0.05, "letters": 1.0}  # few cells show a letter
PLAIN_GUIDANCE = 1.0  # what the embedding is told while guidance is not distilled yet
SIGMA_MEAN = 0.3  # of logit(sigma): a little more noise than picture, for 64 tokens
FLAT = 0.125  # share of sigmas drawn evenly: the logit-normal law hardly ever visits the first step's
VALIDATION_SCENES = 64
JUDGED = ("flow", "names", "letters")  # terms that validation tells
VALIDATION_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
SHEET_SCENES, SHEET_STEPS, SHEET_CFG = 24, 16, 3.0


class Answer(nn.Module):
    """Name, colour and letter that each image token shows, read from the middle of the network."""

    def __init__(self, hidden: int, names: int, colours: int) -> None:
        super().__init__()
        self.names, self.colours = nn.Linear(hidden, names), nn.Linear(hidden, colours)
        self.letters = nn.Linear(hidden, len(LETTERS) + 1)

    def forward(self, x: Float[Tensor, "B L C"]) -> tuple[Tensor, Tensor, Tensor]:
        x = F.layer_norm(x.float(), (x.shape[-1],))
        return self.names(x), self.colours(x), self.letters(x)


class FlowObjective:
    """Trains a `Flux` with its T5 and CLIP encoders on latents of storybook scenes."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config, self.model, self.data = config, config.model, config.data
        self.device = torch.device(config.device)
        self.world = world_of(config.data)
        self.answers = survey(self.world)
        self.tokenizer = words.build(storybook.vocabulary(self.world))
        self.t5, self.clip = text_encoders(config.model, self.tokenizer)
        self.flux = transformer(config.model)
        if self.device.type == "cpu":
            self.flux.attend = ATTENTION["matmul"]
        self.answer = Answer(config.model.hidden, len(self.answers.names), len(self.answers.colours))
        self.weights = WEIGHTS | config.weights
        load_average(self._all(), config.model.start)
        for name in config.model.frozen:
            self._all()[name].requires_grad_(False)
        for part in self._all().values():
            part.to(self.device)
        self.autoencoder = autoencoder(config.model)
        self.pool = Pool(Path(config.out).parent / "latents", config.data, config.model)
        self.side = config.data.size // self.autoencoder.shape.factor // 2
        self.ids = tokens.image_ids(self.side, self.side).to(self.device)
        self.text_ids = tokens.text_ids(config.model.text_tokens).to(self.device)
        self._middle: Tensor | None = None
        self._opened = False
        middle = self.flux.single_blocks[len(self.flux.single_blocks) // 2]
        middle.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: tuple[Any, ...], out: Tensor) -> None:
        self._middle = out

    def _all(self) -> dict[str, nn.Module]:
        return {"transformer": self.flux, "t5": self.t5, "clip": self.clip, "answer": self.answer}

    def modules(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self._all().items() if any(p.requires_grad for p in part.parameters())}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        elsewhere = any(part in name for part in (".lin.", "adaLN", "relative"))
        return parameter.ndim == 2 and ("block" in name or ".layers." in name) and not elsewhere

    def pace(self, name: str) -> float:
        return pace(name, self.t5.shape)

    def meta(self) -> dict[str, Any]:
        return {"latent": {"scale": self.autoencoder.shape.scale, "shift": self.autoencoder.shape.shift}}

    def loss(self, step: int, share: slice) -> dict[str, Tensor]:
        if not self._opened:
            self.pool.open(fill=share.start == 0)
            self._opened = True
        batch = self.config.batch
        rng = draw(self.config.seed, step)
        numbers = torch.randint(self.pool.known(step, self.config.steps), (batch,), generator=rng)
        sigma = stratified(batch, rng, SIGMA_MEAN)
        noise_ = torch.randn((batch, self.side**2, 4 * self.autoencoder.shape.latent), generator=rng)
        dropped = torch.rand(batch, generator=rng) < self.data.drop
        scenes = [nth(self.world, int(number)) for number in numbers[share]]
        prompts = [
            "" if drop else caption(scene, draw(self.config.seed, step, 1, share.start + row))
            for row, (scene, drop) in enumerate(zip(scenes, dropped[share], strict=True))
        ]
        x = tokens.pack(self.pool.take(numbers[share]))
        x, noise_, sigma = (part.to(self.device) for part in (x, noise_[share], sigma[share]))
        return self._terms(x, noise_, sigma, prompts, scenes)

    def _terms(
        self, x: Tensor, noise_: Tensor, sigma: Tensor, prompts: list[str], scenes: list[storybook.Scene]
    ) -> dict[str, Tensor]:
        at = sigma[:, None, None]
        plain = torch.full_like(sigma, PLAIN_GUIDANCE)
        v = self.velocity((1 - at) * x + at * noise_, sigma, *self.read(prompts), plain)
        assert self._middle is not None, "the block in the middle was not run"
        names, colours, letters = self.answer(self._middle[:, -x.shape[1] :])
        grid = torch.stack([self.answers.grid(scene, self.side) for scene in scenes]).to(self.device)
        spelt = torch.stack([self.answers.letters(scene, self.side) for scene in scenes]).to(self.device)
        terms = {
            "flow": F.mse_loss(v.float(), noise_ - x),
            "names": F.cross_entropy(names.flatten(0, 1), grid[:, 0].flatten()),
            "colours": F.cross_entropy(colours.flatten(0, 1), grid[:, 1].flatten()),
            "letters": F.cross_entropy(letters.flatten(0, 1), spelt.flatten()),
        }
        terms["loss"] = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return terms

    def read(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """The prompts as (txt, pooled)."""
        ids = torch.tensor(words.encode(self.tokenizer, prompts, self.model.text_tokens), device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            return self.t5(ids), self.clip(ids)[1]

    def velocity(
        self, x: Tensor, sigma: Tensor, txt: Tensor, pooled: Tensor, guidance: Tensor, *, flux: Flux | None = None
    ) -> Tensor:
        """The velocity at packed `x` (B L C), `sigma` (B,) and `guidance` (B,), by `flux` or the one in training."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            out: Tensor = (flux or self.flux)(x, self.ids, txt, self.text_ids, sigma, pooled, guidance)
        return out.float()

    def validate(self) -> dict[str, float]:
        """The loss at fixed sigmas on held-out scenes, with fixed noise."""
        scenes = [nth(self.world, i, held_out=True) for i in range(VALIDATION_SCENES)]
        x = tokens.pack(self._held_out()).to(self.device)
        noise_ = torch.randn(x.shape, generator=draw(self.config.seed, -1)).to(self.device)
        figures: dict[str, float] = {}
        for level in VALIDATION_SIGMAS:
            sigma = torch.full((len(scenes),), level, device=self.device)
            terms = self._terms(x, noise_, sigma, [scene.caption for scene in scenes], scenes)
            figures |= {f"{name}@{level}": round(float(terms[name]), 5) for name in JUDGED if name in terms}
        return figures

    def _held_out(self) -> Tensor:
        if not hasattr(self, "_kept"):
            self._kept = encode(self.autoencoder, self.world, self.data.size, range(VALIDATION_SCENES), held_out=True)
        return self._kept

    def sheet(self) -> Image:
        """Pictures of held-out captions, with true guidance."""
        scenes = [nth(self.world, i, held_out=True) for i in range(SHEET_SCENES)]
        pictures = self.sample([scene.caption for scene in scenes], SHEET_STEPS, cfg=SHEET_CFG)
        return storybook.sheet(pictures, [scene.caption for scene in scenes], 8)

    def sample(
        self, prompts: list[str], steps: int, *, cfg: float = 1.0, guidance: float = PLAIN_GUIDANCE
    ) -> list[Image]:
        """Pictures of prompts by the Euler sampler, from fixed noise."""
        text, empty = self.read(prompts), self.read([""] * len(prompts))
        told = torch.full((len(prompts),), guidance, device=self.device)
        shape = (len(prompts), self.side**2, 4 * self.autoencoder.shape.latent)

        def guided(state: Tensor, level: float) -> Tensor:
            sigma = torch.full_like(told, level)
            v = self.velocity(state, sigma, *text, told)
            if cfg == 1:
                return v
            without = self.velocity(state, sigma, *empty, told)
            return without + cfg * (v - without)

        x = torch.randn(shape, generator=draw(0, 0)).to(self.device)
        for step in SAMPLERS["euler"](guided, x, SCHEDULES["shifted"](steps, self.side**2, DEV_SHIFT), _no_noise):
            x = step.x
        latent = tokens.unpack(x.cpu(), self.side, self.side)
        return to_images(unit(torch.cat([self.autoencoder.decode(part) for part in torch.split(latent, 8)])))


def _no_noise() -> Tensor:
    raise AssertionError("the Euler sampler draws no noise on the way")


def stratified(count: int, rng: torch.Generator, mean: float) -> Float[Tensor, " count"]:
    """Logit-normal sigmas, and `FLAT` of them even, one from each of `count` equal shares: less noise in the loss."""
    share = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
    rest = (share - FLAT) / (1 - FLAT)
    normal = math.sqrt(2) * torch.erfinv(2 * rest.clamp(1e-4, 1 - 1e-4) - 1)
    return torch.where(share < FLAT, share / FLAT, torch.sigmoid(mean + normal))
