"""The judge's two networks: one finds things and lines of text on a picture, one reads a line. Small enough for the
package: 1.9 MB together.

    Looker   (B 3 256 256) -> things (B t 16 16), lines of text (B 5 32 32), the whole (B w)
    Reader   (N 3 32 224)  -> letters (N l 112)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fluxone.evaluate.labels import LETTERS, Tables

SIZE = 256  # px: what the judge looks at
GRID, FINE = 16, 32  # cells across and down that the looker answers for: of things, of lines
PLACE = 4  # numbers that say where a thing or a line is: from the cell's middle to its own (cells), and its size (log)
WIDTHS = (32, 64, 96)  # channels
DILATIONS = (1, 2, 1, 2, 1)
RARE = -4.0  # where the logit of a middle starts: few cells have one
CROP = (32, 224)  # px: what the reader sees of a line
TALL, LONG = 1.6, 11.2  # em: how much of a line that is; longer lines are squeezed
MARGIN = 0.6  # em on each side of a line that is squeezed
COLUMNS = 112  # that the reader answers for
READING = (32, 48, 64, 96, 112)  # channels


def _conv(inside: int, outside: int, size: tuple[int, int] = (3, 3), *, stride: tuple[int, int] = (1, 1), step: int = 1,
          pad: tuple[int, int] | None = None) -> nn.Sequential:  # fmt: skip
    padding = pad if pad is not None else (step * (size[0] // 2), step * (size[1] // 2))
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, padding, step, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class Looker(nn.Module):
    """For every cell: whether something's middle is there, where exactly, what it is, its colour and its details; the
    same for lines of text; and for the whole picture its stage and its style."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        details = [len(row) for row in tables.details.values()]
        self.parts = (1, PLACE, len(tables.names), len(tables.colours), *details)
        self.whole_parts = (len(tables.stages), len(tables.styles))
        low, middle, high = WIDTHS
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2),
            _conv(12, low, stride=(2, 2)),
            _conv(low, middle, stride=(2, 2)),
            _conv(middle, middle),
        )
        self.down = _conv(middle, high, stride=(2, 2))
        self.body = nn.ModuleList(_conv(high, high, step=step) for step in DILATIONS)
        self.cells = nn.Conv2d(high, sum(self.parts), 1)
        self.whole = nn.Linear(2 * high, sum(self.whole_parts))
        self.back = nn.Conv2d(high, middle, 1)
        self.fine = _conv(middle, middle)
        self.lines = nn.Conv2d(middle, 1 + PLACE, 1)
        for head in (self.cells, self.lines):
            nn.init.constant_(head.bias[:1], RARE)  # type: ignore[index]  # it has one

    def forward(
        self, x: Float[Tensor, "B 3 256 256"]
    ) -> tuple[Float[Tensor, "B t 16 16"], Float[Tensor, "B 5 32 32"], Float[Tensor, "B w"]]:
        """Logits and places, to be split by `parts` and `whole_parts`."""
        near = self.stem(x)
        x = self.down(near)
        for layer in self.body:
            x = x + layer(x)
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        fine = self.fine(near + F.interpolate(self.back(x), scale_factor=2))
        return self.cells(x), self.lines(fine), self.whole(pooled)


class Reader(nn.Module):
    """For every column of a line: the letter whose middle is there, the gap between words, or neither."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e = READING
        self.look = nn.Sequential(
            _conv(3, a, stride=(2, 2)),
            _conv(a, b, stride=(2, 1)),
            _conv(b, c),
            _conv(c, d, stride=(2, 1)),
            _conv(d, e, (4, 3), pad=(0, 1)),
        )
        self.along = nn.ModuleList(_conv(e, e, (1, 5)) for _ in range(2))
        self.letters = nn.Conv1d(e, len(LETTERS), 1)

    def forward(self, x: Float[Tensor, "N 3 32 224"]) -> Float[Tensor, "N l 112"]:
        """Logits of `LETTERS`; the first is none."""
        x = self.look(x)
        for layer in self.along:
            x = x + layer(x)
        out: Tensor = self.letters(x.squeeze(2))
        return out


def window(places: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    """The part of a picture (left, top, right, bottom) that shows a line (x, y, width, em)."""
    x, y, width, em = places.unbind(1)
    half = torch.maximum(em * LONG, width + 2 * MARGIN * em) / 2
    return torch.stack([x - half, y - em * TALL / 2, x + half, y + em * TALL / 2], 1)


def cut(pictures: Float[Tensor, "N 3 H W"], boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 32 224"]:
    """The boxes (left, top, right, bottom in 0..1; they may reach outside) of the pictures, at the reader's size."""
    left, top, right, bottom = boxes.unbind(1)
    zero = torch.zeros_like(left)
    across = torch.stack([right - left, zero, left + right - 1], 1)
    down = torch.stack([zero, bottom - top, top + bottom - 1], 1)
    twice = [len(boxes), 3, 2 * CROP[0], 2 * CROP[1]]  # sampled finely and averaged, for large letters shrink
    grid = F.affine_grid(torch.stack([across, down], 1), twice, align_corners=False)
    return F.avg_pool2d(F.grid_sample(pictures, grid, padding_mode="border", align_corners=False), 2)


def runs(columns: Sequence[int]) -> list[tuple[int, int, int]]:
    """Each run of equal numbers but 0: the number, its first column, and the one behind its last."""
    edges = [0, *(i for i in range(1, len(columns)) if columns[i] != columns[i - 1]), len(columns)]
    return [(columns[a], a, b) for a, b in pairwise(edges) if a < b and columns[a]]
