"""From a file to an adapter in the network's own names: every key used, every number finite, or refused.

path, folder, hub id or civitai:ID --fetch--> file --recognise--> Format --read--> Lora --check_fit--> fits
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fluxone.errors import BadWeights
from fluxone.lora.delta import Delta, check_finite, misfit
from fluxone.lora.fetch import fetch
from fluxone.lora.formats import recognise
from fluxone.lora.roles import Scaling
from fluxone.weights.fingerprint import fingerprint
from fluxone.weights.keymap import CLIP, T5, TRANSFORMER
from fluxone.weights.mapped import Mapped
from fluxone.weights.safetensors import AGAIN, listing, read_header, read_json

PEFT_METADATA = "lora_adapter_metadata"  # diffusers' key in a file's header
PEFT_CONFIG = "adapter_config.json"  # PEFT's file beside a file
PEFT_FILE = "adapter_model.safetensors"
PARTS = {"transformer": TRANSFORMER, "text_encoder": CLIP, "text_encoder_2": T5}
LEAVING = "final_layer.linear.weight"  # as many rows as the noise has channels
WIDENED = "img_in"  # the one layer that a control LoRA gives more columns
ENTRANCES = ("img_attn.qkv", "txt_attn.qkv", "linear1", "img_mlp.0", "txt_mlp.0", "img_mod.lin", "modulation.lin")
EXITS = ("attn.proj", "mlp.2", "linear2")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lora:
    """An adapter.

    Attributes:
        format: name of the row of `FORMATS` it was written in.
        used: key of the file -> parameter that it changes.
        embeddings: bundled textual inversions: name -> encoder -> vectors.
        hash: fingerprint of the file.
    """

    deltas: tuple[Delta, ...]
    format: str = ""
    path: str = ""
    hash: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    embeddings: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def of(self, part: str) -> tuple[Delta, ...]:
        """The deltas of one part of the model."""
        return tuple(delta for delta in self.deltas if delta.target.part == part)


def load_lora(source: str | Path, *, token: str | None = None, strict: bool = True) -> Lora:
    """Load an adapter from a file, a folder with one, a hub id (`org/name` or `org/name/file.safetensors`), or Civitai.

    Args:
        token: of the hub, or of Civitai; None is the one that is stored or in the environment.
        strict: refuse a file with keys that nothing uses; else they are left out of `used`.

    Raises:
        BadFile, HubError: there is no such file, or it cannot be fetched.
        BadWeights: it is no LoRA of FLUX.1, mixes styles, or holds keys of no use or numbers that are none.
    """
    path = fetch(str(source), token=token)
    header = read_header(path)
    mapped = Mapped([header])
    tensors = {name: mapped.read(name).clone() for name in header.entries}
    check_finite(tensors.items(), path)
    lora = read_lora(tensors, metadata=header.metadata, place=path, config=_config(path), strict=strict)
    return replace(lora, hash=fingerprint([header]))


def read_lora(
    tensors: Mapping[str, Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
    place: object = "the adapter",
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> Lora:
    """The adapter that tensors under their file's names are.

    Args:
        metadata: of the file's header.
        config: PEFT's, if there is one beside the file.

    Raises:
        BadWeights: see `load_lora`.
    """
    metadata = dict(metadata or {})
    form = recognise(tensors.keys(), place)
    try:
        said = form.read(tensors, _scalings(metadata, config, place))
    except BadWeights as error:
        raise BadWeights(f"{place}: {error.message}", hint=error.hint) from None
    if said.unused and strict:
        raise BadWeights(
            f"{place} ({form.name}) has {len(said.unused)} keys of {len(tensors)} that mean nothing here: "
            f"{listing(sorted(said.unused))}",
            hint="the file is of another model or in a style that is not known; nothing of it was loaded",
        )
    return Lora(
        deltas=tuple(said.deltas),
        format=form.name,
        path=str(place),
        metadata=metadata,
        used=said.used,
        embeddings=said.embeddings,
    )


def check_fit(lora: Lora, shapes: Mapping[str, Shapes], width: int) -> None:
    """Refuse an adapter that was made for another network.

    Args:
        shapes: part -> parameter -> shape; a part that the model lacks is not there.
        width: of the transformer.

    Raises:
        BadWeights: parameters are not there, or of other shapes; it says what the adapter would fit.
    """
    absent, wrong = misfits(lora.deltas, shapes, width)
    if not absent and not wrong:
        return
    told = []
    own = width_of(lora.deltas)
    if own is not None and own != width:
        told.append(f"made for a network {own} wide, this model is {width} wide")
    else:
        told += [f"{len(wrong)} of another shape: {listing(wrong, 3)}"] if wrong else []
        told += [f"{len(absent)} that this model lacks: {listing(absent, 3)}"] if absent else []
    raise BadWeights(f"{lora.path} does not fit: {'; '.join(told)}", hint="use it with the model that it was made for")


def misfits(deltas: Iterable[Delta], shapes: Mapping[str, Shapes], width: int) -> tuple[list[str], list[str]]:
    """Parameters that the model lacks, and sentences on those that are of another shape."""
    absent, wrong = [], []
    noise = shapes.get(TRANSFORMER, {}).get(LEAVING, (0,))[0]
    for delta in deltas:
        target = delta.target
        shape = shapes.get(target.part, {}).get(target.name)
        if shape is None:
            absent.append(f"{target.part} {target.name}")
        elif why := misfit(delta, shape, width, noise=noise if target.module == WIDENED else None):
            wrong.append(why)
    return absent, wrong


def width_of(deltas: Iterable[Delta]) -> int | None:
    """How wide the transformer is that these were made for, by most of the layers that take or give its stream."""
    own = [delta for delta in deltas if delta.target.part == TRANSFORMER and len(delta.factor.shape) == 2]
    found = Counter(delta.factor.shape[1] for delta in own if delta.target.module.endswith(ENTRANCES))
    found.update(delta.factor.shape[0] for delta in own if delta.target.module.endswith(EXITS))
    return found.most_common(1)[0][0] if found else None


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by name; of linear layers whose weight is packed, that of what it stands for."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    for name, layer in module.named_modules():
        if isinstance(getattr(layer, "in_features", None), int) and isinstance(
            getattr(layer, "out_features", None), int
        ):
            shapes[f"{name}.weight"] = (layer.out_features, layer.in_features)
    return shapes


def _config(path: Path) -> dict[str, Any] | None:
    beside = path.parent / PEFT_CONFIG
    return read_json(beside) if path.name == PEFT_FILE and beside.is_file() else None


def _scalings(metadata: Mapping[str, str], config: Mapping[str, Any] | None, place: object) -> dict[str, Scaling]:
    """Part -> what PEFT's configuration says of its scale, in the header or beside the file."""
    if config is not None:
        return dict.fromkeys(PARTS.values(), _scaling(config))
    if PEFT_METADATA not in metadata:
        return {}
    try:
        fields = json.loads(metadata[PEFT_METADATA])
    except (ValueError, RecursionError):
        raise BadWeights(f"{place}: its {PEFT_METADATA} is not readable JSON", hint=AGAIN) from None
    if not isinstance(fields, dict):
        raise BadWeights(f"{place}: its {PEFT_METADATA} is no table", hint=AGAIN)
    found = {}
    for prefix, part in PARTS.items():
        own = {key.removeprefix(f"{prefix}."): value for key, value in fields.items() if key.startswith(f"{prefix}.")}
        if own:
            found[part] = _scaling(own)
    return found


def _scaling(fields: Mapping[str, Any]) -> Scaling:
    """PEFT calls alpha `lora_alpha` in LoRA's configuration, and `alpha` in LoHa's and LoKr's."""

    def number(name: str) -> float | None:
        value = fields.get(name)
        return float(value) if isinstance(value, int | float) else None

    def pattern(name: str) -> dict[str, float] | None:
        found = fields.get(name)
        if not isinstance(found, dict):
            return None
        return {str(key): float(value) for key, value in found.items() if isinstance(value, int | float)}

    return Scaling(
        alpha=number("alpha") if number("lora_alpha") is None else number("lora_alpha"),
        alphas=pattern("alpha_pattern"),
        rooted=bool(fields.get("use_rslora")),
        rank=number("r"),
        ranks=pattern("rank_pattern"),
    )
