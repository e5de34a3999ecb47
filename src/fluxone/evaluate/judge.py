"""The judge: pictures -> what is seen on them. It knows neither what was asked nor which model drew.

Raises nothing about models; `verdict` compares what is seen with what was asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from fluxone.errors import BadWeights
from fluxone.evaluate import first
from fluxone.evaluate.labels import FOLDED, LETTERS, Tables
from fluxone.evaluate.network import PLACE, SIZE, Looker, Reader, cut, runs, window
from fluxone.evaluate.truth import Spot

SURE = 0.35  # how sure a middle must be to count as a thing, or as a line of text
NAMED = 0.5  # how sure its name must be; below it is a thing that has none
BATCH = 16  # pictures looked at together
Picture = Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is on one picture: things (one without a name is something unknown), the stage, the style, and the text,
    line after line, in the case that it is written in."""

    spots: tuple[Spot, ...]
    stage: str
    style: str = ""
    text: str = ""
    sure: tuple[float, ...] = field(default=(), compare=False)


class Judge:
    """Two networks, the words that they know, and how their answers are read."""

    def __init__(self, looker: Looker, reader: Reader, tables: Tables) -> None:
        self.looker, self.reader, self.tables = looker.eval(), reader.eval(), tables

    @torch.inference_mode()
    def look(self, pictures: Sequence[Picture]) -> list[Seen]:
        """What is seen on each of the pictures, which may have any size."""
        found: list[Seen] = []
        for start in range(0, len(pictures), BATCH):
            found += self._look(tensor(pictures[start : start + BATCH]))
        return found

    def _look(self, x: Float[Tensor, "B 3 H W"]) -> list[Seen]:
        cells, lines, whole = self.looker(x)
        middle, place, *words = cells.split(self.looker.parts, 1)
        sure, words = middle[:, 0].sigmoid(), [part.softmax(1) for part in words]
        peaks = (sure == F.max_pool2d(sure, 3, 1, 1)) & (sure > SURE)
        stages, styles = (part.argmax(1).tolist() for part in whole.split(self.looker.whole_parts, 1))
        texts = self._read(x, lines)
        seen = []
        for i in range(len(x)):
            places = peaks[i].nonzero().tolist()
            spots = [self._spot(sure[i], place[i], [part[i] for part in words], *at) for at in places]
            seen.append(
                Seen(
                    spots=tuple(spots),
                    stage=self.tables.stages[stages[i]],
                    style=self.tables.styles[styles[i]],
                    text=texts[i],
                    sure=tuple(float(sure[i, row, column]) for row, column in places),
                )
            )
        return seen

    def _spot(self, sure: Tensor, place: Tensor, words: Sequence[Tensor], row: int, column: int) -> Spot:
        """The thing whose middle is in the cell, by what the cells around it say, each as much as it is sure."""
        rows, columns = (slice(max(0, at - 1), at + 2) for at in (row, column))
        weight = sure[rows, columns] ** 2
        weight = weight / weight.sum()
        name, colour, *details = ((part[:, rows, columns] * weight).sum((1, 2)) for part in words)
        x, y, width, height = _placed(place, row, column)
        share, which = name.max(0)
        known = self.tables.names[int(which)] if share >= NAMED else ""
        person = known in self.tables.people
        told = zip(self.tables.details.items(), details, strict=True) if person else ()
        return Spot(
            name=known,
            colour=self.tables.colours[int(colour.argmax())],
            x=x,
            y=y,
            width=width,
            height=height,
            details=tuple((name, table[int(logits.argmax())]) for (name, table), logits in told),
        )

    def _read(self, x: Float[Tensor, "B 3 H W"], lines: Float[Tensor, "B 5 h w"]) -> list[str]:
        """The text of each picture: its lines from the top, parted by spaces."""
        middle, place = lines.split((1, PLACE), 1)
        sure = middle[:, 0].sigmoid()
        peaks = (sure == F.max_pool2d(sure, (3, 9), 1, (1, 4))) & (sure > SURE)
        found = [(i, _placed(place[i], row, column)) for i, row, column in peaks.nonzero().tolist()]
        texts: list[list[tuple[float, str]]] = [[] for _ in x]
        if found:
            boxes = window(torch.tensor([at for _, at in found]))
            for (i, at), columns in zip(found, self.reader(cut(x[[i for i, _ in found]], boxes)), strict=True):
                texts[i].append((at[1], spelt(columns.softmax(0))))
        return [" ".join(text for _, text in sorted(rows) if text) for rows in texts]


