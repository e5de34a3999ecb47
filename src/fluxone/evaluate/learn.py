"""Trains the judge from rendered scenes: `python tools/train_judge.py FILE` does it from nothing.

The pictures are drawn once; every step sees them moved, scaled, softened and grained anew, because what a model draws
is softer than what the renderer draws, and not in quite the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fluxone.evaluate.network import COLUMNS, GRID, HIGH, LETTERS, WIDE, Looker, Reader, cut
from fluxone.evaluate.scenes import Shown, letters, sign_of
from fluxone.evaluate.truth import COLOURS, NAMES, STAGES
from fluxone.storybook.canvas import SPAN

BATCH = 32
WARM, FALL, CLIP = 15, 0.6, 5.0  # steps of rise, share of the steps over which the rates fall, gradient norm
SHIFT, SCALE = 0.07, 0.15  # how far, and by which share, a picture is moved and scaled
NEAR = 0.9  # cells: how far around a thing's middle the looker is sure that it is there
Batch = Float[Tensor, "B 3 H W"]
Tell = Callable[[int, float], None]  # of a step: its number and its loss
Move = Callable[[float], None]  # one step of an optimizer, at this share of its rates
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long to learn, from which seed, with which optimizer, and whom to tell."""

    steps: int
    seed: int
    optimizer: Callable[[nn.Module], Move]
    tell: Tell


def stacked(shown: Sequence[Shown]) -> Tensor:
    """The pictures as uint8 (N 3 H W)."""
    return torch.from_numpy(np.stack([one.picture for one in shown])).permute(0, 3, 1, 2).contiguous()


def worn(x: Batch, rng: torch.Generator) -> Batch:
    """Pictures (0..1) softened, grained and a little off in colour, each by another amount."""
    amount = torch.rand(5, len(x), 1, 1, 1, generator=rng)
    small = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    x = torch.lerp(x, small, amount[0] ** 2)
    x = torch.lerp(x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), amount[1] ** 2)
    x = x + 0.06 * amount[2] ** 2 * torch.randn(x.shape, generator=rng)
    tint = 0.06 * (torch.rand(len(x), 3, 1, 1, generator=rng) - 0.5)
    return ((x - 0.5) * (0.9 + 0.2 * amount[3]) + 0.5 + tint).clamp(0, 1)


def learn_to_look(shown: Sequence[Shown], course: Course, model: Looker | None = None) -> Looker:
    """A looker, new or the given one, after a course on these pictures."""
    torch.manual_seed(course.seed)
    rng = torch.Generator().manual_seed(course.seed)
    pictures, model = stacked(shown), model or Looker(len(NAMES), len(COLOURS), len(STAGES))
    stages = torch.tensor([STAGES.index(one.scene.stage) for one in shown])

    def loss(picked: Tensor) -> Tensor:
        x, scale, shift = _moved(pictures[picked], rng)
        heat, names, colours = answers([shown[i] for i in picked.tolist()], scale, shift)
        middle, name, colour, stage = model(worn(x, rng))
        known = heat.clamp(min=0) * (names >= 0)
        near = known.sum().clamp(min=1)
        return (
            _focal(middle, heat)
            + (F.cross_entropy(name, names.clamp(min=0), reduction="none") * known).sum() / near
            + (F.cross_entropy(colour, colours.clamp(min=0), reduction="none") * known).sum() / near
            + 0.2 * F.cross_entropy(stage, stages[picked])
        )

    return _descend(model, loss, len(shown), rng, course)


