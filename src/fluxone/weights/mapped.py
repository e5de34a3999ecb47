"""Tensors of safetensors files, read straight from private memory maps.

A tensor that `read` returns shares the map's pages: the kernel brings them from the file when they are touched,
and copies a page when it is written, so the file never changes. `release` lets go of pages already used.
The tensors keep the map alive; the file must not be overwritten in place meanwhile (a rename is harmless).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from fluxone.errors import BadFile, BadWeights
from fluxone.weights.safetensors import Entry, Header, merge

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
CODES: dict[torch.dtype, str] = {dtype: code for code, dtype in DTYPES.items()}


class Mapped:
    """The tensors of one file, or of all shards of a model, by name. Nothing is read until `read`."""

    def __init__(self, headers: Iterable[Header]) -> None:
        self.headers = tuple(headers)
        self.entries: dict[str, Entry] = merge(self.headers)
        self._home = {name: header.path for header in self.headers for name in header.entries}
        self._maps: dict[Path, mmap.mmap] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape as it is stored."""
        return self.entries[name].shape

    def place(self, name: str) -> tuple[str, int]:
        """File and first byte, to read in the order in which tensors lie."""
        return str(self._home[name]), self.entries[name].start

    def dtype(self, name: str) -> torch.dtype:
        """The type that a tensor is stored as.

        Raises:
            BadWeights: torch has no such type.
        """
        code = self.entries[name].dtype
        if code not in DTYPES:
            raise BadWeights(
                f"{self._home[name]} holds {name!r} as {code}", hint=f"types that can be read: {', '.join(DTYPES)}"
            )
        return DTYPES[code]

    def read(self, name: str) -> Tensor:
        """Return the tensor as it is stored, on the CPU, sharing the map's pages (a copy if it lies unaligned)."""
        entry, dtype = self.entries[name], self.dtype(name)
        if entry.start == entry.stop:
            return torch.empty(entry.shape, dtype=dtype)
        raw = torch.frombuffer(
            self._map(self._home[name]), dtype=torch.uint8, offset=entry.start, count=entry.stop - entry.start
        )
        if entry.start % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype).view(entry.shape)

    def release(self, name: str) -> None:
        """Give the tensor's pages back to the kernel; whoever touches them again reads the file again."""
        entry = self.entries[name]
        opened = self._maps.get(self._home[name])
        if opened is None or entry.start == entry.stop or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = entry.start - entry.start % mmap.PAGESIZE
        opened.madvise(mmap.MADV_DONTNEED, start, entry.stop - start)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            self._maps[path] = _open(path)
        return self._maps[path]


def _open(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            if not hasattr(mmap, "MAP_PRIVATE"):
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            # Reserving nothing: pages are copied only if somebody writes to them, and nobody does.
            flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
            return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} cannot be mapped into memory: {error}", hint="check the file and its rights") from None
