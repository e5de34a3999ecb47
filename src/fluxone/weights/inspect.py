"""What a file or folder is, told from headers and configs alone: no tensor is read, and torch is not imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fluxone.errors import BadFile, BadWeights
from fluxone.geometry import CELL
from fluxone.weights import configs, identify, sizes
from fluxone.weights.keymap import AUTOENCODER, PARTS, TRANSFORMER, packing, plan
from fluxone.weights.locate import Source, in_folder, layout_of
from fluxone.weights.packed.find import BNB4, BNB8, SCALED
from fluxone.weights.parts import Part, deal, is_lora, read_headers
from fluxone.weights.safetensors import Entry, Header, listing, merge

PRECISIONS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
MODEL, PART, LORA, UNKNOWN = "model", "part of a model", "LoRA, not a model", "unknown"
UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
COUNTS = ((10**9, "billion"), (10**6, "million"), (10**3, "thousand"))
VALUE = 60  # characters of a metadata value that people are shown


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """One part of a model: its files and layout, how many numbers of which precision, and its size in bytes."""

    name: str
    layout: str
    files: tuple[str, ...]
    precision: dict[str, int]
    numbers: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a file or folder is.

    Attributes:
        kind: a model, a part of one, a LoRA, or unknown.
        variant: the row of `VARIANTS` that the numbers speak for, or None.
        missing: what a model needs and this file or folder does not hold.
        notes: what stands in the way of running it.
    """

    path: str
    kind: str
    layout: str
    variant: str | None = None
    parts: tuple[PartReport, ...] = ()
    missing: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people, a fact a line."""
        rows = [("kind", self.kind), ("layout", self.layout), ("variant", self.variant or "")]
        for part in self.parts:
            shares = Counter(part.precision).most_common()
            kinds = ", ".join(f"{kind} {100 * numbers / max(1, part.numbers):.4g} %" for kind, numbers in shares)
            kinds = shares[0][0] if len(shares) == 1 else kinds
            files = f", {len(part.files)} files" if len(part.files) > 1 else ""
            rows.append(
                (part.name, f"{_scaled(part.numbers, COUNTS)} numbers, {kinds}, {_scaled(part.bytes, UNITS)}{files}")
            )
        rows += [("missing", title) for title in self.missing]
        rows += [("note", note) for note in self.notes]
        rows += [(f"metadata {key}", f"{value:.{VALUE}}") for key, value in sorted(self.metadata.items())]
        wide = max(len(key) for key, _ in rows)
        return [self.path, *(f"  {key:{wide}}  {value}" for key, value in rows if value)]


def inspect(path: Path | str) -> Report:
    """Tell what a safetensors or GGUF file, an index of shards, or a model's folder is.

    Raises:
        BadFile: nothing readable is there.
        BadWeights: a file is broken.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder(path)
    headers = read_headers(path)
    parts, left = deal(headers)
    if not parts:
        return _stranger(path, headers, left)
    notes = [f"{len(left)} tensors of no known part: {listing(left)}"] if left else []
    return _report(path, Source(path=path, layout=layout_of(parts), parts=parts), notes)


def _folder(path: Path) -> Report:
    if not (path / "config.json").is_file():
        return _report(path, in_folder(path), [])
    weights = sorted([*path.glob("*.safetensors.index.json"), *path.glob("*.safetensors")])
    if not weights:
        raise BadFile(f"{path} holds no .safetensors file", hint="give a model's folder or file")
    return inspect(weights[0] if len(weights) == 1 else next((w for w in weights if w.suffix == ".json"), weights[0]))


def _report(path: Path, source: Source, notes: Iterable[str]) -> Report:
    said = [*notes, *(note for part in source.parts.values() for note in _part_notes(part))]
    whole = TRANSFORMER in source.parts
    variant = None
    if whole:
        try:
            variant, more = _variant(source)
            said += more
        except BadWeights as error:
            said.append(str(error))
    headers = {header.path: header for part in source.parts.values() for header in part.headers}
    return Report(
        path=str(path),
        kind=MODEL if whole else PART,
        layout=source.layout,
        variant=variant,
        parts=tuple(_part(source.parts[name]) for name in PARTS if name in source.parts),
        missing=tuple(source.missing) if whole else (),
        metadata={key: value for header in headers.values() for key, value in header.metadata.items()},
        notes=tuple(said),
    )


def _variant(source: Source) -> tuple[str | None, list[str]]:
    part = source.parts[TRANSFORMER]
    flux = identify.shape_of(part, configs.read_flux, sizes.flux)
    factor = CELL
    if AUTOENCODER in source.parts:
        factor = identify.shape_of(source.parts[AUTOENCODER], configs.read_autoencoder, sizes.autoencoder).factor
    kind = identify.condition(flux, factor)
    notes = [] if kind is None else [f"it takes a {kind.value}: {flux.in_channels} channels"]
    return identify.row_of(flux, kind, source.pipeline).name, notes


def _part(part: Part) -> PartReport:
    entries = merge(part.headers)
    precision: Counter[str] = Counter()
    for name in part.names:
        precision[_precision(entries[name])] += entries[name].count
    return PartReport(
        name=part.name,
        layout=part.form.name,
        files=tuple(str(header.path) for header in part.headers),
        precision=dict(precision),
        numbers=sum(precision.values()),
        bytes=sum(entries[name].bytes for name in part.names),
    )


def _precision(entry: Entry) -> str:
    """The type as people call it, with the packing that a type's name does not tell."""
    plain = PRECISIONS.get(entry.dtype, entry.dtype.lower())
    names = {SCALED: f"{plain}, scaled", BNB4: f"{entry.facts.get('kind')}, bitsandbytes", BNB8: "int8, bitsandbytes"}
    return names.get(entry.packing, plain)


def _part_notes(part: Part) -> list[str]:
    if packed := packing(part.names):
        return [f"the {part.name} is {packed[0]}, which cannot be read"]
    leads = plan(part.names, part.form)
    faults = {"unknown names": leads.unknown, "names missing": leads.incomplete}
    return [f"{part.name}: {len(names)} {what}: {listing(names)}" for what, names in faults.items() if names]


def _stranger(path: Path, headers: Iterable[Header], names: Collection[str]) -> Report:
    lora = is_lora(names)
    return Report(
        path=str(path),
        kind=LORA if lora else UNKNOWN,
        layout=f"{len(names)} tensors, such as {listing(names, 2)}" if names else "no tensors",
        metadata={key: value for header in headers for key, value in header.metadata.items()},
    )


def _scaled(number: int, units: tuple[tuple[int, str], ...]) -> str:
    for size, unit in units:
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
