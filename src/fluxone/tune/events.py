"""The curves of a run as TensorBoard reads them, written without its package.

    record: length (8 bytes), its CRC, an Event in protobuf, its CRC        file: a version, then one record a step

Source: tensorflow/core/lib/io/record_writer.cc, lib/hash/crc32c.h, util/event.proto, framework/summary.proto.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

POLYNOMIAL = 0x82F63B78  # Castagnoli's, reversed
MASK = 0xA282EAD8
VERSION = b"brain.Event:2"


def _table() -> list[int]:
    rows = []
    for row in range(256):
        for _ in range(8):
            row = (row >> 1) ^ (POLYNOMIAL if row & 1 else 0)
        rows.append(row)
    return rows


TABLE = _table()


class Events:
    """One file of a folder, made at its first record. A run that goes on writes another beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path: Path | None = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Note these numbers of a step."""
        rows = (_field(1, tag.encode()) + b"\x15" + struct.pack("<f", value) for tag, value in values.items())
        summary = b"".join(_field(1, row) for row in rows)
        self._write(b"\x10" + _varint(step) + _field(5, summary))

    def _write(self, event: bytes) -> None:
        now = time.time()
        if self._path is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._path = self.folder / f"events.out.tfevents.{int(now)}.fluxone.{os.getpid()}"
            self._write(_field(3, VERSION))
        with self._path.open("ab") as file:
            file.write(record(b"\x09" + struct.pack("<d", now) + event))


def record(data: bytes) -> bytes:
    """The data between its length and their checks."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", checked(length)) + data + struct.pack("<I", checked(data))


def checked(data: bytes) -> int:
    """The masked CRC-32C."""
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    value ^= 0xFFFFFFFF
    return (((value >> 15) | (value << 17)) + MASK) & 0xFFFFFFFF


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes in protobuf."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
