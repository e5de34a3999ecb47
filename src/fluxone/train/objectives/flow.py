"""Flow matching: the velocity from noise to picture, learnt along straight lines.

    x(sigma) = (1 - sigma) * picture + sigma * noise        velocity = noise - picture

The transformer and, unless they are frozen, its text encoders learn together. On the way the middle of the
network is also asked which thing, colour and letter is at each token (the storybook world knows): what REPA
does with a pretrained eye, done with ground truth. The question's small layers are not shipped.

Source: Lipman et al. 2023; Esser et al. 2024 (logit-normal sigma); Yu et al. 2025, "REPA" (the auxiliary term).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL.Image import Image
from torch import Tensor, nn

from fluxone import storybook
from fluxone.errors import pick
from fluxone.lora.load import load_lora
from fluxone.nn import tokens
from fluxone.nn.attention import ATTENTION
from fluxone.nn.rope import Rotation
from fluxone.nn.transformer import Flux, Modulation, streams
from fluxone.pixels import to_images, unit
from fluxone.sampling.samplers import SAMPLERS
from fluxone.sampling.schedule import DEV_SHIFT, SCHEDULES
from fluxone.storybook import Scene
from fluxone.train import tokenizer as words
from fluxone.train.config import TrainConfig
from fluxone.train.data.answers import LETTERS, survey
from fluxone.train.data.bank import Bank
from fluxone.train.data.batch import Batch
from fluxone.train.data.scenes import draw, nth, world_of
from fluxone.train.data.tasks import TASKS, Material, Rows
from fluxone.train.export import autoencoder, load_average
from fluxone.train.lowrank import LowRankAdapters
from fluxone.train.parts import caption, pace, text_encoders, transformer

WEIGHTS = {"flow": 1.0, "names": 0.05, "colours": 0.05, "letters": 1.0, "inked": 2.0, "coloured": 1.0, "changed": 1.0}
# The last three are no terms, but what a token that shows a letter, or a thing of a colour, or what the given picture
# does not, weighs in the velocity's own loss: few cells show a letter, and where a picture is edited most of it stays
CHANGED = 0.3  # root mean square of a token's change, in latents that spread by about 1: less is the encoder's
PLAIN_GUIDANCE = 1.0  # what the embedding is told while guidance is not distilled yet
FLAT = 0.125  # share of sigmas drawn evenly: the logit-normal law hardly ever visits the first step's
VALIDATION_SCENES = 64
ADAPTERS = "lora"  # the part of a checkpoint that holds them
ASKED = ("names", "colours", "letters")  # in the order of `Batch.shown`
JUDGED = ("flow", "names", "letters", "words")  # terms that validation tells
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
    """Trains a `Flux`, and its T5 and CLIP encoders unless they are frozen, on latents of storybook scenes.

    Args:
        bank: where samples come from; None: from a pool on disk, or a bank of this run alone, as the recipe says.
    """

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config, self.model, self.data = config, config.model, config.data
        self.device = torch.device(config.device)
        self.world = world_of(config.data)
        self.answers = survey(self.world)
        self.tokenizer = words.build(storybook.vocabulary(self.world))
        self.t5, self.clip = text_encoders(config.model, self.tokenizer)
        self.flux = transformer(config.model)
        self.flux.attend = ATTENTION["matmul" if self.device.type == "cpu" else "sdpa"]
        self.adapters: LowRankAdapters | None = None
        self.answer = Answer(config.model.hidden, len(self.answers.names), len(self.answers.colours))
        self.weights = WEIGHTS | config.weights
        if config.model.rank:
            self.adapters = LowRankAdapters(self.flux, config.model.rank, whole=config.model.whole)
            if config.model.adapters:
                self.adapters.take(load_lora(config.model.adapters), self.flux)
        load_average(self._all(), config.model.start, config.model.frozen)
        for name in config.model.frozen:
            self._all()[name].requires_grad_(False)
        for part in self._all().values():
            part.to(self.device)
        self.autoencoder = autoencoder(config.model).to(self.device)
        self.task = pick(TASKS, config.data.task, "task")
        self.bank = bank
        self.material = Material(config, self.autoencoder, self.tokenizer, self.answers)
        self.side = self.material.side
        self.empty = torch.tensor(words.encode(self.tokenizer, [""], config.model.text_tokens)[0], device=self.device)
        self._middle: Tensor | None = None
        self.flux.trunk = self._watched
        if config.compile:
            compiled(self.flux, self.device)

    def _watched(self, model: Flux, img: Tensor, txt: Tensor, modulation: Modulation, pe: Rotation) -> Tensor:
        """The trunk, which keeps what the block in the middle of the single ones says of the picture."""
        middle = len(model.double_blocks) + len(model.single_blocks) // 2
        for place, out in enumerate(streams(model, img, txt, modulation, pe)):
            img = out
            if place == middle:
                self._middle = out
        return img

    def _all(self) -> dict[str, nn.Module]:
        parts = {"transformer": self.flux, "t5": self.t5, "clip": self.clip, "answer": self.answer}
        return parts if self.adapters is None else parts | {ADAPTERS: self.adapters}

    def modules(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self._all().items() if any(p.requires_grad for p in part.parameters())}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        elsewhere = any(part in name for part in (".lin.", "adaLN", "relative", ".down", ".up"))
        return parameter.ndim == 2 and ("block" in name or ".layers." in name) and not elsewhere

    def pace(self, name: str) -> float:
        return pace(name, self.t5.shape)

    def meta(self) -> dict[str, Any]:
        return {"latent": {"scale": self.autoencoder.shape.scale, "shift": self.autoencoder.shape.shift}}

    def loss(self, step: int, share: slice) -> dict[str, Tensor]:
        drawn = self._from_pool(step, share) if self.bank is None else self._from_bank(self.bank, step)
        return self._terms(*drawn, draw(self.config.seed, step, 4, share.start))

    def _from_pool(self, step: int, share: slice) -> tuple[Batch, Tensor, Tensor]:
        """This process' samples of a step, with noise and noise levels that do not depend on how many processes run."""
        count = self.config.batch
        rng = draw(self.config.seed, step)
        numbers = torch.randint(self.material.known(step), (count,), generator=rng)
        sigma = stratified(count, rng, self.config.sigma_mean)
        noise_ = torch.randn((count, self.side**2, 4 * self.autoencoder.shape.latent), generator=rng)
        dropped = (torch.rand(count, generator=rng) < self.data.drop)[share]
        batch = self.task(self.material, Rows(numbers=numbers[share].tolist(), step=step, first=share.start))
        batch = batch.to(self.device).without_words(dropped, self.empty)
        return batch, noise_[share].to(self.device), sigma[share].to(self.device)

    def _from_bank(self, bank: Bank, step: int) -> tuple[Batch, Tensor, Tensor]:
        """A step's samples, all made on the device."""
        rng = draw(self.config.seed, step)
        batch = bank.batch(self.data.task, self.side, self.config.batch, rng)
        count = len(batch.x)
        dropped = torch.rand(count, generator=rng) < self.data.drop
        sigma = stratified(count, rng, self.config.sigma_mean).to(self.device)
        return batch.without_words(dropped, self.empty), torch.randn_like(batch.x), sigma

    def _fresh(self, step: int, share: slice) -> tuple[list[Scene], list[str]]:
        """Scenes that no step had before, and a caption each."""
        rows = range(self.config.batch)[share]
        scenes = [nth(self.world, step * self.config.batch + row) for row in rows]
        return scenes, [caption(s, draw(self.config.seed, step, 1, row)) for s, row in zip(scenes, rows, strict=True)]

    def _noise(self, *place: int) -> Tensor:
        """The noise of one row of a step, whoever draws it."""
        shape = (self.side**2, 4 * self.autoencoder.shape.latent)
        return torch.randn(shape, generator=draw(self.config.seed, 2, *place))

    def _terms(self, batch: Batch, noise_: Tensor, sigma: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """The loss terms at these noise levels; `rng` is for what an objective draws besides."""
        plain = torch.full_like(sigma, PLAIN_GUIDANCE)
        state = torch.lerp(batch.x, noise_, sigma[:, None, None])
        v = self.velocity(state, sigma, *self.read(batch.ids), plain, given=batch)
        assert self._middle is not None, "the block in the middle was not run"
        said = self.answer(self._middle[:, : batch.x.shape[1]])
        terms = {"flow": self.error(v, noise_ - batch.x, batch)}
        for place, (name, found) in enumerate(zip(ASKED, said, strict=True)):
            terms[name] = F.cross_entropy(found.flatten(0, 1), batch.shown[:, place].flatten().long())
        terms["loss"] = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return terms

    def error(self, v: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The mean squared error of a velocity; tokens count by `weights`."""
        return drawn_error(v, target, batch.shown, self.weights, changed(batch))

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The words (numbers of tokens, one row or B) as (txt, pooled)."""
        ids = ids.view(-1, ids.shape[-1])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            return self.t5(ids), self.clip(ids)[1]

    def velocity(
        self,
        x: Tensor,
        sigma: Tensor,
        txt: Tensor,
        pooled: Tensor,
        guidance: Tensor,
        *,
        given: Batch | None = None,
        flux: Flux | None = None,
    ) -> Tensor:
        """The velocity at packed `x` (B L C), `sigma` (B,) and `guidance` (B,).

        Args:
            given: the pictures to draw from; its latents to draw are not looked at.
            flux: who is asked; None is the network in training.
        """
        side = math.isqrt(x.shape[1])
        img, ids = x, tokens.image_ids(side, side).to(self.device)
        if given is not None and given.channels is not None:
            img = torch.cat((img, given.channels), dim=-1)
        if given is not None and given.reference is not None:
            assert given.places is not None, "a reference stands somewhere"
            img, ids = torch.cat((img, given.reference), dim=1), torch.cat((ids, given.places.to(ids)))
        text_ids = tokens.text_ids(txt.shape[1]).to(self.device)
        if self.device.type != "cpu" and self.config.autocast:  # there the two streams are read and written most
            img, txt = img.bfloat16(), txt.bfloat16()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            out: Tensor = (flux or self.flux)(img, ids, txt, text_ids, sigma, pooled, guidance)
        return out[:, : x.shape[1]].float()

    def _validation(self, count: int) -> Batch:
        return self.task(self.material, Rows(numbers=list(range(count)), held_out=True)).to(self.device)

    def validate(self) -> dict[str, float]:
        """The loss at fixed sigmas on held-out scenes, with fixed noise."""
        batch = self._validation(VALIDATION_SCENES)
        noise_ = torch.randn(batch.x.shape, generator=draw(self.config.seed, -1)).to(self.device)
        figures: dict[str, float] = {}
        for level in VALIDATION_SIGMAS:
            sigma = torch.full((VALIDATION_SCENES,), level, device=self.device)
            terms = self._terms(batch, noise_, sigma, draw(self.config.seed, -2))
            figures |= {f"{name}@{level}": round(float(terms[name]), 5) for name in JUDGED if name in terms}
        return figures

    def sheet(self) -> Image:
        """Pictures of held-out prompts, with true guidance, or with the guidance that the network is told."""
        if self.adapters is None:
            return self._sheet(SHEET_STEPS, cfg=SHEET_CFG)
        return self._sheet(SHEET_STEPS, guidance=SHEET_CFG)  # beside a finished network, which has learnt its guidance

    def _sheet(self, steps: int, *, cfg: float = 1.0, guidance: float = PLAIN_GUIDANCE) -> Image:
        batch = self._validation(SHEET_SCENES)
        drawn = self.sample(batch, steps, cfg=cfg, guidance=guidance)
        if batch.reference is None:
            return storybook.sheet(drawn, batch.prompts, 8)
        given = self._pictures(batch.reference[:, : self.side**2])
        return self._pairs(given, drawn, [text for prompt in batch.prompts for text in ("given", prompt)])

    def _pairs(self, given: list[Image], drawn: list[Image], texts: list[str]) -> Image:
        pairs = [picture for pair in zip(given, drawn, strict=True) for picture in pair]
        return storybook.sheet(pairs, texts, 8)

    def sample(self, batch: Batch, steps: int, *, cfg: float = 1.0, guidance: float = PLAIN_GUIDANCE) -> list[Image]:
        """Pictures of a batch's prompts by the Euler sampler, from fixed noise."""
        return self._walked(batch, self.read(batch.ids), steps, cfg=cfg, guidance=guidance)

    def _walked(
        self, batch: Batch, text: tuple[Tensor, Tensor], steps: int, *, cfg: float = 1.0, guidance: float
    ) -> list[Image]:
        told = torch.full((len(batch.x),), guidance, device=self.device)

        def guided(state: Tensor, level: float) -> Tensor:
            sigma = torch.full_like(told, level)
            v = self.velocity(state, sigma, *text, told, given=batch)
            if cfg == 1:
                return v
            empty = self.read(self.empty.expand_as(batch.ids))
            without = self.velocity(state, sigma, *empty, told, given=batch)
            return without + cfg * (v - without)

        x = torch.randn(batch.x.shape, generator=draw(0, 0)).to(self.device)
        for step in SAMPLERS["euler"](guided, x, self.schedule(steps), _no_noise):
            x = step.x
        return self._pictures(x)

    def schedule(self, steps: int) -> list[float]:
        """The noise levels that sheets are sampled at."""
        return SCHEDULES["shifted"](steps, self.side**2, DEV_SHIFT)

    def _pictures(self, x: Tensor) -> list[Image]:
        latent = tokens.unpack(x, self.side, self.side)
        return to_images(unit(torch.cat([self.autoencoder.decode(part) for part in torch.split(latent, 8)])))


def _no_noise() -> Tensor:
    raise AssertionError("the Euler sampler draws no noise on the way")


def changed(batch: Batch) -> Bool[Tensor, "B L"] | None:
    """The tokens that are not as in the reference; None where there is not one of the picture's size."""
    if batch.reference is None or batch.reference.shape != batch.x.shape:
        return None
    return (batch.x - batch.reference).square().mean(-1).sqrt() > CHANGED


def drawn_error(
    v: Tensor, target: Tensor, shown: Tensor, weights: Mapping[str, float], new: Tensor | None = None
) -> Tensor:
    """The mean squared error of a velocity; tokens that show a letter, something coloured or something new count by
    `weights`."""
    each = (v - target).square().mean(-1)
    weight = 1 + (weights["coloured"] - 1) * (shown[:, 1] > 0) + (weights["inked"] - 1) * (shown[:, 2] > 0)
    if new is not None:
        weight = weight + (weights["changed"] - 1) * new
    return (weight * each).sum() / weight.sum()


def compiled(flux: Flux, device: torch.device) -> None:
    """Have torch compile the blocks, one kind at a time: for any batch and number of tokens, or on a CPU for each that
    comes, because torch 2.13 cannot compile its bfloat16 products for shapes that are not known."""
    for block in (*flux.double_blocks, *flux.single_blocks):
        block.compile(dynamic=device.type != "cpu")


def stratified(count: int, rng: torch.Generator, mean: float) -> Float[Tensor, " count"]:
    """Logit-normal sigmas, and `FLAT` of them even, one from each of `count` equal shares: less noise in the loss."""
    share = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
    rest = (share - FLAT) / (1 - FLAT)
    normal = math.sqrt(2) * torch.erfinv(2 * rest.clamp(1e-4, 1 - 1e-4) - 1)
    return torch.where(share < FLAT, share / FLAT, torch.sigmoid(mean + normal))
