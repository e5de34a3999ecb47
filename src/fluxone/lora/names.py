"""Names of modules in adapter files: each table leads from a written name to the parameter that it means.

Every table exists with dots, as in state dicts, and with underscores, as kohya writes them. The transformer's come
from the very rows that weight files are read by, so that a module has one counterpart, told once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from fluxone.lora.delta import Target
from fluxone.weights.formats import transformer
from fluxone.weights.keymap import CLIP, T5, TRANSFORMER, Change, Row

NUMBER = re.compile(r"\\\{([a-z])\\\}")
NORM = "scale"

CLIP_MODULES = (
    *(f"text_model.encoder.layers.{{n}}.self_attn.{leaf}" for leaf in ("q_proj", "k_proj", "v_proj", "out_proj")),
    *(f"text_model.encoder.layers.{{n}}.{leaf}" for leaf in ("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2")),
    "text_model.final_layer_norm",
    "text_model.embeddings.token_embedding",
    "text_model.embeddings.position_embedding",
)
T5_MODULES = (
    *(f"encoder.block.{{n}}.layer.0.SelfAttention.{leaf}" for leaf in ("q", "k", "v", "o")),
    *(f"encoder.block.{{n}}.layer.1.DenseReluDense.{leaf}" for leaf in ("wi_0", "wi_1", "wo")),
    "encoder.block.{n}.layer.{m}.layer_norm",
    "encoder.final_layer_norm",
    "shared",
)
XLABS_MODULES = {
    "double_blocks.{n}.processor.qkv_lora1": "double_blocks.{n}.img_attn.qkv",
    "double_blocks.{n}.processor.proj_lora1": "double_blocks.{n}.img_attn.proj",
    "double_blocks.{n}.processor.qkv_lora2": "double_blocks.{n}.txt_attn.qkv",
    "double_blocks.{n}.processor.proj_lora2": "double_blocks.{n}.txt_attn.proj",
    "single_blocks.{n}.processor.proj_lora": "single_blocks.{n}.linear2",
}
XLABS_SINGLE = "single_blocks.{n}.processor.qkv_lora"


@dataclass(frozen=True, kw_only=True)
class Written:
    """One way to write one module, or one piece of it: `{n}` and `{m}` stand for numbers."""

    name: str
    target: Target


def _module(name: str) -> str:
    return name.removesuffix(".*").removesuffix(".scale").removesuffix(".weight")


def _leaf(row: Row) -> str:
    return NORM if row.native.endswith(f".{NORM}") else "weight"


def _whole(row: Row) -> Written:
    module = _module(row.native)
    return Written(name=module, target=Target(part=TRANSFORMER, module=module, leaf=_leaf(row)))


def _pieces(row: Row) -> list[Written]:
    swap, module = row.change is Change.SWAP, _module(row.native)
    return [
        Written(
            name=_module(other),
            target=Target(
                part=TRANSFORMER, module=module, leaf=_leaf(row), piece=piece, pieces=len(row.other), swap=swap
            ),
        )
        for piece, other in enumerate(row.other)
    ]


def _split(row: Row) -> list[Written]:
    """OneTrainer's names of pieces: `qkv.0`; the swapped layer is the network's own there."""
    return [
        Written(
            name=f"{_module(row.native)}.{piece}",
            target=Target(part=TRANSFORMER, module=_module(row.native), piece=piece, pieces=len(row.other)),
        )
        for piece in range(len(row.other))
        if len(row.other) > 1
    ]


def _encoder(part: str, names: Iterable[str]) -> tuple[Written, ...]:
    return tuple(Written(name=name, target=Target(part=part, module=name)) for name in names)


def _with_leaf(row: Row) -> Written:
    """A norm with the name of its parameter, as ComfyUI has it."""
    written = _whole(row)
    return replace(written, name=f"{written.name}.{written.target.leaf}")


BFL = (
    *(_whole(row) for row in transformer.ROWS),
    *(_with_leaf(row) for row in transformer.ROWS if _leaf(row) == NORM),
)
DIFFUSERS = tuple(written for row in transformer.ROWS for written in _pieces(row))
SPLIT = tuple(written for row in transformer.ROWS for written in _split(row))
XLABS = (
    *(Written(name=name, target=Target(part=TRANSFORMER, module=module)) for name, module in XLABS_MODULES.items()),
    Written(name=XLABS_SINGLE, target=Target(part=TRANSFORMER, module="single_blocks.{n}.linear1", pieces=4, span=3)),
)
CLIP_NAMES = _encoder(CLIP, CLIP_MODULES)
T5_NAMES = _encoder(T5, T5_MODULES)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Written names under a prefix.

    Attributes:
        joint: what stands between the parts of a name: a dot, or kohya's underscore.
        bare: what may be left out at the beginning of a name.
    """

    prefix: str
    names: tuple[Written, ...]
    joint: str = "."
    bare: str = ""

    def find(self, written: str) -> Target | None:
        """The target that a written module name means, or None if it is not of this table."""
        if not written.startswith(self.prefix):
            return None
        short = written[len(self.prefix) :]
        for found in (short, self.bare + short) if self.bare else (short,):
            if (match := _compiled(self.names, self.joint).fullmatch(found)) is not None:
                index = next(int(name[1:]) for name, value in match.groupdict().items() if value and name[0] == "i")
                return _filled(self.names[index], match, index)
        return None

    def write(self, target: Target) -> str | None:
        """The written name of a target's module or piece, or None if the table has none."""
        for written in self.names:
            there = written.target
            if (there.part, there.piece, there.pieces, there.span) != (
                target.part,
                target.piece,
                target.pieces,
                target.span,
            ):
                continue
            pattern = NUMBER.sub(lambda found: rf"(?P<{found[1]}>\d+)", re.escape(there.module))
            if (match := re.fullmatch(pattern, target.module)) is not None:
                name = written.name
                for key, value in match.groupdict().items():
                    name = name.replace(f"{{{key}}}", value)
                return self.prefix + name.replace(".", self.joint)
        return None

    def pieces(self, module: str) -> int:
        """How many pieces the table has a native module in."""
        for written in self.names:
            pattern = NUMBER.sub(r"\\d+", re.escape(written.target.module))
            if re.fullmatch(pattern, module):
                return written.target.pieces
        return 1


def _filled(written: Written, match: re.Match[str], index: int) -> Target:
    module = written.target.module
    for key in ("n", "m"):
        if (value := match.groupdict().get(f"{key}{index}")) is not None:
            module = module.replace(f"{{{key}}}", value)
    return replace(written.target, module=module)


@cache
def _compiled(names: tuple[Written, ...], joint: str) -> re.Pattern[str]:
    """One pattern for a whole table: the group `i7` says that the seventh name matched, `n7` its number."""

    def row(index: int, written: Written) -> str:
        text = re.escape(written.name.replace(".", joint))
        return f"(?P<i{index}>" + NUMBER.sub(lambda found: rf"(?P<{found[1]}{index}>\d+)", text) + ")"

    return re.compile("|".join(row(index, written) for index, written in enumerate(names)))
