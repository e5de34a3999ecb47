"""From the network to the velocity that samplers walk by: inputs bound, guidance distilled or true.

    (sigma, guidance, pooled text) for all noise levels at once  --one batched pass-->  Tables
    velocity(x, sigma) = network(x, text, Tables at sigma)           (of several walks in one pass: `together`)
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
from fluxone.nn.controlnet import ControlNet
from fluxone.nn.inputs import Inputs
from fluxone.nn.mixing import attending
from fluxone.nn.rope import Rotation, rotation
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
def tabulate(
    model: Flux | ControlNet, inputs: Inputs, sigmas: Sequence[float], *, rounding: Rounding = EXACT
) -> Tables:
    """Compute the modulation at all `sigmas` in one batched pass."""
    batch, levels = inputs.txt.shape[0], len(sigmas)
    times = rounding.time(torch.tensor(sigmas, dtype=torch.float32, device=inputs.txt.device))
    guidance = None if inputs.guidance is None else inputs.guidance.repeat(levels)
    pooled = inputs.pooled.repeat(levels, 1)
    vec = model.vector(times.repeat_interleave(batch), guidance, pooled, rounding=rounding.dtype)
    rows = {sigma: slice(i * batch, (i + 1) * batch) for i, sigma in enumerate(sigmas)}
    return Tables(modulation=model.modulation(vec), rows=rows)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """All that the network is given but the state and the noise level.

    `inputs.channels` are concatenated to each token, `inputs.reference` after all tokens; the velocity is that of
    the first `L` tokens, in float32.
    """

    inputs: Inputs
    tables: Tables
    pe: Rotation

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal where pictures can be given to the network side by side; positions are compared by `together`."""
        inputs = self.inputs
        tensors = (inputs.txt, inputs.ids, inputs.channels, inputs.reference, inputs.more)
        shapes = (None if tensor is None else tensor.shape[1:] for tensor in tensors)
        return (inputs.txt.dtype, id(inputs.mixing), *shapes)


def bind(model: Flux, inputs: Inputs, tables: Tables) -> Bound:
    """Compute the rotation of all positions, which do not change along a walk."""
    ids = [tokens.text_ids(inputs.words.shape[1]), inputs.ids.cpu()]
    if inputs.reference_ids is not None:
        ids.append(inputs.reference_ids.cpu())
    # Angles need float64, which not every device has; and so they are the same on all of them.
    pe = rotation(torch.cat(ids), model.shape.axes, model.shape.theta).to(inputs.txt.device)
    return Bound(inputs=inputs, tables=tables, pe=pe)


def velocity(model: Flux, inputs: Inputs, tables: Tables) -> Velocity:
    """The velocity of one walk."""
    bound = bind(model, inputs, tables)

    def at(x: State, sigma: float) -> State:
        return together(model, [(bound, x, sigma)])[0]

    return at


@torch.inference_mode()
def together(model: Flux, asked: Sequence[tuple[Bound, State, float]]) -> list[State]:
    """The velocities of several walks, each at a noise level of its own, in one pass of the network.

    Their pictures are of one size and their `Bound.shape` and positions equal, which the caller sees to.
    """
    bounds = [bound for bound, _, _ in asked]
    states = [x for _, x, _ in asked]
    img = _cat([x.to(bound.inputs.txt.dtype) for bound, x, _ in asked])
    channels = [bound.inputs.channels for bound in bounds if bound.inputs.channels is not None]
    reference = [bound.inputs.reference for bound in bounds if bound.inputs.reference is not None]
    if channels:
        img = torch.cat((img, _cat(channels)), dim=-1)
    if reference:
        img = torch.cat((img, _cat(reference)), dim=1)
    rows = [bound.tables.at(sigma) for bound, _, sigma in asked]
    txt, mixing = _cat([bound.inputs.words for bound in bounds]), bounds[0].inputs.mixing
    with attending(model, mixing, asked[0][2], txt.shape[1] + img.shape[1], img.device):
        out = model.predict(img, txt, bounds[0].pe, _side_by_side(rows))
    parts = out[:, : states[0].shape[1]].split([len(x) for x in states])
    return [part.to(x.dtype) for part, x in zip(parts, states, strict=True)]


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _side_by_side(rows: Sequence[Modulation]) -> Modulation:
    if len(rows) == 1:
        return rows[0]
    return Modulation(
        double=tuple(
            (_cat([img for img, _ in pairs]), _cat([txt for _, txt in pairs]))
            for pairs in zip(*(each.double for each in rows), strict=True)
        ),
        single=tuple(_cat(each) for each in zip(*(each.single for each in rows), strict=True)),
        final=_cat([each.final for each in rows]),
    )


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
