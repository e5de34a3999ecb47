"""The GGUF container: a strict reader of headers with bounded memory, and a writer that goes tensor by tensor.

    "GGUF" | version | counts | key, type, value ... | name, sizes, type, offset ... | padding | the tensors, aligned

Sizes are written innermost first. Reading a header touches no tensor and imports no torch.

Source: ggml-org/ggml, `docs/gguf.md`.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fluxone.errors import BadFile, BadWeights
from fluxone.weights.packed.ggml import NAMES, TYPES
from fluxone.weights.safetensors import AGAIN, MAX_AXES, MAX_HEADER, Entry, Header, Outline

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # bytes, where the file says nothing else
MOST_ALIGNMENT = 1 << 20
MOST_TENSORS = 1_000_000
SHORT = 1 << 16  # bytes: longer texts are skipped, they describe tokenizers
FEW = MAX_AXES  # numbers: longer lists are skipped
SHAPE = "comfy.gguf.orig_shape."  # before a tensor's name: its shape, where GGUF could not say it
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
FLOATS = (6, 12)
U32, TEXT, LIST = 4, 8, 9
QUANTIZATION = 2  # the version of GGML's blocks
FILE_TYPES = {  # number that `general.file_type` has for a file of mostly this type
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32,
}  # fmt: skip

Value = int | float | bool | str | list[int]


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF does; False if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Read and check the header of one file: known types, names once, sizes that fit the file, no overlaps.

    Raises:
        BadFile: it cannot be read.
        BadWeights: it is broken, or of a kind that nobody writes for FLUX.1.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            reader = _Reader(path, file, size)
            values, rows = _fields(reader)
            at = reader.at
    except OSError as error:
        raise BadFile(
            f"{path} cannot be read: {error.strerror or error}", hint="check the path and its rights"
        ) from None
    step = values.get("general.alignment", ALIGNMENT)
    if type(step) is not int or not 0 < step <= MOST_ALIGNMENT or step % 8:
        raise BadWeights(f"{path} aligns its tensors at {step!r:.80} bytes", hint=AGAIN)
    data = -(-at // step) * step
    entries = {row.name: _entry(path, row, values, data, step) for row in rows}
    if len(entries) < len(rows):
        raise BadWeights(f"{path} has {len(rows) - len(entries)} names twice", hint=AGAIN)
    _check_extent(path, entries.values(), size)
    metadata = {key: str(value) for key, value in values.items() if not key.startswith(SHAPE)}
    return Header(path=path, entries=entries, metadata=metadata, data=data, size=size, container="GGUF")


def write(path: Path, outlines: Iterable[Outline], values: Mapping[str, int | str]) -> None:
    """Write a file tensor by tensor, in the order of names. The same content gives the same bytes."""
    rows = sorted(outlines, key=lambda row: row.name)
    head = bytearray(MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(rows), len(values)))
    for key, value in values.items():
        head += _text(key)
        head += struct.pack("<I", TEXT) + _text(value) if isinstance(value, str) else struct.pack("<II", U32, value)
    at = 0
    for row in rows:
        head += _text(row.name) + struct.pack("<I", len(row.shape))
        head += b"".join(struct.pack("<Q", side) for side in reversed(row.shape))
        head += struct.pack("<IQ", TYPES[row.dtype].number, at)
        at += _padded(stored_bytes(row.dtype, row.shape))
    with path.open("wb") as file:
        file.write(head + bytes(_padded(len(head)) - len(head)))
        for row in rows:
            content = row.content()
            assert len(content) == stored_bytes(row.dtype, row.shape), f"{row.name} has other bytes than it says"
            file.write(content)
            file.write(bytes(_padded(len(content)) - len(content)))
        file.flush()
        os.fsync(file.fileno())


def stored_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor takes; its last axis must be whole blocks."""
    kind = TYPES[dtype]
    return math.prod(shape) // kind.block * kind.bytes


@dataclass
class _Row:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass
class _Reader:
    """Takes numbers and texts off a file, and never more of it than the bound of a header."""

    path: Path
    file: BinaryIO
    size: int
    at: int = 0
    end: int = field(init=False)

    def __post_init__(self) -> None:
        self.end = min(self.size, MAX_HEADER)

    def take(self, count: int) -> bytes:
        self._room(count)
        raw = self.file.read(count)
        self.at += len(raw)
        if len(raw) < count:
            raise BadWeights(f"{self.path} is truncated: it ends in its header", hint=AGAIN)
        return raw

    def skip(self, count: int) -> None:
        self._room(count)
        self.at += count
        self.file.seek(self.at)

    def number(self, form: str) -> int | float | bool:
        value: int | float | bool = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def whole(self, form: str) -> int:
        return int(self.number(form))

    def text(self) -> str | None:
        """A text; None if it is long."""
        length = self.whole("<Q")
        if length > SHORT:
            self.skip(length)
            return None
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise BadWeights(f"{self.path} has a text in its header that is none", hint=AGAIN) from None

    def _room(self, count: int) -> None:
        if self.at + count > self.end:
            what = "is truncated: it ends in its header" if self.end == self.size else "has no end of its header"
            raise BadWeights(f"{self.path} {what} ({self.at:,} bytes read, {count:,} more wanted)", hint=AGAIN)


