"""Which tensors of a file are packed, and which are only there to unpack another: one entry of the two, or five.

    X.weight + X.scale_weight (or X.weight_scale)                fp8 with a scale        "scaled"
    X.weight + X.weight.absmax, .quant_map, .quant_state...      bitsandbytes, 4 bits    "bnb 4-bit"
    X.weight + X.SCB                                             bitsandbytes, 8 bits    "bnb 8-bit"

It reads headers, and of tensors only the short JSON texts that some packings keep in them; it imports no torch.

Source: comfyanonymous/ComfyUI, `QUANTIZATION.md` and `comfy/quant_ops.py`; bitsandbytes-foundation/bitsandbytes,
`functional.QuantState.as_dict` and `nn.Linear8bitLt`; the headers of published files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fluxone.errors import BadFile, BadWeights
from fluxone.weights.safetensors import AGAIN, BITS, Entry, Header, merge

SCALED, BNB4, BNB8 = "scaled", "bnb 4-bit", "bnb 8-bit"
WEIGHT = ".weight"
SCALES = (".scale_weight", ".weight_scale")  # the two generations
UNUSED = (".scale_input", ".input_scale")  # for activations in fp8, which are not used here
MARKER = "scaled_fp8"
LAYER = ".comfy_quant"
LISTED = "_quantization_metadata"
FP8 = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
INT8 = "int8_tensorwise"
SCALABLE = {"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "I8"}
FOUR = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
FORMAT = ".weight_format"  # how bitsandbytes once kept int8: always by rows in files
LONGEST = 1 << 14  # bytes of a text in a tensor
MOST_BLOCK = 1 << 16


def unpacked(headers: tuple[Header, ...]) -> tuple[Header, ...]:
    """The headers with packed tensors as one entry each, of the shape that they have when they are unpacked.

    A tensor whose packing is of no known kind is left as it is, with all that belongs to it.

    Raises:
        BadFile: a text in a tensor cannot be read.
        BadWeights: the tensors of a packing do not fit each other.
    """
    entries = merge(headers)
    listed = {layer: fields for header in headers for layer, fields in _listed(header).items()}
    found: dict[str, Entry] = {}
    gone: set[str] = set()
    for name, entry in entries.items():
        stem = name.removesuffix(WEIGHT)
        if name + ".absmax" in entries:
            state = next((name + ending for ending in FOUR if name + ending in entries), None)
            if state is not None:
                found[name] = _four(entry, entries, state)
        elif stem + ".SCB" in entries and stem != name and entry.dtype == "I8":
            found[name] = _eight(entry, entries[stem + ".SCB"])
            gone |= {stem + FORMAT}
        elif stem != name:
            scaled, sides = _scaled(entry, stem, entries, listed)
            if scaled is not None:
                found[name] = scaled
                gone |= sides
    gone |= {side.name for entry in found.values() for side in entry.beside.values()}
    gone |= {entry.name + ending for entry in found.values() if entry.packing == BNB4 for ending in FOUR}
    gone |= {name for name in entries if name == MARKER or name.endswith(f".{MARKER}")}
    if not gone:
        return headers
    kept = [[name for name in header.entries if name not in gone] for header in headers]
    return tuple(
        replace(header, entries={name: found.get(name, header.entries[name]) for name in names})
        for header, names in zip(headers, kept, strict=True)
    )


def _scaled(
    entry: Entry, stem: str, entries: Mapping[str, Entry], listed: Mapping[str, Any]
) -> tuple[Entry | None, set[str]]:
    """A weight with a scale, if it has one, and the names that belong to it."""
    scale = next((entries[stem + ending] for ending in SCALES if stem + ending in entries), None)
    if scale is None or stem + ".weight_scale_2" in entries:
        return None, set()
    fields = listed.get(stem, {}) if stem + LAYER not in entries else _text(entries[stem + LAYER])
    form = fields.get("format") if isinstance(fields, dict) else None
    known = form is None or form in FP8 or (form == INT8 and not fields.get("convrot"))
    dtype = FP8[str(form)] if form in FP8 and entry.dtype == "U8" else entry.dtype
    if not known or dtype not in SCALABLE:
        return None, set()
    if scale.dtype not in ("F32", "BF16", "F16") or not _scales(scale.shape, entry.shape):
        raise BadWeights(
            f"{entry.path}: {scale.name} is {scale.dtype} {list(scale.shape)}, {entry.name} {list(entry.shape)}",
            hint="a scale is one number, one a row, or one a block",
        )
    sides = {stem + ending for ending in (*UNUSED, LAYER) if stem + ending in entries}
    return replace(entry, dtype=dtype, packing=SCALED, beside={"scale": scale}), sides


def _scales(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether a scale of one shape can be spread over a weight of another."""
    if math.prod(scale) == 1:
        return True
    if len(weight) != 2:
        return False
    rows = scale if len(scale) == 2 else (*scale, 1)
    return len(rows) == 2 and all(few > 0 and many % few == 0 for few, many in zip(rows, weight, strict=True))