class FirstJudge:
    """The first judge, as long as its file is the one in the package."""

    tables = first.TABLES

    def __init__(self, path: Path) -> None:
        self.eyes = first.Eyes(path)

    @torch.inference_mode()
    def look(self, pictures: Sequence[Picture]) -> list[Seen]:
        """What is seen on each of the pictures, which may have any size."""
        rows = [self.eyes.look(tensor([picture], first.SIZE))[0] for picture in pictures]
        return [Seen(spots=tuple(spots), stage=stage, text=text) for spots, stage, text in rows]


class Sees(Protocol):
    """What looks at pictures, and the words that it has for what it sees."""

    tables: Tables

    def look(self, pictures: Sequence[Picture]) -> list[Seen]:
        """What is seen on each of the pictures, which may have any size."""


def _placed(place: Float[Tensor, "4 h w"], row: int, column: int) -> tuple[float, float, float, float]:
    """The middle and the size that a cell tells, in shares of the picture."""
    across, down, width, height = place[:, row, column].tolist()
    size = place.shape[-1]
    return (column + 0.5 + across) / size, (row + 0.5 + down) / size, float(np.exp(width)), float(np.exp(height))


def spelt(shares: Float[Tensor, "letters columns"]) -> str:
    """The text of the shares of each letter in each column: a run is one letter, whatever the case, which is then that
    of its larger share."""
    stands = torch.tensor(FOLDED)
    either = torch.zeros_like(shares).index_add_(0, stands, shares)
    text = ""
    for letter, start, end in runs(either.argmax(0).tolist()):
        both = [n for n, one in enumerate(FOLDED) if one == letter]
        text += LETTERS[max(both, key=lambda n: float(shares[n, start:end].sum()))]
    return " ".join(text.split())


def tensor(pictures: Sequence[Picture], size: int = SIZE) -> Float[Tensor, "B 3 size size"]:
    """Pictures of any sizes as values from 0 to 1 at the judge's size."""
    images = ((p if isinstance(p, Image.Image) else Image.fromarray(p)).convert("RGB") for p in pictures)
    resized = (
        image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
        for image in images
    )
    return torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2).float() / 255


def save(judge: Judge, path: Path) -> None:
    """Write both networks into one file, in half precision but for what is counted, with the words that they know."""
    parts = {"looker": judge.looker, "reader": judge.reader}
    tensors = {f"{part}.{name}": (v.half() if v.ndim > 1 else v).contiguous().cpu()
               for part, module in parts.items() for name, v in module.state_dict().items()
               if v.is_floating_point()}  # fmt: skip
    save_file(tensors, path, {"tables": json.dumps(asdict(judge.tables))})


def load(path: Path) -> Sees:
    """The judge in a file.

    Raises:
        BadWeights: the file is of another judge, with other words or another width.
    """
    with safe_open(path, "pt") as file:
        told = (file.metadata() or {}).get("tables", "")
        if not told and "looker.stage.weight" in set(file.keys()):
            return FirstJudge(path)
    try:
        rows = json.loads(told)
        details = {name: tuple(row) for name, row in rows.pop("details").items()}
        tables = Tables(**{name: tuple(row) for name, row in rows.items()}, details=details)
        looker, reader = Looker(tables), Reader()
        tensors = load_file(path)
        for part, module in (("looker.", looker), ("reader.", reader)):
            own = {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            left = module.load_state_dict(own, strict=False)
            if left.unexpected_keys or any(not name.endswith("num_batches_tracked") for name in left.missing_keys):
                raise BadWeights(f"{path} is not this judge: {left}", hint="train it again: tools/train_judge.py")
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise BadWeights(f"{path} is not this judge: {error}", hint="train it again: tools/train_judge.py") from None
    return Judge(looker, reader, tables)


@lru_cache(maxsize=1)
def shipped() -> Sees:
    """The judge inside the package."""
    with as_file(files("fluxone.evaluate").joinpath("assets", "judge.safetensors")) as path:
        return load(path)
