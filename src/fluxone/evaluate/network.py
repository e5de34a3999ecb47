"""The judge's two networks: one finds things on a picture, one reads the word on a sign. Small enough for the package.

    Looker   (B 3 128 128) -> (B 1+names+colours 16 16), (B stages)
    Reader   (B 3 40 112)  -> (B letters 56)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 16  # cells across and down that the looker answers for
WIDTH = 64
RARE = -4.0  # where the logit of a middle starts: few cells have one
CROP = (40, 112)  # px: the part of a picture that the reader sees, 2.8 times as wide as high
WIDE, HIGH = 0.84, 0.30  # of a picture: what the reader sees of it, around a sign's middle
COLUMNS = 56  # that the reader answers for
LETTERS = " abcdefghijklmnopqrstuvwxyz"  # the first is none; capitals count as small letters


def _conv(inside: int, outside: int, size: tuple[int, int] = (3, 3), *, stride: tuple[int, int] = (1, 1), step: int = 1,
          pad: tuple[int, int] | None = None) -> nn.Sequential:  # fmt: skip
    padding = pad if pad is not None else (step * (size[0] // 2), step * (size[1] // 2))
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, padding, step, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class Looker(nn.Module):
    """For every cell: whether something's middle is there, what it is, and its colour; for the picture: its stage."""

    def __init__(self, names: int, colours: int, stages: int) -> None:
        super().__init__()
        self.parts = (1, names, colours)
        half, whole = WIDTH // 2, WIDTH
        self.stem = nn.Sequential(
            _conv(3, half // 2, stride=(2, 2)), _conv(half // 2, half, stride=(2, 2)), _conv(half, whole, stride=(2, 2))
        )
        self.body = nn.ModuleList(_conv(whole, whole, step=step) for step in (1, 2, 1, 2, 1))
        self.cells = nn.Conv2d(whole, sum(self.parts), 1)
        self.stage = nn.Linear(2 * whole, stages)
        nn.init.constant_(self.cells.bias[:1], RARE)  # type: ignore[index]  # it has one

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits: of a middle (B h w), of names (B N h w), of colours (B C h w), of stages (B S)."""
        x = self.stem(x)
        for layer in self.body:
            x = x + layer(x)
        middle, names, colours = self.cells(x).split(self.parts, 1)
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return middle[:, 0], names, colours, self.stage(pooled)


class Reader(nn.Module):
    """For every column of a crop: the letter whose middle is there, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            _conv(3, 32, stride=(2, 2)),
            _conv(32, 48, stride=(2, 1)),
            _conv(48, 64),
            _conv(64, 96, stride=(2, 1)),
            _conv(96, 128, (5, 3), pad=(0, 1)),
        )
        self.along = _conv(128, 128, (1, 5))
        self.letters = nn.Conv1d(128, len(LETTERS), 1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B letters columns"]:
        """Logits of the letters; the first row is none."""
        x = self.look(x)
        x = x + self.along(x)
        out: Tensor = self.letters(x.squeeze(2))
        return out


def cut(pictures: Float[Tensor, "B 3 H W"], boxes: Float[Tensor, "B 4"]) -> Float[Tensor, "B 3 h w"]:
    """The boxes (left, top, right, bottom in 0..1; they may reach outside) of the pictures, at the reader's size."""
    left, top, right, bottom = boxes.unbind(1)
    zero = torch.zeros_like(left)
    across = torch.stack([right - left, zero, left + right - 1], 1)
    down = torch.stack([zero, bottom - top, top + bottom - 1], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), [len(boxes), 3, *CROP], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
