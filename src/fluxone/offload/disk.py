"""Weights that live in a file without a name: mapped, read when they are touched, given back after their use.

    tensors in memory --spill--> one file, gone when the process is --map--> the same tensors, sharing the file's pages

The map is shared: what is written to a tensor goes to the file, so that giving pages back loses nothing.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from fluxone.errors import CannotWrite

ALIGNED = mmap.PAGESIZE


class Spill:
    """The tensors of some blocks in a file, block after block, so that each can be given back on its own.

    Attributes:
        bytes: of the file.
    """

    def __init__(self, blocks: Iterable[Iterable[nn.Module]]) -> None:
        """Write the tensors of the modules in each block, and put mapped ones in their place.

        Raises:
            CannotWrite: there is no room for them.
        """
        self._spans: list[tuple[int, int]] = []
        slots = [[place for module in block for place in _places(module)] for block in blocks]
        self.bytes = 0
        for block in slots:
            size = sum(_padded(tensor) for _, _, tensor in block)
            self._spans.append((self.bytes, size))
            self.bytes += size
        self._map: mmap.mmap | None = self._file(self.bytes) if self.bytes else None
        for block, (start, _) in zip(slots, self._spans, strict=True):
            for kept, name, tensor in block:
                kept[name] = self._moved(tensor, start)
                start += _padded(tensor)
        for index in range(len(self._spans)):
            self.release(index)

    def release(self, index: int) -> None:
        """Give a block's pages back; whoever touches them reads the file again."""
        start, size = self._spans[index]
        if self._map is not None and size and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, size)

    def _file(self, size: int) -> mmap.mmap:
        folder = Path(os.environ.get("FLUXONE_CACHE") or tempfile.gettempdir())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                return mmap.mmap(file.fileno(), size)
        except OSError as error:
            hint = f"{size / 1e9:.1f} GB are needed; FLUXONE_CACHE names another folder"
            raise CannotWrite(f"weights cannot wait in {folder}: {error}", hint=hint) from None

    def _moved(self, tensor: Tensor, start: int) -> Tensor:
        assert self._map is not None
        with torch.inference_mode(False), torch.no_grad():
            raw = torch.frombuffer(self._map, dtype=torch.uint8, offset=start, count=tensor.numel() * tensor.itemsize)
            there = raw.view(tensor.dtype).view(tensor.shape)
            there.copy_(tensor)
        if not isinstance(tensor, nn.Parameter):
            return there
        return nn.Parameter(there, requires_grad=tensor.requires_grad)


def _padded(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.itemsize // ALIGNED) * ALIGNED


def _places(module: nn.Module) -> list[tuple[dict[str, Tensor | None], str, Tensor]]:
    """The module's own tensors that a file can hold: dense, on the CPU, not empty."""
    kept: tuple[dict[str, Tensor | None], ...] = (module._parameters, module._buffers)  # type: ignore[assignment]
    return [
        (slots, name, tensor)
        for slots in kept
        for name, tensor in slots.items()
        if tensor is not None and tensor.device.type == "cpu" and tensor.layout == torch.strided and tensor.numel()
    ]
