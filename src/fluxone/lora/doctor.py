"""What an adapter is: style, kinds, ranks, what it fits, how strongly it changes which blocks, its trigger words."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from fluxone.lora.base import Base
from fluxone.lora.delta import Delta
from fluxone.lora.formats import FORMATS
from fluxone.lora.load import WIDENED, load_lora, misfits, width_of
from fluxone.variants import VARIANTS
from fluxone.weights.keymap import CLIP, T5, TRANSFORMER
from fluxone.weights.safetensors import listing, read_header

BLOCK = re.compile(r"((?:double|single)_blocks|text_model\.encoder\.layers|encoder\.block)\.(\d+)\.")
# Layers of the encoders by which their widths are told: of those that take the stream the columns, of others the rows.
TAKE, GIVE = ("q_proj", "k_proj", "v_proj", "fc1", "Attention.q", "Attention.k", "wi_0", "wi_1"), ("fc2", ".wo")
PHRASES = ("modelspec.trigger_phrase", "trigger_words", "trigger_phrase", "trigger_word", "instance_prompt")
TAGS = 12  # of the training captions, most frequent first
BAR = 24  # characters of the longest bar of a block's strength


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an adapter's file says of itself.

    Attributes:
        kinds: kind -> how many parameters; ranks: rank -> how many; scales: the file's own scale -> how many.
        channels: columns of the first layer, if it is among those changed: more than the model's own in control LoRAs.
        fits: registered models whose shapes it fits.
        blocks: block -> norm of the change, relative to that of what it changes if `relative`.
        unmatched: keys that mean nothing here; absent, wrong: what the model at hand lacks or has in other shapes.
        triggers: words that the metadata name, with their counts in the training captions where known.
    """

    path: str
    format: str
    title: str
    keys: int
    kinds: dict[str, int]
    ranks: dict[int, int]
    scales: dict[str, int]
    parts: dict[str, int]
    width: int | None
    channels: int | None
    fits: tuple[str, ...]
    blocks: dict[str, float]
    relative: bool
    unmatched: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    embeddings: dict[str, list[str]] = field(default_factory=dict)
    triggers: dict[str, int | None] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people."""
        rows = [
            ("style", f"{self.format} ({self.title})"),
            ("keys", f"{self.keys}, {len(self.unmatched) or 'none'} unmatched"),
            ("kinds", _counts(self.kinds)),
            ("ranks", _counts(self.ranks)),
            ("scale", _counts(self.scales)),
            ("changes", _counts(self.parts)),
            ("made for", f"a network {self.width} wide" if self.width else ""),
            ("channels", f"{self.channels} at the entrance" if self.channels else ""),
            ("fits", ", ".join(self.fits) or "no registered model"),
            ("embeddings", ", ".join(f"{name} ({'+'.join(of)})" for name, of in self.embeddings.items())),
            ("triggers", ", ".join(word if n is None else f"{word} ({n})" for word, n in self.triggers.items())),
            ("unmatched", listing(self.unmatched)),
            ("the model lacks", listing(self.absent)),
            ("of other shapes", listing(self.wrong, 3)),
        ]
        wide = max(len(name) for name, value in rows if value)
        lines = [self.path, *(f"  {name:{wide}}  {value}" for name, value in rows if value)]
        top = max(self.blocks.values(), default=0.0) or 1.0
        lines.append("  change of each block" + (", relative to its weights" if self.relative else ", norm"))
        wide = max((len(name) for name in self.blocks), default=0)
        bars = {
            name: round(BAR * value / top) if math.isfinite(value / top) else 0 for name, value in self.blocks.items()
        }
        return lines + [f"    {name:{wide}}  {value:10.4g}  {'#' * bars[name]}" for name, value in self.blocks.items()]


def inspect(source: str | Path, *, base: str | None = None) -> Report:
    """Tell all about an adapter, also about one with keys that mean nothing here.

    Args:
        base: a model; with it, strengths are relative to its weights, and misfits are told.

    Raises:
        BadFile, BadWeights: there is no adapter, or a broken one.
    """
    lora = load_lora(source, strict=False)
    model = None if base is None else Base(base)
    keys = read_header(Path(lora.path)).entries
    deltas = lora.deltas
    absent, wrong = ([], []) if model is None else misfits(deltas, model.shapes, model.width)
    columns = [d.factor.shape[1] for d in deltas if d.target.name == f"{WIDENED}.weight"]
    return Report(
        path=lora.path,
        format=lora.format,
        title=FORMATS[lora.format].title,
        keys=len(keys),
        kinds=dict(Counter(delta.kind for delta in deltas)),
        ranks=dict(sorted(Counter(rank for delta in deltas if (rank := delta.factor.rank) is not None).items())),
        scales=dict(Counter(f"{delta.factor.scale:g}" for delta in deltas if delta.factor.rank is not None)),
        parts=dict(Counter(delta.target.part for delta in deltas)),
        width=width_of(deltas),
        channels=max(columns, default=None),
        fits=fits(deltas),
        blocks=_blocks(deltas, None if absent or wrong else model),
        relative=model is not None and not absent and not wrong,
        unmatched=tuple(sorted(keys.keys() - lora.used.keys())),
        absent=tuple(absent),
        wrong=tuple(wrong),
        embeddings={name: sorted(encoders) for name, encoders in lora.embeddings.items()},
        triggers=triggers(lora.metadata),
        metadata=lora.metadata,
    )


def fits(deltas: Iterable[Delta]) -> tuple[str, ...]:
    """The registered models that have every block, the channels and the widths which these deltas ask for."""
    deltas = list(deltas)
    own = [delta for delta in deltas if delta.target.part == TRANSFORMER]
    width = width_of(own)
    guided = any(delta.target.module.startswith("guidance_in") for delta in own)
    channels = min((d.factor.shape[1] for d in own if d.target.name == f"{WIDENED}.weight"), default=None)
    streams = [(d, axis) for axis, ends in ((1, TAKE), (0, GIVE)) for d in deltas if d.target.module.endswith(ends)]
    words = {
        part: {d.factor.shape[axis] for d, axis in streams if d.target.part == part and d.target.leaf == "weight"}
        for part in (CLIP, T5)
    }
    counts = {
        kind: max((int(n) + 1 for d in own for k, n in BLOCK.findall(f"{d.target.module}.") if k == kind), default=0)
        for kind in ("double_blocks", "single_blocks")
    }
    return tuple(
        row.name
        for row in VARIANTS.values()
        if deltas
        and (width is None or row.shape.hidden == width)
        and (row.guided or not guided)
        and (channels is None or row.shape.in_channels <= channels or row.shape.out_channels == channels)
        and words[CLIP] <= {row.shape.vec_dim}
        and words[T5] <= {row.shape.text_dim}
        and row.shape.double_blocks >= counts["double_blocks"]
        and row.shape.single_blocks >= counts["single_blocks"]
    )


def triggers(metadata: Mapping[str, str]) -> dict[str, int | None]:
    """Words that the file says call the adapter: those it names, then its most frequent training tags."""
    found: dict[str, int | None] = {}
    for key in PHRASES:
        if text := metadata.get(key, "").strip():
            found[text] = None
    counts: Counter[str] = Counter()
    try:
        tables = json.loads(metadata.get("ss_tag_frequency", "{}"))
        for table in tables.values():
            for tag, number in table.items():
                counts[str(tag).strip()] += int(number)
    except (ValueError, TypeError, AttributeError, RecursionError):
        counts.clear()  # the metadata are anybody's text
    return found | {tag: number for tag, number in counts.most_common(TAGS) if tag not in found}


def _blocks(deltas: Iterable[Delta], model: Base | None) -> dict[str, float]:
    """Block -> norm of its change; relative to the norm of the parameters it changes, if a model is at hand."""
    squares: dict[tuple[str, int], float] = defaultdict(float)
    weights: dict[tuple[str, int], dict[tuple[str, str], float]] = defaultdict(dict)
    for delta in deltas:
        target = delta.target
        place = _block(target.part, target.module)
        if model is None:
            squares[place] += delta.factor.norm() ** 2
            continue
        weight = model.read(target.part, target.name)
        rows = target.rows(weight.shape[0], model.width)
        base = weight[rows].float()
        plain = delta.magnitude is None and delta.factor.rank is not None
        change = delta.factor.norm() if plain else _norm(delta, base)
        squares[place] += change**2
        weights[place][target.part, f"{target.name}{rows.start}"] = float(torch.linalg.vector_norm(base)) ** 2
        model.release(target.part, target.name)
    out = {}
    for place in sorted(squares):
        below = sum(weights[place].values()) if model is not None else 1.0
        out[f"{place[0]}.{place[1]}" if place[1] >= 0 else place[0]] = math.sqrt(squares[place] / (below or 1.0))
    return out


def _norm(delta: Delta, base: torch.Tensor) -> float:
    if delta.factor.shape != tuple(base.shape):  # a control LoRA's entrance
        return delta.factor.norm()
    return float(torch.linalg.vector_norm(delta.difference(base)))


def _block(part: str, module: str) -> tuple[str, int]:
    if (match := BLOCK.match(f"{module}.")) is None:
        return (module if part == TRANSFORMER else f"{part} {module}", -1)
    kind = match[1] if part == TRANSFORMER else f"{part} layers"
    return kind, int(match[2])


def _counts(table: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} x{number}" if len(table) > 1 else f"{name}" for name, number in table.items())
