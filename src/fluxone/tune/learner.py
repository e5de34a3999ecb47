"""What a run minimises: the distance from the network's velocity to that from picture to noise, and from the base's.

    x(sigma) = (1 - sigma) picture + sigma noise      loss = mean (v(x, sigma, words) - (noise - picture))^2
    preserve:  mean (v(x, sigma, other words) - base's v(x, sigma, other words))^2

The network is told the plain guidance of 1: at any other the base's velocity is no velocity of the data, and what is
learnt would be to take guidance out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fluxone.nn.attention import ATTENTION
from fluxone.nn.tokens import text_ids
from fluxone.pipeline import Pipeline
from fluxone.tune.beside import Beside
from fluxone.tune.buckets import stream
from fluxone.tune.material import Batch, Material
from fluxone.tune.settings import Settings

BINS = 8  # of sigma, in the log
CHECK_SIGMAS = (0.15, 0.4, 0.65, 0.9)  # of the loss on pictures that are not trained on


@dataclass
class Tally:
    """Losses of samples, summed: all, by sigma, and what is preserved."""

    count: int = 0
    flow: float = 0.0
    kept: float = 0.0
    kept_count: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * BINS)
    counts: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, sigma: Tensor, losses: Tensor) -> None:
        """Note these samples."""
        for level, loss in zip(sigma.tolist(), losses.tolist(), strict=True):
            place = min(int(level * BINS), BINS - 1)
            self.sums[place] += loss
            self.counts[place] += 1
            self.flow += loss
            self.count += 1


class Learner:
    """Losses of one network with its adapters.

    Args:
        other: caption -> the words with which the network stays what it was.
        priors: the base's own pictures, on which the network stays what it was.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        beside: Beside,
        material: Material,
        settings: Settings,
        *,
        others: dict[str, str] | None = None,
        other_prompts: Sequence[str] = (),
        priors: Material | None = None,
    ) -> None:
        self.pipeline, self.beside, self.material, self.settings = pipeline, beside, material, settings
        self.others, self.other_prompts, self.priors = others or {}, list(other_prompts), priors
        self.network = pipeline.transformer
        self.device = pipeline.on_device.device
        if self.device.type == "cpu":
            self.network.attend = ATTENTION["matmul"]  # trains faster than torch's flash kernel there

    def backward(self, step: int, places: slice, tally: Tally) -> None:
        """Add the gradients of these places of a step's batch, each sample's share of the whole batch's mean.

        Of processes that share a sample's tokens each computes the whole loss, and calls a part of it its own.
        """
        batch = self.material.batch(step, places).to(self.device)
        share = 1 / (self.settings.batch * self.settings.context)
        losses = self.losses(batch)
        tally.add(batch.sigma, losses.detach())
        (losses.sum() * share).backward()
        kept = self._kept(step, places, batch)
        if kept is not None:
            tally.kept += float(kept.detach().sum())
            tally.kept_count += len(kept)
            (kept.sum() * share * self.settings.preserve_weight).backward()

    def losses(self, batch: Batch) -> Tensor:
        """The loss of each sample."""
        return distance(self.velocity(batch), batch.target, batch.weight)

    def velocity(self, batch: Batch, *, state: Tensor | None = None, guidance: Tensor | None = None) -> Tensor:
        """The network's velocity of the picture's tokens, float32.

        Args:
            state: None is the batch's pictures, noised.
            guidance: (B,) None is the one that is trained with.
        """
        dtype = self.pipeline.dtype
        img = (batch.state if state is None else state).to(dtype)
        if batch.channels is not None:
            img = torch.cat((img, batch.channels.to(dtype)), dim=-1)
        if batch.reference is not None:
            img = torch.cat((img, batch.reference.to(dtype)), dim=1)
        plain = torch.full_like(batch.sigma, self.settings.guidance) if guidance is None else guidance
        told = plain if self.pipeline.variant.guided else None
        txt, pooled = batch.txt.to(dtype), batch.pooled.to(dtype)
        words = text_ids(txt.shape[1]).to(self.device)
        out: Tensor = self.network(img, batch.ids, txt, words, batch.sigma, pooled, told)
        return out[:, : batch.x.shape[1]].float()

    @torch.no_grad()
    def checked(self, material: Material) -> dict[str, float]:
        """The loss at fixed noise levels and noise, by level: of pictures that are not trained on."""
        found = {}
        for sigma in CHECK_SIGMAS:
            rows = [self.losses(material.fixed(i, sigma).to(self.device)) for i in range(len(material.items))]
            found[f"{sigma:g}"] = float(torch.cat(rows).mean()) if rows else 0.0
        return found

    def _kept(self, step: int, places: slice, batch: Batch) -> Tensor | None:
        """How far the network is from the base with other words, by sample; None if nothing is asked now."""
        settings = self.settings
        if settings.preserve == "none" or settings.preserve_weight == 0:
            return None
        if torch.rand((), generator=stream(settings.seed, "preserve", step)) >= settings.preserve_share:
            return None
        if self.priors is not None:
            batch = self.priors.batch(step, places).to(self.device)
        else:
            batch = self.material.with_prompts(batch, self._words(step, batch)).to(self.device)
        with torch.no_grad(), self.beside.at(0):
            base = self.velocity(batch)
        return distance(self.velocity(batch), base, None)

    def _words(self, step: int, batch: Batch) -> list[str]:
        """The words that each sample is preserved with."""
        if not self.other_prompts:
            return [self.others.get(prompt, "") for prompt in batch.prompts]
        rng = stream(self.settings.seed, "others", step)
        picks = torch.randint(len(self.other_prompts), (len(batch.prompts),), generator=rng).tolist()
        return [self.other_prompts[i] for i in picks]


def distance(a: Tensor, b: Tensor, weight: Tensor | None) -> Tensor:
    """The mean square difference of each sample."""
    square = (a - b).square()
    return (square if weight is None else square * weight).flatten(1).mean(1)