def _fields(reader: _Reader) -> tuple[dict[str, Value], list[_Row]]:
    """The values and the tensors that a header lists."""
    path = reader.path
    if reader.take(len(MAGIC)) != MAGIC:
        raise BadFile(f"{path} is no GGUF file", hint="check the path")
    version = reader.whole("<I")
    if version not in VERSIONS:
        order = " in the byte order of other machines" if version and not version & 0xFFFF else ""
        raise BadWeights(f"{path} is GGUF of version {version}{order}", hint=f"versions {VERSIONS} can be read")
    count, keys = reader.whole("<Q"), reader.whole("<Q")
    if count > MOST_TENSORS or keys > MOST_TENSORS:
        raise BadWeights(f"{path} claims {count:,} tensors and {keys:,} values", hint=AGAIN)
    values: dict[str, Value] = {}
    for _ in range(keys):
        key = reader.text()
        value = _value(reader, reader.whole("<I"))
        if key is None:
            raise BadWeights(f"{path} has a key of more than {SHORT:,} bytes", hint=AGAIN)
        if value is not None:
            values[key] = value
    rows: list[_Row] = []
    for _ in range(count):
        name, axes = reader.text(), reader.whole("<I")
        if name is None or axes > MAX_AXES:
            raise BadWeights(f"{path} describes its tensor {len(rows) + 1} wrongly", hint=AGAIN)
        shape = tuple(reversed([reader.whole("<Q") for _ in range(axes)]))
        rows.append(_Row(name, shape, reader.whole("<I"), reader.whole("<Q")))
    return values, rows


def _value(reader: _Reader, kind: int, inside: bool = False) -> Value | None:
    """A value, or None for one that is long or a list of something else than whole numbers."""
    if kind in SCALARS:
        return reader.number(SCALARS[kind])
    if kind == TEXT:
        return reader.text()
    if kind != LIST or inside:
        raise BadWeights(f"{reader.path} has a value of the unknown type {kind}", hint=AGAIN)
    kind, count = reader.whole("<I"), reader.whole("<Q")
    if kind in SCALARS and (count > FEW or kind in FLOATS):
        reader.skip(count * struct.calcsize(SCALARS[kind]))
        return None
    if kind in SCALARS:
        return [reader.whole(SCALARS[kind]) for _ in range(count)]
    for _ in range(count):
        _value(reader, kind, inside=True)
    return None


def _entry(path: Path, row: _Row, values: Mapping[str, Value], data: int, step: int) -> Entry:
    if row.kind not in NAMES:
        known = ", ".join(TYPES)
        raise BadWeights(f"{path} holds {row.name!r:.200} as type {row.kind} of GGML", hint=f"known types are {known}")
    dtype = NAMES[row.kind]
    kind = TYPES[dtype]
    last = row.shape[-1] if row.shape else 1
    if last % kind.block or row.offset % step:
        raise BadWeights(
            f"{path} describes {row.name!r:.200} wrongly: {dtype} {list(row.shape)} at {row.offset:,}", hint=AGAIN
        )
    start = data + row.offset
    stop = start + stored_bytes(dtype, row.shape)
    shape = values.get(SHAPE + row.name, list(row.shape))
    if not isinstance(shape, list) or min(shape, default=1) < 0 or math.prod(shape) != math.prod(row.shape):
        raise BadWeights(f"{path} says that {row.name!r:.200}, {list(row.shape)}, was {shape!r:.200}", hint=AGAIN)
    packing = "" if kind.block == 1 else "ggml"
    return Entry(name=row.name, dtype=dtype, shape=tuple(shape), start=start, stop=stop, path=path, packing=packing)


def _check_extent(path: Path, entries: Iterable[Entry], size: int) -> None:
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start < at:
            raise BadWeights(f"{path}: {entry.name!r:.200} overlaps the tensor before it", hint=AGAIN)
        at = entry.stop
    if at > size:
        raise BadWeights(f"{path} is truncated: {size:,} bytes, and its header speaks of {at:,}", hint=AGAIN)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
