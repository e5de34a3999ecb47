"""The safetensors container: a strict reader of headers, and a writer that repeats itself to the byte.

    8 bytes: length n | n bytes: JSON {name: {dtype, shape, data_offsets}} | the tensors, without gaps

Reading a header touches no tensor and imports no torch. It knows nothing of what the names mean.

Source: the format's specification in huggingface/safetensors, `README.md`.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluxone.errors import BadFile, BadWeights

BITS: dict[str, int] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "U16": 16,
    "I16": 16,
    "U32": 32,
    "I32": 32,
    "U64": 64,
    "I64": 64,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "F64": 64,
    "C64": 64,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
MAX_HEADER = 100_000_000  # bytes: the reference implementation's bound
MAX_AXES = 32
AGAIN = "download or copy the file again"

PICKLED = "the pickled format can run code when it is opened, so it never is; use the .safetensors file instead"
STARTS: dict[bytes, tuple[str, str]] = {
    b"PK\x03\x04": ("a zip archive, probably a pickled PyTorch checkpoint", PICKLED),
    b"\x80\x02": ("a Python pickle", PICKLED),
    b"\x80\x03": ("a Python pickle", PICKLED),
    b"\x80\x04": ("a Python pickle", PICKLED),
    b"\x80\x05": ("a Python pickle", PICKLED),
    b"GGUF": ("a GGUF file", "a model can come as GGUF, an adapter or a shard cannot: use the .safetensors file"),
    b"version https://git-lfs": ("a git-lfs pointer, not the file itself", "run `git lfs pull` in that folder"),
    b"<": ("a web page", "the download gave a page instead of the file: download it again, logged in if need be"),
    b"\x89PNG": ("a picture", "give the model's .safetensors file"),
    b"\xff\xd8\xff": ("a picture", "give the model's .safetensors file"),
}
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of a file.

    Attributes:
        dtype: the container's word for the type.
        shape: of the numbers that it stands for, packed or not.
        start, stop: bytes from the beginning of the file.
        path: the file.
        packing: how the numbers are packed: a row of `packed.unpack.SCHEMES`; "" if they lie there as they are.
        beside: what of the packing lies in other tensors, by its role.
        facts: what else the packing needs to be undone.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    path: Path
    packing: str = ""
    beside: Mapping[str, Entry] = field(default_factory=dict)
    facts: Mapping[str, int | float | str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the tensor, with those of the tensors beside it."""
        return self.stop - self.start + sum(side.bytes for side in self.beside.values())


@dataclass(frozen=True, kw_only=True)
class Header:
    """All that a file says of itself before its tensors. `data` is where those begin, `size` the whole; bytes.

    Of a network that is given in memory (`held.py`) `held` has the tensors, and there is no file.
    """

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str] = field(default_factory=dict)
    data: int
    size: int
    container: str = "safetensors"
    held: Mapping[str, Any] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """Read and check the header of one file: names once, known types, sizes that add up, no gaps, no overlaps.

    Raises:
        BadFile: there is no such file, or it is something else.
        BadWeights: it is a safetensors file, but a broken one.
    """
    if path.suffix.lower() in PICKLES:
        raise BadFile(f"{path} is a pickled checkpoint", hint=PICKLED)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            raw = _read_json(path, file.read(8), size, file.read)
    except FileNotFoundError:
        raise BadFile(f"{path} does not exist", hint="check the path") from None
    except OSError as error:
        raise BadFile(
            f"{path} cannot be read: {error.strerror or error}", hint="check the path and its rights"
        ) from None
    data = 8 + len(raw)
    fields = _parse(path, raw)
    metadata = _metadata(path, fields.pop("__metadata__", {}))
    entries = {name: _entry(path, name, value, data) for name, value in fields.items()}
    _check_extent(path, entries.values(), data, size)
    return Header(path=path, entries=entries, metadata=metadata, data=data, size=size)


def read_index(path: Path) -> list[Header]:
    """Read the headers of all shards that a `*.safetensors.index.json` names, in the order of their file names.

    Raises:
        BadFile: the index is broken, or a shard is missing.
        BadWeights: the index and its shards contradict each other, or two shards hold the same tensor.
    """
    where = read_json(path).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise BadFile(f"{path} has no weight_map from tensors to files", hint=AGAIN)
    files = sorted(set(where.values()))
    outside = [name for name in files if Path(name).name != name or name in (".", "..")]
    if outside:
        raise BadFile(f"{path} names files outside its folder: {listing(outside)}", hint="do not trust this model")
    absent = [name[:200] for name in files if not os.path.isfile(path.parent / name)]  # False for a name too long, too
    if absent:
        raise BadFile(f"{path.parent} lacks {len(absent)} of {len(files)} shards: {listing(absent)}", hint=AGAIN)
    headers = [read_header(path.parent / name) for name in files]
    held = {header.path.name: header.entries for header in headers}
    lost = sorted(name for name, file in where.items() if name not in held[file])
    if lost:
        raise BadWeights(f"{path} names {len(lost)} tensors that its files lack: {listing(lost)}", hint=AGAIN)
    merge(headers)
    return headers


