"""From one weight layout to another: tensor by tensor, checked by reading the result again, whole or not at all.

    files --Native--> native rows --layout's names, cut as it wants--> type or packing --write--> temporary --> OUT

Memory holds the tensor in hand. The same model gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fluxone.errors import BadRequest, CannotWrite
from fluxone.weights import gguf, identify
from fluxone.weights.describe import Described
from fluxone.weights.formats import FORMATS
from fluxone.weights.keymap import PARTS, TRANSFORMER, Change, lengths, spread
from fluxone.weights.layouts import ARCHITECTURES, GGUF_TYPES, LAYOUTS, Want, code_of
from fluxone.weights.load import resolve
from fluxone.weights.locate import TOKENIZERS, Source, in_folder, layout_of, tokenizer_near
from fluxone.weights.mapped import DTYPES
from fluxone.weights.native import Native
from fluxone.weights.packed.find import FP8, LAYER, SCALES, WEIGHT
from fluxone.weights.packed.quantize import BLOCKS, in_blocks, narrowed, scale_of
from fluxone.weights.parts import FOLDERS, TITLES, file_parts, folder_part, open_part
from fluxone.weights.recheck import Checked, compare
from fluxone.weights.safetensors import BITS, Outline, write
from fluxone.weights.save import whole_file, write_folder

Told = Callable[[int, int, str], None]

SPARE = 64_000_000  # bytes that are left free on the disk


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written. `size` in bytes; `left_out`: parts of the model that the result does not hold; `lacking`: what
    a folder needs to be loaded, and its source did not have."""

    path: Path
    parts: tuple[str, ...]
    size: int
    left_out: tuple[str, ...]
    checked: Checked | None
    lacking: tuple[str, ...] = ()


@dataclass
class _Part:
    """One part on its way: its tensors, what each will be written as, and the outlines of the result."""

    native: Native
    written: dict[str, str] = field(default_factory=dict)
    outlines: list[Outline] = field(default_factory=list)


def convert(
    source: str,
    out: Path | str,
    want: Want,
    *,
    part: str | None = None,
    given: Mapping[str, Path] | None = None,
    check: bool = True,
    told: Told = lambda done, of, name: None,
) -> Converted:
    """Write a model, or a part of one, in another layout.

    Args:
        source: a name, hub id, folder or file.
        part: which part goes into a layout of one part; None is the transformer, or the only one.
        given: parts that lie elsewhere, files or folders.
        check: read the result again and hold every number against the source.
        told: called with bytes written, of how many, and the tensor in work.

    Raises:
        BadRequest: the layout is not for what the source holds.
        BadFile, BadWeights: the source is broken, or its numbers do not fit the type.
        CannotWrite: something is there already, the disk is too small, or the place is not writable.
    """
    out = Path(out)
    if out.suffix not in want.layout.endings:
        ending = want.layout.endings[0]
        raise BadRequest(
            f"{out} is to be in the layout {want.name}",
            hint=f"end its name in {ending}" if ending else "give a folder's name",
        )
    if out.exists():
        raise CannotWrite(f"{out} is there already", hint="give a new name, or remove it")
    found = _open(source, given or {})
    names = _chosen(found, want, part)
    progress = _Progress(told)
    described = Described.of(found)
    shapes = {name: described.wanted(name) for name in names}
    work = {name: _prepare(Native(found.parts[name], shapes[name]), want, progress) for name in names}
    progress.of = sum(_bytes(outline) for own in work.values() for outline in own.outlines)
    _room(out, progress.of)
    checked = Checked() if check else None

    def recheck(place: Path) -> None:
        for name, own in work.items() if checked is not None else ():
            result = folder_part(place / FOLDERS[name], name) if place.is_dir() else file_parts(place)[name]
            told(progress.of, progress.of, f"{name}, read again")
            assert checked is not None
            compare(own.native, Native(result, shapes[name]), own.written, checked)

    if want.layout.endings == ("",):
        _write_folder(out, described, work, recheck)
    else:
        _write_file(out, described, work, want, recheck)
    left = tuple(TITLES[name] for name in PARTS if name in found.parts and name not in work)
    lacking = tuple(found.missing) if want.layout.endings == ("",) else ()
    return Converted(path=out, parts=tuple(work), size=progress.of, left_out=left, checked=checked, lacking=lacking)


def _open(source: str, given: Mapping[str, Path]) -> Source:
    _, path = resolve(source)
    if path.is_dir():
        found = in_folder(path, skip=given.keys())
    else:
        parts = file_parts(path)
        near = {name: place for name in TOKENIZERS if (place := tokenizer_near(path, name))}
        found = Source(path=path, layout=layout_of(parts), parts=parts, tokenizers=near)
    for name, place in given.items():
        found.parts[name] = open_part(place, name)
        if name in TOKENIZERS and (words := tokenizer_near(place, name)):
            found.tokenizers[name] = words
    return found


