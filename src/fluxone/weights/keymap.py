"""Names in files and names in the network: rows, formats, and plans that lead from one to the other.

    file's names  --recognise-->  Format of each part  --plan-->  {native name: Pick of the file's tensors}

It handles names and shapes only, never tensors, and imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache

from fluxone.errors import BadWeights
from fluxone.weights.safetensors import AGAIN, listing

TRANSFORMER, AUTOENCODER, T5, CLIP = PARTS = ("transformer", "autoencoder", "t5", "clip")

# Endings of names in files whose numbers are packed in a way that cannot be unpacked (see `packed.find` for the rest).
PACKED = {
    ".scale_weight": "fp8 with a scale for something else than a weight",
    ".weight_scale": "one of ComfyUI's rarer quantizations",
    ".comfy_quant": "one of ComfyUI's rarer quantizations",
    ".absmax": "4-bit bitsandbytes without its description",
    ".SCB": "8-bit bitsandbytes without its numbers",
    ".qweight": "Nunchaku's or another 4-bit quantization",
}

WILD = re.compile(r"\\\{([a-z])\\\}|\\\*")


class Change(Enum):
    """What happens to the numbers on the way; each change is its own inverse."""

    SAME = "same"
    SWAP = "the two halves of the first axis change places"
    FLAT = "a linear weight (out, in) is a 1x1 convolution (out, in, 1, 1) in the network"


@dataclass(frozen=True)
class Row:
    """One native name and its counterpart in a file.

    `{n}` and `{m}` stand for numbers, `{r}` for a number that counts from the other end in the file, and `*`
    for `weight` or `bias`. Several counterparts lie one after another on the native tensor's first axis: each
    as long as the format's width, the last as long as what is left.
    """

    native: str
    other: tuple[str, ...]
    change: Change = field(default=Change.SAME, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class Format:
    """How one part of a model is written in one kind of file.

    Attributes:
        part: one of `PARTS`.
        marks: names (after the prefix) that are all in such a file, and in no other format's.
        rows: the table; empty if the names are the network's own.
        prefix: before every name in the file.
        native_prefix: before every name in the network, but not in the file; only without rows.
        ignored: patterns of names (prefix included) that belong to no part of ours.
        aliases: name in the file -> the name that it repeats or stands in for.
        width: the native name whose first axis is the width of a piece of a fused tensor.
    """

    name: str
    part: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    prefix: str = ""
    native_prefix: str = ""
    ignored: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    width: str = ""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Where a native tensor comes from: names in the file, in order, and what happens to the numbers."""

    names: tuple[str, ...]
    change: Change = Change.SAME


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every native tensor that a file gives, and the names that nothing asked for."""

    picks: dict[str, Pick]
    unknown: tuple[str, ...]
    incomplete: tuple[str, ...]  # names that are missing from the file beside their fused neighbours


def recognise(names: Collection[str], formats: Iterable[Format]) -> dict[str, Format]:
    """Find the one format of each part that the names speak.

    Raises:
        BadWeights: two formats of the same part are in one file.
    """
    found: dict[str, Format] = {}
    for row in formats:
        if not all(row.prefix + mark in names for mark in row.marks):
            continue
        if row.part in found:
            raise BadWeights(f"the file speaks both {found[row.part].name} and {row.name}", hint=AGAIN)
        found[row.part] = row
    return found


def claim(names: Iterable[str], formats: Mapping[str, Format]) -> tuple[dict[str, list[str]], list[str]]:
    """Deal a file's names out to its parts; the second value is what belongs to none."""
    ignored = [re.compile(pattern) for row in formats.values() for pattern in row.ignored]
    dealt: dict[str, list[str]] = {part: [] for part in formats}
    left: list[str] = []
    prefixes = sorted(formats.items(), key=lambda item: -len(item[1].prefix))
    for name in names:
        if any(pattern.fullmatch(name) for pattern in ignored):
            continue
        part = next((part for part, row in prefixes if name.startswith(row.prefix)), None)
        (left if part is None else dealt[part]).append(name)
    return dealt, left


def packing(names: Iterable[str]) -> tuple[str, str] | None:
    """How a file's numbers are packed, if they are, and the first name that tells."""
    found = ((kind, name) for name in names for ending, kind in PACKED.items() if name.endswith(ending))
    return next(found, None)


