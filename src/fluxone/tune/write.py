"""What was learnt, as files that other tools read: in two key styles, each read back before it gets its name.

    <name>.safetensors         diffusers' keys, with alphas where they are not the rank
    <name>-kohya.safetensors   kohya's and ComfyUI's, with alphas

A kind that diffusers' style has no keys for (LoKr, differences) is in the same files under LyCORIS' endings, which
ComfyUI and fluxone read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fluxone import __version__
from fluxone.lora.delta import Delta
from fluxone.lora.factors import LowRank
from fluxone.lora.load import Lora, load_lora
from fluxone.lora.save import convert_lora

STYLES = {"": "diffusers", "-kohya": "kohya"}  # ending of the file's name -> style
TYPE = torch.bfloat16
EXACT = torch.float32


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file and how far it is from what was learnt, relative to each parameter's largest change."""

    path: Path
    style: str
    apart: float


def write(
    lora: Lora, folder: Path, name: str, metadata: Mapping[str, str], *, dtype: torch.dtype = TYPE
) -> list[Written]:
    """Write an adapter in both styles, whole or not at all.

    Raises:
        BadWeights: a style cannot say the same.
        CannotWrite: the disk is full, or the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounded = Lora(deltas=tuple(_rounded(delta, dtype) for delta in lora.deltas), metadata=dict(metadata))
    found = []
    for ending, style in STYLES.items():
        path = folder / f"{name}{ending}.safetensors"
        found.append(Written(path=path, style=style, apart=convert_lora(rounded, path, style, dtype=dtype)))
    return found


def keep(lora: Lora, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a checkpoint's adapter, to the last bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    convert_lora(replace(lora, metadata=dict(metadata)), path, "diffusers", dtype=EXACT)


def kept(path: Path) -> tuple[Delta, ...]:
    """The deltas of a file of `keep`."""
    return load_lora(path).deltas


def scaled(deltas: Sequence[Delta], strength: float) -> tuple[Delta, ...]:
    """The same at another strength: 1 is then what `strength` was.

    DoRA's magnitude is no factor of its change, so these stay as they are, and so must their strength.
    """
    if strength == 1 or any(delta.magnitude is not None for delta in deltas):
        return tuple(deltas)
    return tuple(_times(delta, strength) for delta in deltas)


def metadata(*, name: str, base: str, base_hash: str, trigger: str, settings: Mapping[str, object]) -> dict[str, str]:
    """What a file's header says of itself, in the words that other tools look for."""
    return {
        "modelspec.title": name,
        "modelspec.architecture": "flux-1/lora",
        "modelspec.trigger_phrase": trigger,
        "ss_base_model_version": "flux1",
        "ss_output_name": name,
        "fluxone.version": __version__,
        "fluxone.base": base,
        "fluxone.base_hash": base_hash,
        "fluxone.settings": json.dumps(dict(settings), sort_keys=True),
        "format": "pt",
    }


def _times(delta: Delta, strength: float) -> Delta:
    factor = delta.factor
    if isinstance(factor, LowRank):
        return replace(delta, factor=replace(factor, up=factor.up * strength))
    names = [name for name in ("two", "two_a", "value", "up2") if name in factor.tensors()]
    tensors = {names[0]: factor.tensors()[names[0]] * strength}
    return replace(delta, factor=replace(factor, **tensors))  # type: ignore[arg-type]


def _rounded(delta: Delta, dtype: torch.dtype) -> Delta:
    magnitude = None if delta.magnitude is None else delta.magnitude.to(dtype)
    return replace(delta, factor=delta.factor.each(lambda tensor: tensor.to(dtype)), magnitude=magnitude)
