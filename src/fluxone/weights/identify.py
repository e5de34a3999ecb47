"""What a model is, from its configs and headers alone: the shapes of its parts, its variant, its conditions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from fluxone.errors import BadWeights
from fluxone.geometry import CELL
from fluxone.shapes import AutoEncoderShape, FluxShape
from fluxone.variants import DEV, SCHNELL, VARIANTS, Kind, Variant
from fluxone.weights import configs, sizes
from fluxone.weights.keymap import TRANSFORMER, native_shapes, plan
from fluxone.weights.locate import Source
from fluxone.weights.parts import Part
from fluxone.weights.safetensors import AGAIN, merge, read_json

S = TypeVar("S")

SIDE = 2  # cells a token, each way
NOTE = "fluxone.config"  # the key in a file's metadata: part, or schedule -> config
SCHEDULE = "scheduler"


def shape_of(part: Part, read: Callable[[configs.Config, object], S], infer: Callable[[sizes.Shapes, object], S]) -> S:
    """A part's shape: from its config if there is one, beside the file or in its metadata, else from its tensors."""
    if part.config is not None:
        return read(read_json(part.config), part.config)
    if (config := noted(part, part.name)) is not None:
        return read(config, part.place)
    return infer(native_shapes_of(part), part.place)


def native_shapes_of(part: Part) -> dict[str, tuple[int, ...]]:
    """The shapes that a part's tensors will have under their native names."""
    entries = merge(part.headers)
    return native_shapes(plan(part.names, part.form).picks, lambda name: entries[name].shape)


def variant_of(found: Source, flux: FluxShape, autoencoder: AutoEncoderShape, row: Variant | None) -> Variant:
    """The row that was asked for, or that the files' numbers speak for, with the files' own shape and schedule.

    What the files say of its conditions goes before the row: a network that takes a mask takes it in every row. The
    schedule of a row that adds to a model is its own, of which that model's files know nothing.
    """
    kind = condition(flux, autoencoder.factor)
    row = row_of(flux, kind, found.pipeline) if row is None else row
    if kind is not None:
        row = replace(row, takes=(kind,))
    takes = tuple(own for own in row.takes if own is kind or not own.wide)
    row = replace(row, shape=flux, takes=takes, size=row.size * autoencoder.factor // CELL)
    if row.base:
        return row
    if found.scheduler is not None:
        return configs.read_scheduler(read_json(found.scheduler), row, found.scheduler)
    config = noted(found.parts[TRANSFORMER], SCHEDULE) if TRANSFORMER in found.parts else None
    return row if config is None else configs.read_scheduler(config, row, found.path)


def noted(part: Part, key: str) -> configs.Config | None:
    """A config that `fluxone models convert` left in a file's metadata, because its tensors do not tell all.

    Raises:
        BadWeights: it cannot be read.
    """
    texts = [header.metadata[NOTE] for header in part.headers if NOTE in header.metadata]
    if not texts:
        return None
    try:
        fields = json.loads(texts[0])
        config = fields.get(key)
    except (ValueError, AttributeError, RecursionError):
        config = ""
    if config is not None and not isinstance(config, dict):
        raise BadWeights(f"{part.place}: its metadata {NOTE} is not readable", hint=AGAIN)
    return config


def row_of(flux: FluxShape, kind: Kind | None = None, pipeline: str = "") -> Variant:
    """The row that an index tells (Kontext's network has Dev's numbers), else that with these very numbers (also of a
    base with its adapter merged into it), else one of this kind, else that with, or without, distilled guidance.

    Args:
        pipeline: diffusers' class for the model, or empty.
    """
    rows = [row for row in VARIANTS.values() if not row.base]
    told = [row for row in rows if row.takes and row.pipeline == pipeline and row.wide is kind]
    merged = [replace(row, base="") for row in VARIANTS.values() if row.lora]
    same = [known for known in (*rows, *merged) if known.shape == flux]
    alike = [known for known in rows if kind is not None and kind in known.takes]
    # Of several that an index tells: the one with these numbers, else not one of those inside the package.
    told.sort(key=lambda row: (row.shape != flux, bool(row.assets)))
    return next(iter(told + same + alike), DEV if flux.guided else SCHNELL)


def condition(flux: FluxShape, factor: int = CELL) -> Kind | None:
    """What a transformer takes in channels beside the noise: nothing for text to image.

    Args:
        factor: px a cell of its autoencoder; a mask has a channel for every pixel.

    Raises:
        BadWeights: its channels are those of no known condition.
    """
    noise, wide = flux.out_channels, flux.in_channels
    known = {noise: None, 2 * noise: Kind.CONTROL, 2 * noise + (SIDE * factor) ** 2: Kind.FILL}
    if wide not in known:
        raise BadWeights(
            f"the transformer takes {wide} channels and gives {noise}",
            hint=f"with this autoencoder models of {', '.join(map(str, known))} channels can be run",
        )
    return known[wide]
