"""The first judge's networks: they know the world `first` at 128 px, and read one word of plain letters a sign.

`judge.load` takes such a file as long as no file of the newer judge is in the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from fluxone.evaluate.labels import Tables
from fluxone.evaluate.truth import Spot
from fluxone.storybook.worlds import WORLDS

SIZE, GRID, WIDTH = 128, 16, 64
CROP, WIDE, HIGH = (40, 112), 0.84, 0.30
LETTERS = " abcdefghijklmnopqrstuvwxyz"
SURE, NAMED = 0.35, 0.5
WORLD = WORLDS["first"]
HIDDEN = tuple(f"{animal} {part}" for animal in ("cat", "dog", "fox", "rabbit") for part in ("tail", "ears"))
TABLES = Tables(
    names=(*WORLD.objects, *WORLD.people, *WORLD.signs, "box", *HIDDEN),
    colours=("", *WORLD.colours),
    stages=WORLD.stages,
    styles=("",),
    details={},
    people=WORLD.people,
)


def _conv(inside: int, outside: int, size: tuple[int, int] = (3, 3), *, stride: tuple[int, int] = (1, 1), step: int = 1,
          pad: tuple[int, int] | None = None) -> nn.Sequential:  # fmt: skip
    padding = pad if pad is not None else (step * (size[0] // 2), step * (size[1] // 2))
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, padding, step, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class Looker(nn.Module):
    """For every cell a middle, a name and a colour; for the picture its stage."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = (1, len(TABLES.names), len(TABLES.colours))
        half, whole = WIDTH // 2, WIDTH
        self.stem = nn.Sequential(
            _conv(3, half // 2, stride=(2, 2)), _conv(half // 2, half, stride=(2, 2)), _conv(half, whole, stride=(2, 2))
        )
        self.body = nn.ModuleList(_conv(whole, whole, step=step) for step in (1, 2, 1, 2, 1))
        self.cells = nn.Conv2d(whole, sum(self.parts), 1)
        self.stage = nn.Linear(2 * whole, len(TABLES.stages))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits: of a middle (B h w), of names (B N h w), of colours (B C h w), of stages (B S)."""
        x = self.stem(x)
        for layer in self.body:
            x = x + layer(x)
        middle, names, colours = self.cells(x).split(self.parts, 1)
        return middle[:, 0], names, colours, self.stage(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


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
        out: Tensor = self.letters((x + self.along(x)).squeeze(2))
        return out


class Eyes:
    """Both networks, and how their answers are read."""

    def __init__(self, path: Path) -> None:
        self.looker, self.reader = Looker(), Reader()
        tensors = load_file(path)
        for part, module in (("looker.", self.looker), ("reader.", self.reader)):
            rows = {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            module.load_state_dict(rows)
            module.eval()

    def look(self, x: Float[Tensor, "B 3 128 128"]) -> list[tuple[list[Spot], str, str]]:
        """Of each picture the things, the stage and the word."""
        middle, names, colours, stages = self.looker(x)
        sure = middle.sigmoid()
        peaks = (sure == F.max_pool2d(sure, 3, 1, 1)) & (sure > SURE)
        names, colours = names.softmax(1), colours.softmax(1)
        seen = []
        for i in range(len(x)):
            spots = [_spot(sure[i], names[i], colours[i], *at) for at in peaks[i].nonzero().tolist()]
            texts = [self._read(x[i : i + 1], spot) for spot in spots if spot.name in WORLD.signs]
            seen.append((spots, TABLES.stages[int(stages[i].argmax())], max(texts, key=len, default="")))
        return seen

    def _read(self, x: Float[Tensor, "1 3 H W"], spot: Spot) -> str:
        across, down = torch.tensor([[WIDE, 0, 2 * spot.x - 1]]), torch.tensor([[0, HIGH, 2 * spot.y - 1]])
        grid = F.affine_grid(torch.stack([across, down], 1), [1, 3, *CROP], align_corners=False)
        crop = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        return _spelt(self.reader(crop)[0].argmax(0).tolist())


def _spot(sure: Tensor, names: Tensor, colours: Tensor, row: int, column: int) -> Spot:
    """The thing whose middle is in the cell, by what the cells around it say, each as much as it is sure."""
    rows, columns = (slice(max(0, at - 1), at + 2) for at in (row, column))
    weight = sure[rows, columns] ** 2
    weight = weight / weight.sum()
    share, which = (names[:, rows, columns] * weight).sum((1, 2)).max(0)
    y, x = (torch.arange(GRID)[part] + 0.5 for part in (rows, columns))
    return Spot(
        name=TABLES.names[int(which)] if share >= NAMED else "",
        colour=TABLES.colours[int((colours[:, rows, columns] * weight).sum((1, 2)).argmax())],
        x=float((weight.sum(0) * x).sum()) / GRID,
        y=float((weight.sum(1) * y).sum()) / GRID,
    )


def _spelt(columns: Sequence[int]) -> str:
    return "".join(LETTERS[n] for i, n in enumerate(columns) if n and (i == 0 or columns[i - 1] != n))
