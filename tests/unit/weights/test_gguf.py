"""Headers of GGUF are read strictly, in bounded memory; whatever is wrong with them is one error."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from fluxone.errors import BadFile, BadWeights
from fluxone.weights.gguf import ALIGNMENT, is_gguf, read_header, write
from fluxone.weights.packed.ggml import TYPES
from fluxone.weights.safetensors import Outline

Row = tuple[str, tuple[int, ...], int, int]


def text(word: str | bytes) -> bytes:
    raw = word if isinstance(word, bytes) else word.encode()
    return struct.pack("<Q", len(raw)) + raw


def raw(
    rows: list[Row], values: bytes = b"", *, data: int = 4096, version: int = 3, tensors: int = -1, keys: int = 0
) -> bytes:
    """A file with these tensors (name, sizes innermost first, type, offset), and so many bytes after them."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(rows) if tensors < 0 else tensors, keys) + values
    for name, shape, kind, offset in rows:
        head += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", side) for side in shape)
        head += struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % ALIGNMENT) + bytes(data)


F32, Q8_0 = TYPES["F32"].number, TYPES["Q8_0"].number
ONE: Row = ("a", (4,), F32, 0)
HUGE = 2**62
BROKEN: dict[str, tuple[bytes, str]] = {
    "magic only": (b"GGUF", "ends in its header"),
    "version 1": (raw([ONE], version=1), "GGUF of version 1"),
    "other byte order": (raw([ONE], version=3 << 24), "byte order of other machines"),
    "many tensors": (raw([ONE], tensors=HUGE), "claims 4,611,686,018,427,387,904 tensors"),
    "many values": (raw([ONE], keys=HUGE), "claims .* values"),
    "more tensors than there are": (raw([ONE], tensors=900, data=0), "ends in its header|describes"),
    "long name": (raw([("x" * 70_000, (4,), F32, 0)]), "describes its tensor 1 wrongly"),
    "name beyond the end": (raw([], tensors=1, values=struct.pack("<Q", HUGE)), "ends in its header"),
    "name that is no text": (raw([], tensors=1, values=text(b"\xff\xfe")), "text in its header that is none"),
    "many axes": (raw([("a", tuple([1] * 40), F32, 0)]), "describes its tensor 1 wrongly"),
    "unknown type": (raw([("a", (4,), 77, 0)]), "as type 77 of GGML"),
    "a type that is gone": (raw([("a", (32,), 4, 0)]), "as type 4 of GGML"),
    "half a block": (raw([("a", (40,), Q8_0, 0)]), "describes 'a' wrongly: Q8_0"),
    "between two places": (raw([("a", (4,), F32, 5)]), "describes 'a' wrongly"),
    "twice": (raw([ONE, ONE]), "names twice"),
    "overlap": (raw([("a", (16,), F32, 0), ("b", (4,), F32, 32)]), "'b' overlaps"),
    "outside": (raw([("a", (HUGE,), F32, 0)]), "is truncated"),
    "sizes that overflow": (raw([("a", (HUGE, HUGE), F32, 0)]), "is truncated"),
    "offset that overflows": (raw([("a", (4,), F32, HUGE)]), "is truncated"),
    "alignment 0": (raw([ONE], text("general.alignment") + struct.pack("<II", 4, 0), keys=1), "aligns its tensors"),
    "alignment is a word": (raw([ONE], text("general.alignment") + struct.pack("<I", 8) + text("x"), keys=1), "aligns"),
    "unknown value": (raw([ONE], text("k") + struct.pack("<I", 99), keys=1), "value of the unknown type 99"),
    "lists in lists": (raw([ONE], text("k") + struct.pack("<IIQ", 9, 9, 1), keys=1), "unknown type|ends in"),
    "endless list": (raw([ONE], text("k") + struct.pack("<IIQ", 9, 0, HUGE), keys=1), "ends in its header"),
    "endless words": (raw([ONE], text("k") + struct.pack("<IIQ", 9, 8, HUGE), keys=1), "ends in its header|none"),
    "a shape that is none": (
        raw([ONE], text("comfy.gguf.orig_shape.a") + struct.pack("<IIQii", 9, 5, 2, -2, -2), keys=1),
        "says that 'a'",
    ),
    "a shape of another count": (
        raw([ONE], text("comfy.gguf.orig_shape.a") + struct.pack("<IIQii", 9, 5, 2, 3, 3), keys=1),
        "says that 'a'",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_header_is_refused(fault: str, tmp_path: Path) -> None:
    content, words = BROKEN[fault]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert is_gguf(path)
    tracemalloc.start()
    with pytest.raises(BadWeights, match=words) as caught:
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_something_else_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04")
    assert not is_gguf(tmp_path / "m.gguf")
    assert not is_gguf(tmp_path / "absent.gguf")
    with pytest.raises(BadFile, match="is no GGUF file"):
        read_header(tmp_path / "m.gguf")
    with pytest.raises(BadFile, match="cannot be read"):
        read_header(tmp_path / "absent.gguf")


def sound(path: Path) -> bytes:
    rows = [
        Outline(name=name, dtype=kind, shape=(3, 32), content=lambda size=size: bytes(size))  # type: ignore[misc]
        for name, kind, size in (("a", "F32", 384), ("b", "Q8_0", 102))
    ]
    write(path, rows, {"general.architecture": "flux", "general.file_type": 7})
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    content = sound(path)
    header = read_header(path)
    assert {name: (entry.dtype, entry.shape, entry.packing) for name, entry in header.entries.items()} == {
        "a": ("F32", (3, 32), ""),
        "b": ("Q8_0", (3, 32), "ggml"),
    }
    assert all(entry.start % ALIGNMENT == 0 for entry in header.entries.values())
    assert header.metadata == {"general.architecture": "flux", "general.file_type": "7"}
    assert sound(path) == content


def test_every_spoiled_byte_is_an_error_of_ours_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    whole, draw = sound(path), random.Random(0)
    refused = 0
    for _ in range(300):
        content = bytearray(whole[: draw.randrange(4, len(whole))] if draw.random() < 0.3 else whole)
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(4, min(len(content), 200))] = draw.choice((0, 1, 8, 9, 127, 255))
        path.write_bytes(content)
        try:
            read_header(path)
        except BadWeights:
            refused += 1
    assert refused > 150
