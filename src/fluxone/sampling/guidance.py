"""From the network to the velocity that samplers walk by: inputs bound, guidance distilled or true.

    (sigma, guidance, pooled text) for all noise levels at once  --one batched pass-->  Tables
    velocity(x, sigma) = network(x, text, Tables at sigma)
    with cfg:  negative + cfg * (positive - negative), inside its interval of noise levels

Modulation depends on the noise level, the guidance and the pooled text, never on the picture: `tabulate` computes
it for a whole schedule, after which its weights are not needed any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.nn import tokens
from fluxone.nn.inputs import Inputs
from fluxone.nn.rope import rotation
from fluxone.nn.transformer import Flux, Modulation
from fluxone.sampling.samplers import State, Velocity


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Whose rounding of the noise level and the guidance to follow.

    Attributes:
        dtype: in which noise level, guidance and their products with 1000 are rounded; None is float32.
        thousandths: whether the noise level is first multiplied by 1000, rounded, and divided by 1000, as diffusers
            does on its way from scheduler to network.
    """

    dtype: torch.dtype | None = None
    thousandths: bool = False

    def time(self, sigmas: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The noise levels as the network is told them."""
        if self.dtype is None or not self.thousandths:
            return sigmas
        return ((sigmas * 1000).to(self.dtype) / 1000).float()


EXACT = Rounding()


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The modulation of a batch at every noise level of a walk."""

    modulation: Modulation  # rows: level after level, each with all samples of the batch
    rows: dict[float, slice]

    def at(self, sigma: float) -> Modulation:
        """The rows of one noise level."""
        return self.modulation.rows(self.rows[sigma])


@torch.inference_mode()
def tabulate(model: Flux, inputs: Inputs, sigmas: Sequence[float], *, rounding: Rounding = EXACT) -> Tables:
    """Compute the modulation at all `sigmas` in one batched pass."""
    batch, levels = inputs.txt.shape[0], len(sigmas)
    times = rounding.time(torch.tensor(sigmas, dtype=torch.float32, device=inputs.txt.device))
    guidance = None if inputs.guidance is None else inputs.guidance.repeat(levels)
    pooled = inputs.pooled.repeat(levels, 1)
    vec = model.vector(times.repeat_interleave(batch), guidance, pooled, rounding=rounding.dtype)
    rows = {sigma: slice(i * batch, (i + 1) * batch) for i, sigma in enumerate(sigmas)}
    return Tables(modulation=model.modulation(vec), rows=rows)


def velocity(model: Flux, inputs: Inputs, tables: Tables) -> Velocity:
    """Bind everything but the state and the noise level.

    `inputs.channels` are concatenated to each token, `inputs.reference` after all tokens; the velocity is that of
    the first `L` tokens, in float32.
    """
    ids = [tokens.text_ids(inputs.txt.shape[1]), inputs.ids.cpu()]
    if inputs.reference_ids is not None:
        ids.append(inputs.reference_ids.cpu())
    # Angles need float64, which not every device has; and so they are the same on all of them.
    pe = rotation(torch.cat(ids), model.shape.axes, model.shape.theta).to(inputs.txt.device)

    @torch.inference_mode()
    def at(x: State, sigma: float) -> State:
        img = x.to(inputs.txt.dtype)
        if inputs.channels is not None:
            img = torch.cat((img, inputs.channels), dim=-1)
        if inputs.reference is not None:
            img = torch.cat((img, inputs.reference), dim=1)
        out = model.predict(img, inputs.txt, pe, tables.at(sigma))
        return out[:, : x.shape[1]].to(x.dtype)

    return at


def true_guidance(
    positive: Velocity, negative: Velocity, *, scale: float, sigmas: Sequence[float], interval: tuple[float, float]
) -> Velocity:
    """Classifier-free guidance in two passes, within `interval`: shares of the schedule, 0 noise and 1 picture."""
    high, low = (level_at(sigmas, share) for share in interval)

    def at(x: State, sigma: float) -> State:
        v = positive(x, sigma)
        if not low < sigma <= high:
            return v
        away = negative(x, sigma)
        return away + scale * (v - away)

    return at


def level_at(sigmas: Sequence[float], share: float) -> float:
    """The noise level after `share` of a schedule's steps; between steps, on the straight line."""
    place = share * (len(sigmas) - 1)
    i = min(int(place), len(sigmas) - 2)
    return sigmas[i] + (place - i) * (sigmas[i + 1] - sigmas[i])
