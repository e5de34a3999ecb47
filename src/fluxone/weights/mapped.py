"""Tensors of safetensors and GGUF files, read straight from private memory maps; or those that a header holds.

A tensor that `read` returns shares the map's pages: the kernel brings them from the file when they are touched,
and copies a page when it is written, so the file never changes. Packed numbers are unpacked into new memory.
`release` lets go of pages already used. The tensors keep the map alive; the file must not be overwritten in place
meanwhile (a rename is harmless).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from fluxone.errors import BadFile, BadWeights
from fluxone.weights.packed.unpack import unpack
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
        self._maps: dict[Path, mmap.mmap] = {}
        self._held: dict[str, Tensor] = {name: held for header in self.headers for name, held in header.held.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that `read` gives."""
        return self.entries[name].shape

    def place(self, name: str) -> tuple[str, int]:
        """File and first byte, to read in the order in which tensors lie."""
        return str(self.entries[name].path), self.entries[name].start

    def dtype(self, name: str) -> torch.dtype:
        """The type that `read` gives where it is asked for none: as it is stored, float32 for packed numbers.

        Raises:
            BadWeights: torch has no such type.
        """
        entry = self.entries[name]
        return torch.float32 if entry.packing else _dtype(entry)

    def read(self, name: str, dtype: torch.dtype | None = None, rows: tuple[int, int] | None = None) -> Tensor:
        """Return a tensor on the CPU, or from one row to before another.

        One that is stored in that type shares the map's pages (it is a copy if it lies unaligned).

        Args:
            dtype: None is `self.dtype(name)`.

        Raises:
            BadWeights: torch has no such type.
            MissingExtra: the numbers are packed in a rare way, and the package for it is not installed.
        """
        entry = self.entries[name]
        start, stop = (0, entry.shape[0] if entry.shape else 1) if rows is None else rows
        shape = (stop - start, *entry.shape[1:]) if entry.shape else ()
        if not entry.packing:
            whole = self.stored(entry).view(entry.shape)
            part = whole if rows is None else whole[start:stop]
            return part if dtype is None else part.to(dtype)
        wide = entry.count // max(1, entry.shape[0]) if entry.shape else 1
        flat = unpack(self.stored, entry, start * wide, stop * wide, dtype or torch.float32)
        return flat.view(shape)

    def stored(self, entry: Entry) -> Tensor:
        """What lies in the file, flat: numbers of the entry's own type, or bytes where that is no type of torch's.

        Raises:
            BadWeights: torch has no such type.
        """
        if entry.name in self._held:
            return self._held[entry.name].detach().cpu().flatten()
        dtype = torch.uint8 if entry.packing == "ggml" else _dtype(entry)
        if entry.start == entry.stop:
            return torch.empty(0, dtype=dtype)
        raw = torch.frombuffer(
            self._map(entry.path), dtype=torch.uint8, offset=entry.start, count=entry.stop - entry.start
        )
        if entry.start % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype)

    def release(self, name: str) -> None:
        """Give the tensor's pages back to the kernel; whoever touches them again reads the file again."""
        entry = self.entries[name]
        opened = self._maps.get(entry.path)
        if opened is None or entry.start == entry.stop or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = entry.start - entry.start % mmap.PAGESIZE
        opened.madvise(mmap.MADV_DONTNEED, start, entry.stop - start)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            self._maps[path] = _open(path)
        return self._maps[path]


def _dtype(entry: Entry) -> torch.dtype:
    if entry.dtype not in DTYPES:
        raise BadWeights(
            f"{entry.path} holds {entry.name!r} as {entry.dtype}", hint=f"types that can be read: {', '.join(DTYPES)}"
        )
    return DTYPES[entry.dtype]


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