def learn_to_read(shown: Sequence[Shown], course: Course) -> Reader:
    """A reader, after a course on the signs of these pictures."""
    torch.manual_seed(course.seed)
    rng = torch.Generator().manual_seed(course.seed)
    pictures, model = stacked(shown), Reader()
    signs = [sign_of(one.scene) for one in shown]
    written = [letters(sign) for sign in signs]

    def loss(picked: Tensor) -> Tensor:
        count = len(picked)
        zoom = 1 + SCALE * (2 * torch.rand(count, generator=rng) - 1)
        shift = 0.03 * (2 * torch.rand(count, 2, generator=rng) - 1)
        middle = torch.tensor([[signs[i].x, signs[i].y] for i in picked.tolist()]) / SPAN + shift
        half = torch.stack([WIDE * zoom, HIGH * zoom], 1) / 2
        boxes = torch.cat([middle - half, middle + half], 1)
        letter = torch.stack([columns(written[i], box) for i, box in zip(picked.tolist(), boxes, strict=True)])
        logits = model(cut(worn(pictures[picked].float() / 255, rng), boxes))
        return F.cross_entropy(logits, letter)

    return _descend(model, loss, len(shown), rng, course)


def _descend(model: M, loss: Callable[[Tensor], Tensor], count: int, rng: torch.Generator, course: Course) -> M:
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # known to torch, not to its annotations
    move = course.optimizer(model)
    model.train()
    steps = course.steps
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.cat([order, torch.randperm(count, generator=rng)])
        picked, order = order[:BATCH], order[BATCH:]
        model.zero_grad()
        value = loss(picked)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        move(min(1.0, (step + 1) / WARM, (steps - step) / (steps * FALL)))
        course.tell(step, float(value.detach()))
    return model.eval()


def _moved(pictures: Tensor, rng: torch.Generator) -> tuple[Batch, Tensor, Tensor]:
    """Pictures (0..1) moved and scaled; a point p of the old one is at (p - shift) / scale of the new one."""
    count = len(pictures)
    scale = 1 + SCALE * (2 * torch.rand(count, 1, generator=rng) - 1)
    shift = SHIFT * (2 * torch.rand(count, 2, generator=rng) - 1) + (1 - scale) / 2
    rows = torch.zeros(count, 2, 3)
    rows[:, 0, 0] = rows[:, 1, 1] = scale[:, 0]
    rows[:, :, 2] = 2 * shift + scale - 1
    grid = F.affine_grid(rows, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures.float() / 255, grid, padding_mode="border", align_corners=False), scale, shift


def answers(shown: Sequence[Shown], scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each cell (B h w): how sure a thing's middle is there, and the nearest thing's name and colour, or -1."""
    shape = (len(shown), GRID, GRID)
    heat, names, colours = torch.zeros(shape), torch.full(shape, -1), torch.full(shape, -1)
    centres = torch.arange(GRID) + 0.5
    for i, one in enumerate(shown):
        for spot in one.spots:
            x, y = ((torch.tensor([spot.x, spot.y]) - shift[i]) / scale[i] * GRID).tolist()
            here = torch.exp(-((centres[None] - x) ** 2 + (centres[:, None] - y) ** 2) / (2 * NEAR**2))
            closer = (here > heat[i]) & (here > 0.3)
            names[i][closer], colours[i][closer] = NAMES.index(spot.name), COLOURS.index(spot.colour)
            heat[i] = torch.maximum(heat[i], here)
            if 0 <= x < GRID and 0 <= y < GRID:
                heat[i, int(y), int(x)] = 1.0
    return heat, names, colours


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Cross entropy of the middles, gentle beside them. Source: Law and Deng, "CornerNet" (2018), equation 1."""
    found = torch.sigmoid(logits)
    there = heat == 1
    hit = -((1 - found) ** 2) * F.logsigmoid(logits) * there
    miss = -((1 - heat) ** 4) * found**2 * F.logsigmoid(-logits) * ~there
    return (hit + miss).sum() / there.sum().clamp(min=1)


def columns(written: Sequence[tuple[str, float, float]], box: Tensor) -> Tensor:
    """For each of the reader's columns the number of the letter whose middle half it is in, 0 between letters."""
    left, _, right, _ = box.tolist()
    found = torch.zeros(COLUMNS, dtype=torch.long)
    for letter, start, end in written:
        first, last = ((edge / SPAN - left) / (right - left) * COLUMNS for edge in (start, end))
        middle, reach = (first + last) / 2, max((last - first) / 4, 0.5)
        inside = (torch.arange(COLUMNS) + 0.5 - middle).abs() <= reach
        found[inside] = LETTERS.index(letter.lower())
    return found
