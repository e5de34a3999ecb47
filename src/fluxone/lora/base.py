"""A model's files as the network's own tensors, one by one: adapters are measured on, merged into, made from them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fluxone.errors import BadWeights
from fluxone.weights.fill import refuse_packed
from fluxone.weights.keymap import CLIP, T5, TRANSFORMER, Change, Pick, native_shapes, plan
from fluxone.weights.load import resolve
from fluxone.weights.locate import in_folder
from fluxone.weights.mapped import Mapped
from fluxone.weights.parts import Part, file_parts

ADAPTED = (TRANSFORMER, T5, CLIP)
ENTRANCE = "img_in.weight"


class Base:
    """The parts of a model that adapters can change.

    Args:
        source: a name, hub id, folder or file.

    Attributes:
        path: the folder or file.
        shapes: part -> native name -> shape.
    """

    def __init__(self, source: str) -> None:
        _, self.path = resolve(source)
        found = in_folder(self.path).parts if self.path.is_dir() else file_parts(self.path)
        self.parts: dict[str, Part] = {name: found[name] for name in ADAPTED if name in found}
        if TRANSFORMER not in self.parts:
            raise BadWeights(f"{self.path} holds no transformer", hint="give a model's folder, or its transformer")
        self.tensors: dict[str, Mapped] = {}
        self.picks: dict[str, dict[str, Pick]] = {}
        self.shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, part in self.parts.items():
            refuse_packed(part)
            self.tensors[name] = Mapped(part.headers)
            self.picks[name] = plan(part.names, part.form).picks
            self.shapes[name] = native_shapes(self.picks[name], self.tensors[name].shape)

    @property
    def width(self) -> int:
        """Of the transformer."""
        return self.shapes[TRANSFORMER][ENTRANCE][0]

    def read(self, part: str, name: str) -> Tensor:
        """A native tensor, in the file's type: a view of the file where nothing has to be moved."""
        way = self.picks[part][name]
        pieces = [self.tensors[part].read(piece) for piece in way.names]
        whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return torch.cat(tuple(reversed(whole.chunk(2)))) if way.change is Change.SWAP else whole

    def release(self, part: str, name: str) -> None:
        """Let go of what `read` brought into memory."""
        for piece in self.picks[part][name].names:
            self.tensors[part].release(piece)

    def names(self) -> Iterator[tuple[str, str]]:
        """Part and name of every native tensor, in the order in which they lie in the files."""
        for part, picks in self.picks.items():
            tensors = self.tensors[part]
            for name in sorted(picks, key=lambda name: tensors.place(picks[name].names[0])):
                yield part, name
