"""A part's files as the network's own tensors, any rows of them: what lies fused, cut, swapped or packed is put right.

Nothing is read before it is asked for, and of a tensor no more than the rows that are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fluxone.weights.fill import fitting
from fluxone.weights.keymap import Change
from fluxone.weights.mapped import Mapped
from fluxone.weights.parts import Part


class Native:
    """The tensors of one part under their native names.

    Attributes:
        shapes: native name -> shape.

    Args:
        wanted: the network's names and shapes.

    Raises:
        BadWeights: the part does not fit the network, or its numbers are packed in an unknown way.
    """

    def __init__(self, part: Part, wanted: Mapping[str, tuple[int, ...]]) -> None:
        self.part = part
        self.tensors = Mapped(part.headers)
        self.picks = fitting(part, wanted, self.tensors)
        self.shapes = dict(wanted)

    def dtype(self, name: str) -> torch.dtype | None:
        """The type that a tensor is stored in; None if it is packed, or its pieces are of several types."""
        entries = [self.tensors.entries[piece] for piece in self.picks[name].names]
        kinds = {self.tensors.dtype(entry.name) for entry in entries}
        return kinds.pop() if len(kinds) == 1 and not any(entry.packing for entry in entries) else None

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a tensor, in the type that they are stored in, or float32."""
        way, shape = self.picks[name], self.shapes[name]
        if way.change is Change.SWAP:
            whole = self.tensors.read(way.names[0])
            return torch.cat(tuple(reversed(whole.chunk(2))))[start:stop]
        pieces, at = [], 0
        for piece in way.names:
            rows = self.tensors.shape(piece)[0]
            first, last = max(start - at, 0), min(stop - at, rows)
            if first < last:
                pieces.append(self.tensors.read(piece, None, (first, last)))
            at += rows
        kinds = {piece.dtype for piece in pieces}
        if len(kinds) > 1:
            pieces = [piece.float() for piece in pieces]
        whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return whole.view(stop - start, *shape[1:])

    def release(self, name: str) -> None:
        """Give the pages of a tensor back to the system."""
        for piece in self.picks[name].names:
            self.tensors.release(piece)