def merge(headers: Iterable[Header]) -> dict[str, Entry]:
    """The tensors of several files as one table.

    Raises:
        BadWeights: two files hold a tensor of the same name.
    """
    merged: dict[str, Entry] = {}
    for header in headers:
        twice = sorted(merged.keys() & header.entries.keys())
        if twice:
            raise BadWeights(f"{header.path} repeats tensors of another shard: {listing(twice)}", hint=AGAIN)
        merged |= header.entries
    return merged


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        BadFile: it is missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFile(f"{path} does not exist", hint="check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{path} is not readable JSON ({error})", hint=AGAIN) from None
    if not isinstance(value, dict):
        raise BadFile(f"{path} holds a JSON {type(value).__name__}, not an object", hint=AGAIN)
    return value


def listing(names: Iterable[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    all_names = list(names)
    more = f" and {len(all_names) - most} more" if len(all_names) > most else ""
    return ", ".join(all_names[:most]) + more


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A tensor to be written: its name, type and shape, and a function that gives its bytes when their turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: Callable[[], bytes | memoryview]


def write(path: Path, outlines: Iterable[Outline], metadata: Mapping[str, str]) -> None:
    """Write a file tensor by tensor. The same content gives the same bytes: wide types first, then by name."""
    rows = sorted(outlines, key=lambda row: (-BITS[row.dtype], row.name))
    fields: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for row in rows:
        stop = at + math.prod(row.shape) * BITS[row.dtype] // 8
        fields[row.name] = {"dtype": row.dtype, "shape": list(row.shape), "data_offsets": [at, stop]}
        at = stop
    raw = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)  # tensors begin on a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for row in rows:
            file.write(row.content())
        file.flush()
        os.fsync(file.fileno())


def _read_json(path: Path, head: bytes, size: int, read: Callable[[int], bytes]) -> bytes:
    """The header's bytes, or a sentence on what the file is instead."""
    if size == 0:
        raise BadFile(f"{path} is empty", hint=AGAIN)
    sample = head + read(64)
    if len(sample) < 10 or sample[8:9] != b"{":
        raise _stranger(path, sample)
    length: int = struct.unpack("<Q", head)[0]
    if length > MAX_HEADER:
        raise BadWeights(f"{path} claims a header of {length:,} bytes; {MAX_HEADER:,} is the limit", hint=AGAIN)
    if 8 + length > size:
        raise BadWeights(f"{path} is truncated: {size:,} bytes, and its header alone has {length:,}", hint=AGAIN)
    taken = sample[8 : 8 + length]
    return taken + read(length - len(taken))


def _stranger(path: Path, sample: bytes) -> BadFile:
    """What a file is that has no header."""
    for start, (what, hint) in STARTS.items():
        if sample.lstrip().startswith(start):
            return BadFile(f"{path} is {what}", hint=hint)
    text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in sample)
    what = "a text file" if text else "not a safetensors file: its header does not begin where it should"
    return BadFile(f"{path} is {what}", hint="give the model's .safetensors file")


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise BadWeights(f"the header of {path} has names twice: {listing(twice)}", hint=AGAIN)
        return found

    try:
        fields = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BadWeights(f"the header of {path} is not readable JSON ({error})", hint=AGAIN) from None
    if not isinstance(fields, dict):
        raise BadWeights(f"the header of {path} is not a JSON object", hint=AGAIN)
    return fields


def _metadata(path: Path, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise BadWeights(f"the metadata in {path} is not a table of texts", hint=AGAIN)
    return value


def _entry(path: Path, name: str, value: Any, data: int) -> Entry:
    broken = BadWeights(f"{path} describes {name!r} wrongly: {value!r:.200}", hint=AGAIN)
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise broken
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    whole = all(
        isinstance(part, list) and all(type(number) is int and number >= 0 for number in part)
        for part in (shape, offsets)
    )
    if not whole or len(shape) > MAX_AXES or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise broken
    if math.prod(number or 1 for number in shape) >= 2**63:  # torch multiplies the axes of empty tensors too
        raise broken
    if not isinstance(dtype, str) or dtype not in BITS:
        raise BadWeights(f"{path} holds {name!r} as {dtype!r}", hint=f"known types are {', '.join(BITS)}")
    if math.prod(shape) * BITS[dtype] != 8 * (offsets[1] - offsets[0]):
        raise BadWeights(
            f"{path} gives {name!r}, {dtype} {shape}, {offsets[1] - offsets[0]:,} bytes; "
            f"it needs {math.prod(shape) * BITS[dtype] / 8:,.0f}",
            hint=AGAIN,
        )
    start, stop = (data + offset for offset in offsets)
    return Entry(name=name, dtype=dtype, shape=tuple(shape), start=start, stop=stop, path=path)


def _check_extent(path: Path, entries: Iterable[Entry], data: int, size: int) -> None:
    at = data
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start != at:
            what = "overlaps the tensor before it" if entry.start < at else "leaves a gap before it"
            raise BadWeights(f"{path}: {entry.name!r} {what} (bytes {entry.start:,} and {at:,})", hint=AGAIN)
        at = entry.stop
    if at > size:
        raise BadWeights(f"{path} is truncated: {size:,} bytes, and its header speaks of {at:,}", hint=AGAIN)
    if at < size:
        raise BadWeights(f"{path} has {size - at:,} bytes after its last tensor", hint=AGAIN)
