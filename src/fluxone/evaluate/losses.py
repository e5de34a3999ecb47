"""What the judge's networks should have answered, made from `answers.targets` on the device, and how far off they are.

    heat     places -> how sure each cell should be that a middle is there, and whose
    lines    answers -> windows for the reader, and the letter of each of its columns
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from fluxone.evaluate.network import COLUMNS, GRID, window
from fluxone.evaluate.wear import Moved

NEAR, NEAR_LINE = (0.9, 0.9), (1.4, 0.8)  # cells across and down: how far around a middle the looker is sure of it
LEAST = 0.3  # how near a cell must be to answer for a thing's name
READ = 4  # one line is read for so many pictures
JITTER = (0.3, 0.12, 0.15)  # em: how far a line's window is off, across and down; and by which share its size is
SMALL = 1e-3


def heat(
    places: Float[Tensor, "B n 4"], there: Bool[Tensor, "B n"], size: int, near: tuple[float, float]
) -> tuple[Float[Tensor, "B h w"], Int[Tensor, "B h w"]]:
    """Of each of size x size cells how sure it is that a middle is there (1 in the middle's own cell), and whose."""
    centres = (torch.arange(size, device=places.device) + 0.5) / size
    across = ((centres - places[..., 0, None]) * size)[:, :, None]
    down = ((centres - places[..., 1, None]) * size)[..., None]
    known = there[..., None, None]
    here, which = (torch.exp(-(across**2 / near[0] ** 2 + down**2 / near[1] ** 2) / 2) * known).max(1)
    own = ((across.abs() <= 0.5) & (down.abs() <= 0.5) & known).any(1)
    return torch.where(own, 1.0, here), which


def focal(logits: Float[Tensor, "B h w"], sure: Float[Tensor, "B h w"]) -> Tensor:
    """Cross entropy of the middles, gentle beside them. Source: Law and Deng, "CornerNet" (2018), equation 1."""
    found, there = torch.sigmoid(logits), sure == 1
    hit = -((1 - found) ** 2) * F.logsigmoid(logits) * there
    miss = -((1 - sure) ** 4) * found**2 * F.logsigmoid(-logits) * ~there
    return (hit + miss).sum() / there.sum().clamp(min=1)


def off(
    told: Float[Tensor, "B 4 h w"],
    places: Float[Tensor, "B n 4"],
    sure: Float[Tensor, "B h w"],
    which: Int[Tensor, "B h w"],
) -> Tensor:
    """How far the places and sizes that the cells near a middle tell are from its own."""
    size = sure.shape[-1]
    own = places.gather(1, which.flatten(1)[..., None].expand(-1, -1, 4)).unflatten(1, (size, size))
    centres = (torch.arange(size, device=told.device) + 0.5) / size
    middle = torch.stack([own[..., 0] - centres, own[..., 1] - centres[:, None]], 1) * size
    true = torch.cat([middle, own[..., 2:].clamp(min=SMALL).log().permute(0, 3, 1, 2)], 1)
    weight = sure * (sure > LEAST)
    return (F.smooth_l1_loss(told, true, reduction="none").sum(1) * weight).sum() / weight.sum().clamp(min=1)


def things(
    parts: Sequence[Tensor], answers: dict[str, Tensor], places: Float[Tensor, "B n 4"]
) -> dict[str, Tensor]:
    """The losses of what the looker says of things: middles, places, names, colours, and a person's details."""
    middle, place, *words = parts
    sure, which = heat(places, answers["names"] >= 0, GRID, NEAR)
    weight = sure * (sure > LEAST)
    flat = which.flatten(1)
    true = torch.cat([answers["names"][..., None], answers["colours"][..., None], answers["details"]], -1).long()
    own = true.gather(1, flat[..., None].expand(-1, -1, true.shape[-1])).unflatten(1, (GRID, GRID))
    told = [_told(logits, own[..., n], weight) for n, logits in enumerate(words)]
    return {
        "middles": focal(middle[:, 0], sure),
        "place": off(place, places, sure, which),
        "names": told[0],
        "colours": told[1],
        "details": torch.stack(told[2:]).mean(),
    }


def _told(logits: Float[Tensor, "B c h w"], true: Int[Tensor, "B h w"], weight: Float[Tensor, "B h w"]) -> Tensor:
    known = weight * (true >= 0)
    return (F.cross_entropy(logits, true.clamp(min=0), reduction="none") * known).sum() / known.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Parts of pictures for the reader: of which picture, where, and whether there is a line at all."""

    picture: Int[Tensor, " K"]
    box: Float[Tensor, "K 4"]
    real: Bool[Tensor, " K"]


def lines(
    answers: dict[str, Tensor], moved: Moved, rng: torch.Generator | None
) -> tuple[Windows, Int[Tensor, "K columns"]]:
    """Some of the lines of text, and the letter that each column of their windows shows.

    Args:
        rng: chooses the lines and puts their windows a little off; without it they are the first ones, and exact.
    """
    places = moved.place(answers["lines"]).flatten(0, 1)
    there = answers["lines"][..., 3].flatten() > 0
    count, each, device = len(answers["lines"]), answers["lines"].shape[1], places.device
    chance = torch.linspace(1, 0.5, len(there), device=device)
    if rng:
        chance = torch.rand(len(there), generator=rng, device=device)
    picked = (chance * there).topk(max(1, count // READ)).indices
    letters, ends = (answers[name].flatten(0, 1)[picked] for name in ("letters", "ends"))
    line = places[picked]
    line = torch.where(there[picked, None], line, torch.tensor([0.5, 0.5, 0.4, 0.1], device=device))
    box = window(_jittered(line, rng) if rng else line)
    at = box[:, :1] + (torch.arange(COLUMNS, device=device) + 0.5) / COLUMNS * (box[:, 2:3] - box[:, :1])
    at = (at - line[:, :1] + line[:, 2:3] / 2) / line[:, 3:]  # em from the line's left edge
    wide = (box[:, 2:3] - box[:, :1]) / line[:, 3:] / COLUMNS
    first, last = ends[:, :-1], ends[:, 1:]
    reach = torch.maximum((last - first) / 4, wide / 2)[..., None]
    shown = (at[:, None] - ((first + last) / 2)[..., None]).abs() <= reach
    columns = (shown * letters[..., None].long()).amax(1)
    return Windows(picture=picked // each, box=box, real=there[picked]), columns


def _jittered(line: Float[Tensor, "K 4"], rng: torch.Generator) -> Float[Tensor, "K 4"]:
    x, y, width, em = line.unbind(1)
    across, down, size = (2 * torch.rand(3, len(line), generator=rng, device=line.device) - 1).unbind(0)
    times = 1 + JITTER[2] * size
    return torch.stack([x + JITTER[0] * across * em, y + JITTER[1] * down * em, width * times, em * times], 1)
