"""The layouts that weights can be written in, and what each tensor becomes in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fluxone.errors import BadRequest, pick
from fluxone.weights.keymap import AUTOENCODER, CLIP, PARTS, T5, TRANSFORMER
from fluxone.weights.mapped import CODES
from fluxone.weights.packed.find import FP8, WEIGHT
from fluxone.weights.packed.ggml import TYPES
from fluxone.weights.packed.quantize import BLOCKS
from fluxone.weights.safetensors import BITS

BFL = {TRANSFORMER: "bfl transformer", AUTOENCODER: "bfl autoencoder", T5: "t5", CLIP: "clip"}
PLAIN = {name: CODES[getattr(torch, name)] for name in ("float32", "bfloat16", "float16", *FP8)}
GGUF_TYPES = ("F32", "F16", "BF16", *BLOCKS)
ARCHITECTURES = {TRANSFORMER: "flux", T5: "t5encoder"}
# Small and sensitive, so they keep their precision where matrices are made narrower, as the field's converters do.
KEPT = {
    TRANSFORMER: ("img_in.", "txt_in.", "time_in.", "vector_in.", "guidance_in.", "final_layer."),
    T5: ("shared.", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias."),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout that can be written: how each part's names are, and in what they are kept."""

    formats: Mapping[str, str]
    endings: tuple[str, ...] = (".safetensors", ".sft")
    whole: bool = False  # all parts, not one
    scaled: bool = False
    types: tuple[str, ...] = tuple(PLAIN)
    usual: str | None = None  # the type where none is asked for; None keeps what is there


LAYOUTS: dict[str, Layout] = {
    "bfl": Layout(formats=BFL),
    "diffusers": Layout(
        formats={TRANSFORMER: "diffusers transformer", AUTOENCODER: "diffusers autoencoder", T5: "t5", CLIP: "clip"},
        endings=("",),
        whole=True,
    ),
    "comfy": Layout(formats={name: f"comfy {name}" for name in PARTS}, whole=True),
    "gguf": Layout(
        formats={TRANSFORMER: "bfl transformer", T5: "t5 of llama.cpp"},
        endings=(".gguf",),
        types=GGUF_TYPES,
        usual="Q8_0",
    ),
    "fp8": Layout(formats=BFL, scaled=True, types=tuple(FP8), usual="float8_e4m3fn"),
}


@dataclass(frozen=True, kw_only=True)
class Want:
    """What is asked for: the layout, the type by its name in files (None keeps), fp8 with scales or without."""

    name: str
    layout: Layout
    code: str | None
    scaled: bool


def wanted(to: str, dtype: str | None = None, *, scaled: bool = False) -> Want:
    """What `convert` is to make.

    Args:
        to: a row of `LAYOUTS`.
        dtype: of a matrix of the transformer and T5; a narrow type leaves the rest as it is. None is the layout's own.
        scaled: fp8 with a scale for each weight.

    Raises:
        BadRequest, UnknownName: there is no such layout, or it cannot be of this type.
    """
    layout = pick(LAYOUTS, to, "layout")
    dtype = layout.usual if dtype is None else dtype
    if dtype is not None and dtype not in layout.types:
        only = "can be read, not written: " if dtype in TYPES and layout.types == GGUF_TYPES else ""
        raise BadRequest(f"{to} is not written as {dtype}", hint=f"{only}choose one of {', '.join(layout.types)}")
    scaled = scaled or layout.scaled
    if scaled and dtype not in FP8:
        named = dtype or "the type that is there"
        raise BadRequest(f"scales are for fp8, not for {named}", hint=f"use {' or '.join(FP8)}")
    if scaled and layout.endings == ("",):
        raise BadRequest("diffusers reads fp8 without scales only", hint="leave out the scales, or use another layout")
    return Want(name=to, layout=layout, code=PLAIN.get(dtype or "", dtype), scaled=scaled)


def code_of(held: torch.dtype | None, shape: tuple[int, ...], place: tuple[str, str], want: Want) -> tuple[str, bool]:
    """What a tensor is written as, and whether with a scale.

    Args:
        held: what it is stored as now; None if it is packed.
        place: its part and native name.
    """
    part, name = place
    matrix = len(shape) == 2 and name.endswith(WEIGHT) and part in KEPT and not name.startswith(KEPT[part])
    kept = "BF16" if held is None else CODES[held]
    if want.layout.types == GGUF_TYPES:
        code = str(want.code)
        return (code if matrix and shape[-1] % TYPES[code].block == 0 else "F32"), False
    if want.code is None:
        return kept, False
    if BITS[want.code] > 8:
        return want.code, False
    return (want.code if matrix else kept), want.scaled and matrix