def plan(names: Collection[str], form: Format) -> Plan:
    """Lead from a file's names (prefix included) to the native ones."""
    short = {name[len(form.prefix) :]: name for name in names}
    for alias, real in form.aliases.items():
        if alias in short:
            stand_in = short.pop(alias)
            short.setdefault(real, stand_in)
    if not form.rows:
        return Plan(
            picks={form.native_prefix + name: Pick(names=(full,)) for name, full in short.items()},
            unknown=(),
            incomplete=(),
        )
    matches = [(full, _find(form.rows, name)) for name, full in short.items()]
    unknown = tuple(full for full, match in matches if match is None)
    top = max((int(match.numbers["r"]) for _, match in matches if match and "r" in match.numbers), default=0)
    pieces: dict[str, dict[int, str]] = {}
    rows: dict[str, tuple[Row, dict[str, str]]] = {}
    for full, match in matches:
        if match is not None:
            native = _fill(match.row.native, _reverse(match.numbers, top))
            pieces.setdefault(native, {})[match.piece] = full
            rows[native] = (match.row, match.numbers)
    incomplete = tuple(
        form.prefix + _fill(rows[native][0].other[piece], rows[native][1])
        for native, got in pieces.items()
        for piece in range(len(rows[native][0].other))
        if piece not in got
    )
    picks = {
        native: Pick(names=tuple(got[piece] for piece in sorted(got)), change=rows[native][0].change)
        for native, got in pieces.items()
    }
    return Plan(picks=picks, unknown=unknown, incomplete=incomplete)


def spread(names: Collection[str], form: Format) -> dict[str, Pick]:
    """Lead from native names to a file's: for each, the names of its pieces there, prefix included.

    Raises:
        BadWeights: the format has no row for a name.
    """
    if not form.rows:
        return {name: Pick(names=(form.prefix + name.removeprefix(form.native_prefix),)) for name in names}
    found = {name: _find_native(form.rows, name) for name in names}
    strangers = [name for name, match in found.items() if match is None]
    if strangers:
        raise BadWeights(f"{form.name} has no place for {listing(strangers)}", hint="use another layout")
    matches = {name: match for name, match in found.items() if match is not None}
    top = max((int(match.numbers["r"]) for match in matches.values() if "r" in match.numbers), default=0)
    return {
        name: Pick(
            names=tuple(form.prefix + _fill(other, _reverse(match.numbers, top)) for other in match.row.other),
            change=match.row.change,
        )
        for name, match in matches.items()
    }


def lengths(total: int, pieces: int, width: int) -> list[int]:
    """How long each piece of a fused tensor's first axis is."""
    return [width] * (pieces - 1) + [total - width * (pieces - 1)]


def native_shapes(picks: Mapping[str, Pick], shape: Callable[[str], tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shape that each native tensor will have, from the shapes in the file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for native, pick in picks.items():
        first = shape(pick.names[0])
        if len(pick.names) > 1:
            first = (sum(shape(name)[0] for name in pick.names), *first[1:])
        flat = pick.change is Change.FLAT and len(first) == 2
        shapes[native] = (*first, 1, 1) if flat else first
    return shapes


@dataclass(frozen=True)
class _Match:
    row: Row
    piece: int
    numbers: dict[str, str]


@cache
def _pattern(text: str) -> re.Pattern[str]:
    def group(wild: re.Match[str]) -> str:
        return rf"(?P<{wild[1]}>\d+)" if wild[1] else r"(?P<end>weight|bias)"

    return re.compile(WILD.sub(group, re.escape(text)))


def _find(rows: Iterable[Row], name: str) -> _Match | None:
    for row in rows:
        for piece, other in enumerate(row.other):
            if match := _pattern(other).fullmatch(name):
                return _Match(row, piece, match.groupdict())
    return None


def _find_native(rows: Iterable[Row], name: str) -> _Match | None:
    for row in rows:
        if match := _pattern(row.native).fullmatch(name):
            return _Match(row, 0, match.groupdict())
    return None


def _reverse(numbers: Mapping[str, str], top: int) -> dict[str, str]:
    return {key: str(top - int(value)) if key == "r" else value for key, value in numbers.items()}


def _fill(text: str, numbers: Mapping[str, str]) -> str:
    for key, value in numbers.items():
        text = text.replace("*" if key == "end" else f"{{{key}}}", value)
    return text
