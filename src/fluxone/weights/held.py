"""Networks that are given in memory in place of files: ours, or those of diffusers and transformers.

    module --names, shapes, config--> Part, whose header says them and holds the tensors

What follows is as for a file: names are recognised, every one is used, and shapes must fit. Tensors that need no change
are shared with the network that was given. It imports neither diffusers nor transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fluxone.errors import BadWeights
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.clip_vision import ClipVisionEncoder
from fluxone.nn.siglip import SiglipEncoder
from fluxone.nn.siglip_pooled import SiglipPooledEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.shapes import ClipVisionShape, SiglipShape
from fluxone.weights import configs
from fluxone.weights.formats import FORMATS
from fluxone.weights.identify import NOTE
from fluxone.weights.keymap import Format, claim, recognise
from fluxone.weights.mapped import CODES
from fluxone.weights.parts import TITLES, Part
from fluxone.weights.safetensors import Entry, Header, listing


def write_vision(shape: ClipVisionShape | SiglipShape) -> dict[str, Any]:
    """The config.json of a picture encoder, or what it has in common with transformers'."""
    widths = {"projection_dim": shape.out} if isinstance(shape, ClipVisionShape) else {}
    return widths | {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "image_size": shape.size,
        "patch_size": shape.patch,
        "hidden_act": shape.activation,
        "layer_norm_eps": shape.eps,
    }


OURS: dict[type[nn.Module], Callable[[Any], dict[str, Any]]] = {
    Flux: configs.write_flux,
    AutoEncoder: lambda shape: configs.write_autoencoder(shape, 0),
    T5Encoder: configs.write_t5,
    ClipTextEncoder: configs.write_clip,
    ClipVisionEncoder: write_vision,
    SiglipEncoder: write_vision,
    SiglipPooledEncoder: write_vision,
}


def part_of(module: nn.Module, name: str, formats: Iterable[Format] = FORMATS.values()) -> Part:
    """A network as the part of a model that a file would hold.

    Args:
        name: the part that it is to be, and `formats`, how its tensors may be named.

    Raises:
        BadWeights: it is something else, or its weights are packed, or not in memory.
    """
    own: nn.Module = getattr(module, "_orig_mod", module)  # of one that torch compiles
    title, place = type(own).__name__, Path(f"the given {type(own).__name__}")
    tensors = dict(own.state_dict())
    entries = {key: _entry(key, tensor, place) for key, tensor in tensors.items()}
    config = json.dumps({name: _config(own) | _class(own)}, default=str)
    header = Header(path=place, entries=entries, metadata={NOTE: config}, data=0, size=0, held=tensors)
    found = recognise(entries, [row for row in formats if row.part == name])
    if name not in found:
        told = f"it holds {listing(sorted(entries), 4)}"
        raise BadWeights(f"a {title} is given as {TITLES.get(name, name)}: {told}", hint="give one of FLUX.1")
    names, left = claim(entries, found)
    if left:
        raise BadWeights(f"the given {title} holds {len(left)} tensors of no known use: {listing(left)}")
    return Part(name=name, form=found[name], headers=(header,), names=tuple(names[name]))


def _entry(name: str, tensor: Tensor, place: Path) -> Entry:
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.dtype not in CODES:
        what = tensor.dtype if type(tensor) is Tensor else type(tensor).__name__
        hint = "give the path of its file, which is read as it is packed; or quant="
        raise BadWeights(f"{place} is packed ({name} is {what})", hint=hint)
    if tensor.is_meta:
        raise BadWeights(f"{place} has no weights in memory ({name})", hint="load it without device_map")
    shape, code = tuple(tensor.shape), CODES[tensor.dtype]
    return Entry(name=name, dtype=code, shape=shape, start=0, stop=tensor.nbytes, path=place)


def _config(module: nn.Module) -> dict[str, Any]:
    """What the network's config.json would say."""
    if write := OURS.get(type(module)):
        return write(module.shape)
    config: Any = getattr(module, "config", None)
    return dict(config.to_dict() if hasattr(config, "to_dict") else config or {})


def _class(module: nn.Module) -> dict[str, Any]:
    return {} if type(module) in OURS else {"_class_name": type(module).__name__}
