"""What one process gives to several at once: a skeleton by pipes, and its tensors by their group.

    pack     object -> its pickle, with a hole for each tensor; the tensors
    unpack   pickle -> the object, its tensors still empty; the tensors          then everybody calls `fill`
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Hole = tuple[tuple[int, ...], torch.dtype]


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[Tensor] = []

    def persistent_id(self, obj: object) -> Hole | None:
        if not isinstance(obj, Tensor):
            return None
        self.tensors.append(obj)
        return tuple(obj.shape), obj.dtype


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, device: torch.device) -> None:
        super().__init__(file)
        self.device = device
        self.tensors: list[Tensor] = []

    def persistent_load(self, pid: Hole) -> Tensor:
        shape, dtype = pid
        self.tensors.append(torch.empty(shape, dtype=dtype, device=self.device))
        return self.tensors[-1]


def pack(thing: object) -> tuple[bytes, list[Tensor]]:
    """The skeleton of an object, and the tensors in it."""
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(thing)
    return file.getvalue(), packer.tensors


def unpack(data: bytes, device: torch.device) -> tuple[Any, list[Tensor]]:
    """The object of a skeleton of our own process's parent, and its tensors, which have no values yet."""
    unpacker = _Unpacker(io.BytesIO(data), device)
    return unpacker.load(), unpacker.tensors


def fill(tensors: Sequence[Tensor], device: torch.device) -> None:
    """Give everybody's tensors the values of the first process's, all in one message of the group."""
    ordered = sorted(tensors, key=lambda tensor: -tensor.element_size())  # so each begins at a multiple of its size
    flat = torch.cat([tensor.to(device).contiguous().flatten().view(torch.uint8) for tensor in ordered])
    dist.broadcast(flat, src=0)
    if dist.get_rank() == 0:
        return
    for tensor, part in zip(ordered, flat.split([tensor.nbytes for tensor in ordered]), strict=True):
        tensor.copy_(part.view(tensor.dtype).view(tensor.shape))
