"""A training run as data: a TOML file read into frozen dataclasses, every key checked.

objective = "flow"            which row of OBJECTIVES
out = "runs/mini"             where checkpoints, logs and sheets go
steps = 20000
[rates]                       optim.Rates
[data]                        Data
[model]                       what the objective needs: shapes and weights to start from
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fluxone.errors import BadFile, BadRequest, UnknownName
from fluxone.train.optim import Rates

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is shown to the model.

    Attributes:
        world: row of `storybook.WORLDS`; `objects`, `colours`, `stages`, `words`, `signs` and `kinds`, where
            given, replace that row's own, as `random_words` and `mirrored` do.
        edits: weights of the world's kinds of edits, where a scene allows several.
        size: pixels each way of the pictures.
        crop: pixels each way of the crops that the autoencoder trains on.
        scenes: distinct scenes in the pool that latents are cached for.
        first_scenes: scenes known at step 0; the pool grows evenly until `full_at` of the run.
        workers: processes that draw and encode pictures ahead of the trainer.
        task: row of `TASKS`: what is given besides words.
        drop: share of captions replaced by the empty prompt, for guidance.
    """

    world: str = "first"
    objects: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    kinds: dict[str, float] = field(default_factory=dict)
    edits: dict[str, float] = field(default_factory=dict)
    random_words: float | None = None
    mirrored: bool | None = None
    size: int = 128
    crop: int = 64
    scenes: int = 20_000
    first_scenes: int = 2_000
    full_at: float = 0.5
    workers: int = 1
    task: str = "text"
    drop: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained: shapes where it starts from nothing, folders where it starts from weights.

    Attributes:
        channels, blocks, groups: the autoencoder's.
        in_channels, guided, hidden, heads, axes, double_blocks, single_blocks: the transformer's.
        text_hidden, text_layers, text_heads, text_mlp: the T5 encoder's.
        clip_hidden, clip_layers, clip_heads, clip_mlp: the CLIP encoder's.
        text_tokens: length that prompts are padded to.
        autoencoder, start: run folders whose average weights are taken, or models; `RUN:PART` takes one part.
        teacher: who is distilled (`guidance`, `matching`), as `start`; empty: what the run starts from.
        frozen: parts (`encoder`, `t5`, `clip`) that keep their weights.
        rank: of adapters that are trained in place of the transformer; 0 for none.
        whole: whether adapters learn any change, and are cut to their rank when they are written.
        adapters: what they go on from: a file, or a variant that comes as one; empty: they start at nothing.
    """

    channels: tuple[int, ...] = (16, 32, 64, 96)
    blocks: int = 1
    groups: int = 8
    in_channels: int = 64
    guided: bool = True
    hidden: int = 256
    heads: int = 4
    axes: tuple[int, ...] = (16, 24, 24)
    double_blocks: int = 2
    single_blocks: int = 5
    text_hidden: int = 256
    text_layers: int = 3
    text_heads: int = 4
    text_mlp: int = 640
    clip_hidden: int = 192
    clip_layers: int = 2
    clip_heads: int = 3
    clip_mlp: int = 512
    text_tokens: int = 32
    autoencoder: str = ""
    start: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    rank: int = 0
    whole: bool = False
    adapters: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run.

    Attributes:
        batch: samples a step, over all processes.
        sigma_mean: of logit(sigma), over all samples: 0 is as much noise as picture.
        ema: decay of the average that is sampled and shipped.
        autocast: bfloat16 arithmetic over float32 weights.
        save_every, sheet_every, validate_every, log_every: steps between.
        export: folder that the finished model is written to, in the diffusers layout; empty for none.
        weights: factors of the objective's loss terms, by name.
        minutes: end after so long, wherever the run is, rates falling by the clock where that is ahead of the
            steps; 0 is no limit. The time of earlier processes counts. Such a run cannot be repeated exactly.
        compile: whether torch compiles the blocks, about a minute's work on a CPU.
    """

    objective: str
    out: str
    steps: int
    minutes: float = 0.0
    compile: bool = False
    batch: int = 64
    seed: int = 0
    sigma_mean: float = 0.3
    ema: float = 0.999
    autocast: bool = True
    device: str = "cpu"
    export: str = ""
    threads: int = 1
    save_every: int = 200
    sheet_every: int = 500
    validate_every: int = 250
    log_every: int = 20
    rates: Rates = field(default_factory=Rates)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every", "sheet_every", "validate_every", "log_every", "threads"):
            if getattr(self, name) < 1:
                raise BadRequest(f"{name} is {getattr(self, name)}", hint="use at least 1")
        if self.minutes < 0:
            raise BadRequest(f"minutes is {self.minutes}", hint="use 0 for no limit")
        if not 0 <= self.ema < 1:
            raise BadRequest(f"ema is {self.ema}", hint="use 0 to below 1, e.g. 0.999")


def read(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a TOML file; `overrides` replace top-level keys.

    Raises:
        BadFile: not there, or not TOML.
        UnknownName: a key that no field has.
        BadRequest: a value of the wrong type or out of range.
    """
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFile(f"there is no file {path}", hint="give a training recipe, e.g. recipes/mini-128.toml") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFile(f"{path} is not a TOML file: {error}", hint="mend that line") from error
    return build(TrainConfig, rows | dict(overrides or {}), where=path.name)


def build(kind: type[T], rows: Mapping[str, Any], *, where: str) -> T:
    """Make the dataclass `kind` from a TOML table, nested tables included."""
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in rows:
        if key not in known:
            raise UnknownName(f"{where} has an unknown key {key!r}", hint=f"known are {', '.join(known)}")
    try:
        return kind(**{key: _value(hints[key], value, where=f"{where}: {key}") for key, value in rows.items()})
    except TypeError as error:
        raise BadRequest(f"{where}: {error}", hint="add the missing key") from error


def _value(hint: Any, value: Any, *, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise BadRequest(f"{where} is {value!r}, not a table")
        return build(hint, value, where=where)
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if isinstance(hint, types.UnionType) or (isinstance(value, expected) and not _bool_for_int(hint, value)):
        return value
    raise BadRequest(f"{where} is {value!r}", hint=f"expected {expected.__name__}")


def _bool_for_int(hint: Any, value: Any) -> bool:
    return hint is int and isinstance(value, bool)