def _four(entry: Entry, entries: Mapping[str, Entry], state: str) -> Entry:
    fields = _text(entries[state])
    shape, block = fields.get("shape"), fields.get("blocksize")
    whole = isinstance(shape, list) and all(type(side) is int and side > 0 for side in shape)
    count = math.prod(shape) if isinstance(shape, list) and whole else 0
    if not count or type(block) is not int or not 2 <= block <= MOST_BLOCK or block & (block - 1):
        raise BadWeights(f"{entry.path}: {state} says {fields!s:.200}", hint=AGAIN)
    blocks = -(-count // block)
    beside = {"absmax": entries[entry.name + ".absmax"], "map": entries.get(entry.name + ".quant_map")}
    facts: dict[str, int | float | str] = {"block": block, "kind": state.rpartition("__")[2]}
    wanted = {"absmax": ("F32", blocks), "map": ("F32", 16)}
    if entry.name + ".nested_absmax" in entries:
        outer, offset = fields.get("nested_blocksize"), fields.get("nested_offset")
        if type(outer) is not int or outer < 1 or not isinstance(offset, (int, float)):
            raise BadWeights(f"{entry.path}: {state} says {fields!s:.200}", hint=AGAIN)
        facts |= {"outer": outer, "offset": float(offset)}
        beside |= {
            "outer": entries[entry.name + ".nested_absmax"],
            "outer map": entries.get(entry.name + ".nested_quant_map"),
        }
        wanted |= {"absmax": ("U8", blocks), "outer": ("F32", -(-blocks // outer)), "outer map": ("F32", 256)}
    sides = {role: side for role, side in beside.items() if side is not None}
    found = {role: (side.dtype, side.count) for role, side in sides.items()}
    # The bytes may be declared as another type of one or more bytes: bitsandbytes' quant_storage.
    if found != wanted or entry.count * BITS[entry.dtype] // 8 != -(-count // 2):
        raise BadWeights(
            f"{entry.path}: {entry.name} does not fit its packing: {entry.count:,} bytes for {count:,} numbers, "
            f"{found}, expected {wanted}",
            hint=AGAIN,
        )
    return replace(entry, dtype="U8", shape=tuple(shape or ()), packing=BNB4, beside=sides, facts=facts)


def _eight(entry: Entry, scale: Entry) -> Entry:
    if len(entry.shape) != 2 or scale.dtype not in ("F32", "F16", "BF16") or scale.count != entry.shape[0]:
        raise BadWeights(
            f"{entry.path}: {scale.name} is {scale.dtype} {list(scale.shape)}, {entry.name} {list(entry.shape)}",
            hint="bitsandbytes has one number a row",
        )
    return replace(entry, packing=BNB8, beside={"scale": scale})


def _listed(header: Header) -> dict[str, Any]:
    """Layers that a file's metadata says are quantized, by name."""
    if LISTED not in header.metadata:
        return {}
    try:
        layers = json.loads(header.metadata[LISTED])["layers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        layers = None
    if not isinstance(layers, dict):
        raise BadWeights(f"{header.path}: its metadata {LISTED} is not readable", hint=AGAIN)
    return layers


def _text(entry: Entry) -> dict[str, Any]:
    """The JSON object in a tensor of bytes."""
    if entry.stop - entry.start > LONGEST:
        raise BadWeights(f"{entry.path}: {entry.name} has {entry.stop - entry.start:,} bytes for a text", hint=AGAIN)
    try:
        with entry.path.open("rb") as file:
            file.seek(entry.start)
            fields = json.loads(file.read(entry.stop - entry.start).decode("utf-8"))
    except OSError as error:
        raise BadFile(f"{entry.path} cannot be read: {error.strerror or error}", hint="check the file") from None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise BadWeights(f"{entry.path}: {entry.name} holds no JSON object", hint=AGAIN)
    return fields
