"""Ways to spoil a file: bytes, JSON, headers of safetensors; all by the random source that they are given."""

from __future__ import annotations

import copy
import json
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

TRAP = "fuzz-was-executed"  # the file that an unpickled payload would make, in the working folder
DTYPES = ("F32", "BF16", "F16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "Q7", "", None, 5, "f32")
NUMBERS = (-1, 0, 1, 2, 3, 7, 255, 2**16, 10**6, 999_999, 2**31, 2**32, 2**53, 2**63 - 1, 2**64, 10**30, -(2**63))
NAMES = (
    "",
    ".",
    "..",
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "a\0b",
    "\ud800",
    "__metadata__",
    "a" * 5000,
    "img_in.weight",
    "double_blocks.99999999999.img_attn.qkv.weight",
    "double_blocks.-1.img_attn.qkv.weight",
    "single_blocks.٣.linear1.weight",
    "encoder.block.1000000.layer.0.SelfAttention.q.weight",
    "transformer.single_transformer_blocks.7777777.attn.to_q.lora_A.weight",
    "adapters.0.weight",
    "forward.weight",
    "__class__.weight",
    "\u202eweight",
)
VALUES = (None, True, False, [], {}, "", "x", 1.5, -0.0, math.nan, math.inf, -math.inf, [[]], [None], {"": None})


class Bomb:
    """A pickle that would leave a file behind if anything loaded it."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path(TRAP),)  # type: ignore[return-value]


def spoil_bytes(data: bytes, random: Random) -> bytes:
    """Change, cut, drop, repeat, swap or insert some bytes; most often near the beginning."""
    out = bytearray(data)
    for _ in range(random.randint(1, 5)):
        near = min(len(out), 200 if random.random() < 0.5 else len(out))
        at = random.randrange(near) if near else 0
        match random.randrange(8):
            case 0:
                out[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del out[at : at + random.randint(1, 64)]
            case 2:
                out[at:at] = out[at : at + random.randint(1, 64)]
            case 3:
                out[at : at + 8] = struct.pack("<Q", random.choice(NUMBERS) & 0xFFFFFFFFFFFFFFFF)
            case 4:
                out[at : at + 4] = struct.pack(">I", random.choice(NUMBERS) & 0xFFFFFFFF)
            case 5:
                del out[random.randrange(len(out) + 1) :]
            case 6:
                out[at : at + 1] = bytes([out[at] ^ (1 << random.randrange(8))]) if at < len(out) else b""
            case _:
                out[at:at] = random.randbytes(random.randint(1, 300))
    return bytes(out)


def nonsense(random: Random, like: Any = None) -> Any:
    """A value that nobody expects, sometimes of the kind that was there."""
    match random.randrange(8):
        case 0:
            return random.choice(NUMBERS)
        case 1:
            return float(random.choice(NUMBERS))
        case 2:
            return random.choice(NAMES)
        case 3:
            return [random.choice(NUMBERS) for _ in range(random.randrange(6))]
        case 4:
            return "x" * random.choice((1, 1000, 300_000))
        case 5:
            return {random.choice(NAMES): copy.deepcopy(random.choice(VALUES))}
        case 6:
            deep: Any = []
            for _ in range(random.choice((3, 500))):
                deep = [deep]
            return deep
        case _:
            return (
                copy.deepcopy(random.choice(VALUES)) if like is None else type(like)() if like != type(like)() else None
            )


def spoil_tree(tree: Any, random: Random) -> Any:
    """A JSON value with some of its nodes replaced, dropped, renamed or repeated."""
    try:
        tree = json.loads(json.dumps(tree))  # what is deep goes through C here; deepcopy has two frames a level
    except RecursionError:
        return nonsense(random)  # deep within deep
    for _ in range(random.randint(1, 3)):
        holders = _holders(tree)
        if not holders:
            return nonsense(random, tree)
        holder = random.choice(holders)
        key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        match random.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[random.choice(NAMES)] = holder.pop(key)
            case 2 if isinstance(holder, dict):
                holder[random.choice(NAMES)] = nonsense(random)
            case 3 if isinstance(holder[key], int | float):
                holder[key] = random.choice(NUMBERS)
            case _:
                holder[key] = nonsense(random, holder[key])
    return tree


def _holders(tree: Any) -> list[Any]:
    found, todo = [], [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict | list) and node:
            found.append(node)
            todo += node.values() if isinstance(node, dict) else node
    return found


def spoil_json(data: bytes, random: Random) -> bytes:
    """JSON that is spoiled as a tree, or as text."""
    if random.random() < 0.2:
        return spoil_bytes(data, random)
    if random.random() < 0.05:
        return random.choice((b"[" * 200_000, b'{"a":' * 100_000, b"", b"null", b"[]", b"\xff\xfe{}", b'{"a":1,"a":2}'))
    return _text(spoil_tree(json.loads(data), random))


def _text(tree: Any) -> bytes:
    try:
        return json.dumps(tree).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b'{"deep":' * 2000 + b"1" + b"}" * 2000


def spoil_safetensors(data: bytes, random: Random) -> bytes:
    """A safetensors file whose header says something else than the truth, or whose bytes are spoiled."""
    if random.random() < 0.25:
        return spoil_bytes(data, random)
    size = struct.unpack("<Q", data[:8])[0]
    fields, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    for _ in range(random.randint(1, 3)):
        fields, body = random.choice(HEADER_TRICKS)(fields, body, random)
    raw = _text(fields)
    if random.random() < 0.1:
        raw = raw[:-1] + b',"twice":{},"twice":{}}'
    length = len(raw)
    if random.random() < 0.1:
        length = random.choice((0, 1, length - 1, length + 1, 2**20, 10**8, 10**8 + 1, 2**62, 2**64 - 1))
    return struct.pack("<Q", length) + raw + body


Trick = Callable[[dict[str, Any], bytes, Random], tuple[dict[str, Any], bytes]]


def _some(fields: dict[str, Any], random: Random) -> dict[str, Any]:
    rows = [row for name, row in fields.items() if name != "__metadata__" and isinstance(row, dict)]
    return random.choice(rows) if rows else {}


def _tree(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    found = spoil_tree(fields, random)
    return (found if isinstance(found, dict) else {"x": found}), body


def _dtype(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    _some(fields, random)["dtype"] = random.choice(DTYPES)
    return fields, body


def _same_size(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    """Another type and shape of the same number of bytes: nothing is wrong but the meaning."""
    row = _some(fields, random)
    if "data_offsets" in row and isinstance(row["data_offsets"], list) and len(row["data_offsets"]) == 2:
        start, stop = row["data_offsets"]
        if isinstance(start, int) and isinstance(stop, int):
            row["dtype"], width = random.choice((("U8", 1), ("F8_E4M3", 1), ("BF16", 2), ("I32", 4), ("F64", 8)))
            count = max(stop - start, 0) // width
            row["shape"] = random.choice(([count], [1, count], [count, 1], [0, 10**12, count], [count // 2, 2]))
    return fields, body


def _shape(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    row = _some(fields, random)
    given = row.get("shape")
    row["shape"] = random.choice(
        (
            [],
            [0],
            [0, 2**62],
            [2**40, 2**40],
            [-1, -8],
            [1] * 40,
            [1.0],
            ["4"],
            None,
            8,
            [True],
            given[::-1] if isinstance(given, list) else [],
        )
    )
    return fields, body


def _offsets(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    row, other = _some(fields, random), _some(fields, random)
    given = other.get("data_offsets")
    row["data_offsets"] = random.choice(
        (given, [0, 0], [0, len(body)], [len(body), 0], [2**63, 2**63 + 8], [-8, 0], [0], None)
    )
    return fields, body


def _rename(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    if fields:
        fields[random.choice((*NAMES, *fields))] = fields.pop(random.choice(list(fields)))
    return fields, body


def _many(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    """A header of very many empty tensors."""
    stem = random.choice(("x.{}", "double_blocks.{}.img_attn.norm.query_norm.scale", "lora_unet_{}.alpha"))
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [len(body), len(body)]}
    return fields | {stem.format(n): empty for n in range(random.choice((10, 3000)))}, body


def _numbers(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    """NaN, infinity and noise in place of numbers."""
    at = random.randrange(len(body) + 1) // 8 * 8
    return fields, body[:at] + random.choice((b"\xff" * 8, b"\x00\x00\x80\x7f" * 2, random.randbytes(8))) + body[
        at + 8 :
    ]


def _metadata(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    keys = ("lora_adapter_metadata", "ss_tag_frequency", "modelspec.trigger_phrase", "format", random.choice(NAMES))
    value = random.choice(
        (nonsense(random), json.dumps(nonsense(random)), "[" * 5000, '{"transformer.lora_alpha": 1e999}')
    )
    return {"__metadata__": {random.choice(keys): value}, **fields}, body


def _longer(fields: dict[str, Any], body: bytes, random: Random) -> tuple[dict[str, Any], bytes]:
    return fields, body + bytes(random.choice((1, 8, 4096)))


HEADER_TRICKS: tuple[Trick, ...] = (
    _tree, _dtype, _same_size, _shape, _offsets, _rename, _many, _numbers, _metadata, _longer,
)  # fmt: skip


def mislabelled(random: Random, others: list[bytes]) -> bytes:
    """The content of another kind of file: a pickle, an archive, a page, a picture, noise, or another sample."""
    bomb = pickle.dumps({"state_dict": Bomb()}, protocol=random.choice((0, 1, 2, 4, 5)))
    strangers = (
        bomb,
        b"PK\x03\x04" + bomb,
        b"GGUF" + struct.pack("<IQQ", 3, 2**62, 2**62),
        b"<!DOCTYPE html><html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        b"",
        b"\0" * 4096,
        b"\x1f\x8b\x08" + bytes(30),
        struct.pack("<Q", 2**63) + b"{",
        struct.pack("<Q", 2) + b"{}",
        random.randbytes(5000),
    )
    return random.choice((*strangers, *others))
