"""The judge: pictures -> what is seen on them. It knows neither what was asked nor which model drew.

Raises nothing about models; `verdict` compares what is seen with what was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from fluxone.errors import BadWeights
from fluxone.evaluate.network import GRID, HIGH, LETTERS, WIDE, Looker, Reader, cut
from fluxone.evaluate.scenes import SIZE
from fluxone.evaluate.truth import COLOURS, NAMES, STAGES, Spot, one_name
from fluxone.storybook.worlds import WORLDS

SURE = 0.35  # how sure a middle must be to count as a thing
NAMED = 0.5  # how sure its name must be; below it is a thing that has none
SIGNS = WORLDS["first"].signs
Picture = Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is on one picture: things (one without a name is something unknown), the stage, and the word on a sign."""

    spots: tuple[Spot, ...]
    stage: str
    text: str = ""
    sure: tuple[float, ...] = field(default=(), compare=False)


class Judge:
    """Two networks and how their answers are read."""

    def __init__(self, looker: Looker, reader: Reader) -> None:
        self.looker, self.reader = looker.eval(), reader.eval()

    @torch.inference_mode()
    def look(self, pictures: Sequence[Picture], *, batch: int = 32) -> list[Seen]:
        """What is seen on each of the pictures, which may have any size."""
        found: list[Seen] = []
        for start in range(0, len(pictures), batch):
            found += self._look(tensor(pictures[start : start + batch]))
        return found

    def _look(self, x: Float[Tensor, "B 3 H W"]) -> list[Seen]:
        middle, names, colours, stages = self.looker(x)
        sure = middle.sigmoid()
        peaks = (sure == F.max_pool2d(sure, 3, 1, 1)) & (sure > SURE)
        names, colours = names.softmax(1), colours.softmax(1)
        seen = []
        for i in range(len(x)):
            places = peaks[i].nonzero().tolist()
            spots = [self._spot(sure[i], names[i], colours[i], row, column) for row, column in places]
            texts = [self._read(x[i : i + 1], spot) for spot in spots if spot.name in SIGNS]
            seen.append(
                Seen(
                    spots=tuple(spots),
                    stage=STAGES[int(stages[i].argmax())],
                    text=max(texts, key=len, default=""),
                    sure=tuple(float(sure[i, row, column]) for row, column in places),
                )
            )
        return seen

    def _spot(self, sure: Tensor, names: Tensor, colours: Tensor, row: int, column: int) -> Spot:
        """The thing whose middle is in the cell, by what the cells around it say, each as much as it is sure."""
        rows, columns = (slice(max(0, at - 1), at + 2) for at in (row, column))
        weight = sure[rows, columns] ** 2
        weight = weight / weight.sum()
        share, which = (names[:, rows, columns] * weight).sum((1, 2)).max(0)
        y, x = (torch.arange(GRID)[part] + 0.5 for part in (rows, columns))
        return Spot(
            name=one_name(NAMES[int(which)]) if share >= NAMED else "",
            colour=COLOURS[int((colours[:, rows, columns] * weight).sum((1, 2)).argmax())],
            x=float((weight.sum(0) * x).sum()) / GRID,
            y=float((weight.sum(1) * y).sum()) / GRID,
        )

    def _read(self, x: Float[Tensor, "1 3 H W"], spot: Spot) -> str:
        box = [spot.x - WIDE / 2, spot.y - HIGH / 2, spot.x + WIDE / 2, spot.y + HIGH / 2]
        return spelt(self.reader(cut(x, torch.tensor([box])))[0].argmax(0).tolist())


def spelt(columns: Sequence[int]) -> str:
    """The word of one letter's number a column: a run is one letter."""
    runs = [n for i, n in enumerate(columns) if n and (i == 0 or columns[i - 1] != n)]
    return "".join(LETTERS[n] for n in runs)


def tensor(pictures: Sequence[Picture], size: int = SIZE) -> Float[Tensor, "B 3 size size"]:
    """Pictures of any sizes as values from 0 to 1 at the judge's size."""
    images = ((p if isinstance(p, Image.Image) else Image.fromarray(p)).convert("RGB") for p in pictures)
    resized = (
        image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
        for image in images
    )
    return torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2).float() / 255


def save(judge: Judge, path: Path) -> None:
    """Write both networks into one file, in half precision."""
    parts = {"looker": judge.looker, "reader": judge.reader}
    tensors = {f"{part}.{name}": v.half() if v.is_floating_point() else v
               for part, module in parts.items() for name, v in module.state_dict().items()}  # fmt: skip
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def load(path: Path) -> Judge:
    """The judge in a file.

    Raises:
        BadWeights: the file is of another judge, with other names or another width.
    """
    tensors = load_file(path)
    looker, reader = Looker(len(NAMES), len(COLOURS), len(STAGES)), Reader()
    try:
        for part, module in (("looker.", looker), ("reader.", reader)):
            module.load_state_dict(
                {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            )
    except RuntimeError as error:
        raise BadWeights(f"{path} is not this judge: {error}", hint="train it again: tools/train_judge.py") from None
    return Judge(looker, reader)


@lru_cache(maxsize=1)
def shipped() -> Judge:
    """The judge inside the package."""
    with as_file(files("fluxone.evaluate").joinpath("assets", "judge.safetensors")) as path:
        return load(path)