def _chosen(found: Source, want: Want, part: str | None) -> list[str]:
    """The parts that go into the result."""
    there, layout = [name for name in PARTS if name in found.parts], want.layout
    if part is not None and part not in there:
        raise BadRequest(f"{found.path} holds no {part}", hint=f"it holds {', '.join(there)}")
    if layout.whole and TRANSFORMER not in there:
        raise BadRequest(f"{found.path} holds no transformer", hint=f"a part alone can become {_single()}")
    if layout.whole:
        return there
    one = part or (TRANSFORMER if TRANSFORMER in there else there[0])
    if one not in layout.formats:
        raise BadRequest(f"there is no {want.name} of the {one}", hint=f"it is for {' and '.join(layout.formats)}")
    return [one]


def _single() -> str:
    return ", ".join(name for name, layout in LAYOUTS.items() if not layout.whole)


def _prepare(native: Native, want: Want, progress: _Progress) -> _Part:
    """What a part's tensors will be called, be written as, and where their bytes come from."""
    own = _Part(native)
    form = FORMATS[want.layout.formats[native.part.name]]
    width = native.shapes[form.width][0] if form.width else 0
    for name, way in spread(native.shapes, form).items():
        shape = native.shapes[name]
        code, scaled = code_of(native.dtype(name), native.shapes[name], (native.part.name, name), want)
        own.written[name] = code
        at = 0
        for piece, rows in zip(way.names, lengths(shape[0], len(way.names), width) if shape else [1], strict=True):
            sizes_ = (rows, *shape[1:])
            source = _Rows(native, name, at, at + rows, way.change is Change.SWAP, progress)
            at += rows
            own.outlines += _outlines(source, piece, sizes_[:2] if way.change is Change.FLAT else sizes_, code, scaled)
    return own


@dataclass(frozen=True)
class _Rows:
    """Rows of a native tensor that make one tensor of the result."""

    native: Native
    name: str
    start: int
    stop: int
    swapped: bool
    progress: _Progress

    def read(self) -> Tensor:
        whole = self.native.rows(self.name, self.start, self.stop)
        return torch.cat(tuple(reversed(whole.chunk(2)))) if self.swapped else whole


def _outlines(rows: _Rows, name: str, shape: tuple[int, ...], code: str, scaled: bool) -> Iterator[Outline]:
    """A tensor of the result, and with a scale the two that go with it."""
    if not scaled:
        yield Outline(name=name, dtype=code, shape=shape, content=lambda: _content(rows, name, code, None))
        return
    scales: list[Tensor] = []  # worked out once, by whoever comes first

    def scale() -> Tensor:
        if not scales:
            scales.append(scale_of(rows.read(), DTYPES[code]))
            rows.native.release(rows.name)
        return scales[0]

    stem = name.removesuffix(WEIGHT)
    words = json.dumps({"format": next(word for word, own in FP8.items() if own == code)}).encode()
    yield Outline(name=name, dtype=code, shape=shape, content=lambda: _content(rows, name, code, scale()))
    yield Outline(name=stem + SCALES[-1], dtype="F32", shape=(), content=lambda: _raw(scale()))
    yield Outline(name=stem + LAYER, dtype="U8", shape=(len(words),), content=lambda: words)


def _content(rows: _Rows, name: str, code: str, scale: Tensor | None) -> bytes | memoryview:
    tensor = rows.read()
    raw = _raw(in_blocks(code, tensor) if code in BLOCKS else narrowed(tensor, DTYPES[code], name, scale))
    rows.native.release(rows.name)
    rows.progress.add(len(raw), name)
    return raw


def _raw(tensor: Tensor) -> memoryview:
    flat: memoryview = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return flat


@dataclass
class _Progress:
    told: Told
    of: int = 0
    done: int = 0

    def add(self, count: int, name: str) -> None:
        self.done += count
        self.told(self.done, self.of, name)


def _bytes(outline: Outline) -> int:
    kind = outline.dtype
    if kind in BLOCKS:
        return gguf.stored_bytes(kind, outline.shape)
    count = BITS[kind] // 8
    for side in outline.shape:
        count *= side
    return count


def _room(out: Path, size: int) -> None:
    place = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(place).free
    if free < size + SPARE:
        raise CannotWrite(
            f"{out} needs {size / 1e9:.2f} GB, and {place} has {free / 1e9:.2f} GB free", hint="make room on the disk"
        )


def _write_file(
    out: Path, described: Described, work: Mapping[str, _Part], want: Want, check: Callable[[Path], None]
) -> None:
    note = described.untold(work)
    notes = {identify.NOTE: json.dumps(note, sort_keys=True)} if note else {}
    outlines = [outline for own in work.values() for outline in own.outlines]
    with whole_file(out, parents=True) as place:
        if want.layout.types != GGUF_TYPES:
            write(place, outlines, {"format": "pt", **notes})
        else:
            values: dict[str, int | str] = {
                "general.architecture": ARCHITECTURES[next(iter(work))],
                "general.quantization_version": gguf.QUANTIZATION,
                "general.file_type": gguf.FILE_TYPES[str(want.code)],
            }
            gguf.write(place, outlines, values | notes)
        check(place)


def _write_folder(out: Path, described: Described, work: Mapping[str, _Part], check: Callable[[Path], None]) -> None:
    assert described.variant is not None, "a folder is only written with a transformer"
    words = {TOKENIZERS[name]: place for name, place in described.found.tokenizers.items() if name in work}
    parts = {name: (described.config(name), own.outlines) for name, own in work.items()}
    write_folder(out, variant=described.variant, parts=parts, tokenizers=words, check=check)
