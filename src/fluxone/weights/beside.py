"""From a file or folder to a network that works beside a model: ControlNet, IP-Adapter, picture encoder, tiny decoder.

path --read header, recognise--> Part --config, or the tensors' shapes--> shape --load_module--> network

Reading is strict, as a model's is: names that are left over, missing, or of another shape are an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fluxone.errors import BadWeights
from fluxone.nn.controlnet import ControlNet
from fluxone.nn.ip_adapter import IpAdapter
from fluxone.nn.taef1 import TinyDecoder
from fluxone.shapes import ClipVisionShape, ControlNetShape, FluxShape, IpAdapterShape, TinyShape
from fluxone.weights import configs, sizes
from fluxone.weights.fill import load_module
from fluxone.weights.fingerprint import fingerprint
from fluxone.weights.formats.beside import BESIDE, CLIP_VISION, CONTROLNET, IP_ADAPTER, SIGLIP, SIGLIP_POOLED, TINY
from fluxone.weights.held import part_of
from fluxone.weights.identify import noted
from fluxone.weights.keymap import claim, native_shapes, plan, recognise
from fluxone.weights.parts import Part, _weights_in, read_headers
from fluxone.weights.safetensors import listing, merge, read_json

CONFIG = "config.json"
CLASSES = {CONTROLNET: "FluxControlNetModel", TINY: "AutoencoderTiny"}
SIGLIPS = ("siglip", "siglip_vision_model")
MODELS = {CLIP_VISION: ("clip", "clip_vision_model"), SIGLIP: SIGLIPS, SIGLIP_POOLED: SIGLIPS}
CLIP_HEAD = 64
LAYER = re.compile(r"decoder\.layers\.\d{1,3}\.")

Shapes = Mapping[str, tuple[int, ...]]


def load_controlnet(path: Path | nn.Module, base: FluxShape, dtype: torch.dtype) -> ControlNet:
    """Load a ControlNet in diffusers' or XLabs' layout, or make one of a network in memory.

    Args:
        base: of the transformer that it is to work beside.

    Raises:
        BadFile: there is no such file.
        BadWeights: it is something else, or made for another network.
    """
    part = open_beside(path, CONTROLNET)
    shape = controlnet_shape(part, base)
    own = shape.flux
    for what, found, wanted in (
        ("wide", own.hidden, base.hidden),
        ("text channels wide", own.text_dim, base.text_dim),
        ("pooled channels wide", own.vec_dim, base.vec_dim),
        ("channels of noise wide", own.in_channels, base.out_channels),
    ):
        if found != wanted:
            raise BadWeights(
                f"{part.place} was made for a network {found} {what}, this model is {wanted}",
                hint="use it with the model that it was made for",
            )
    return load_module(lambda: ControlNet(shape), part, dtype=dtype)


def load_ip_adapter(path: Path, base: FluxShape, dtype: torch.dtype) -> IpAdapter:
    """Load an IP-Adapter in XLabs' or InstantX's layout.

    Raises:
        BadFile: there is no such file.
        BadWeights: it is something else, or made for another network.
    """
    part = open_beside(path, IP_ADAPTER)
    shape = ip_adapter_shape(shapes_in(part), part.place)
    blocks = base.double_blocks + (base.single_blocks if shape.inside else 0)
    if shape.hidden != base.hidden or shape.blocks != blocks:
        raise BadWeights(
            f"{part.place} was made for {shape.blocks} blocks {shape.hidden} wide, this model has {blocks} of "
            f"{base.hidden}",
            hint="use it with the model that it was made for",
        )
    return load_module(lambda: IpAdapter(shape), part, dtype=dtype)


def load_tiny(path: Path) -> TinyDecoder:
    """Load a tiny decoder in diffusers', its author's or ComfyUI's layout, in float32.

    Raises:
        BadFile: there is no such file.
        BadWeights: it is something else.
    """
    part = open_beside(path, TINY)
    shape = tiny_shape(part)
    return load_module(lambda: TinyDecoder(shape), part, dtype=torch.float32)


def hash_of(path: Path | nn.Module, kind: str = CONTROLNET) -> str:
    """The fingerprint of a file or folder that one of these loads, or of a network of a kind in memory."""
    if isinstance(path, nn.Module):
        return fingerprint(open_beside(path, kind).headers)
    return fingerprint(read_headers(_weights_in(path) if path.is_dir() else path))


def open_beside(path: Path | nn.Module, kind: str) -> Part:
    """Find a network of a kind in a file, or in a folder with one set of weights, with the config that is there; or
    take one that is in memory.

    Raises:
        BadFile: nothing usable is there.
        BadWeights: it holds something else, or names of no known meaning.
    """
    if isinstance(path, nn.Module):
        return part_of(path, kind, BESIDE.values())
    headers = read_headers(_weights_in(path) if path.is_dir() else path)
    names = merge(headers)
    found = recognise(names, (row for row in BESIDE.values() if row.part == kind))
    if kind not in found:
        others = sorted({row.part for row in recognise_any(names)})
        told = f"it is a {others[0]}" if others else f"it holds {listing(sorted(names), 4)}"
        raise BadWeights(f"{path} is no {kind}: {told}", hint=f"give the file of a FLUX.1 {kind}")
    dealt, left = claim(names, found)
    if left:
        raise BadWeights(f"{path} ({found[kind].name}) holds {len(left)} names of no meaning: {listing(left)}")
    config = headers[0].path.parent / CONFIG
    own = config if config.is_file() and _speaks_of(read_json(config), kind) else None
    return Part(name=kind, form=found[kind], headers=headers, names=tuple(dealt[kind]), config=own)


def recognise_any(names: Mapping[str, object]) -> list[Any]:
    """The rows of `BESIDE` that names speak."""
    return [row for row in BESIDE.values() if all(row.prefix + mark in names for mark in row.marks)]


def shapes_in(part: Part) -> dict[str, tuple[int, ...]]:
    """The shapes that the network's tensors will have."""
    entries = merge(part.headers)
    return native_shapes(plan(part.names, part.form).picks, lambda name: entries[name].shape)


def config_of(part: Part) -> Mapping[str, Any] | None:
    """What a part's config says: that beside its file, or that of the network in memory."""
    return read_json(part.config) if part.config is not None else noted(part, part.name)


def controlnet_shape(part: Part, base: FluxShape) -> ControlNetShape:
    """Of its config if there is one, else of its tensors and the model beside which it works."""
    if (config := config_of(part)) is not None:
        modes, hint = (config.get(key) for key in ("num_mode", "conditioning_embedding_channels"))
        plain = {**config, "_class_name": configs.TRANSFORMER_CLASS, "patch_size": 1, "out_channels": None}
        flux = configs.read_flux(plain, part.config or part.place)
        return ControlNetShape(flux=flux, modes=_count(modes, part), hint=_count(hint, part))
    shapes = shapes_in(part)
    if "img_in.weight" not in shapes:
        raise BadWeights(f"{part.place} lacks img_in.weight", hint="the file is incomplete")
    flux = sizes.flux({**shapes, "final_layer.linear.weight": shapes["img_in.weight"][::-1]}, part.place)
    if flux.head_dim == base.head_dim:
        flux = replace(flux, axes=base.axes, theta=base.theta)
    modes = shapes.get("controlnet_mode_embedder.weight", (0,))[0]
    hint = shapes.get("input_hint_block.14.weight", (0,))[0]
    return ControlNetShape(flux=flux, modes=modes, hint=hint)


def ip_adapter_shape(shapes: Shapes, place: object) -> IpAdapterShape:
    """Of its tensors, which tell everything."""
    deep = "image_proj.proj.0.weight" in shapes
    first = matrix(shapes, "image_proj.proj.0.weight" if deep else "image_proj.proj.weight", place)
    last = matrix(shapes, "image_proj.proj.2.weight" if deep else "image_proj.proj.weight", place)
    hidden, context = matrix(shapes, "ip_adapter.0.to_k_ip.weight", place)
    if last[0] % context:
        raise BadWeights(f"{place}: {last[0]} is no number of tokens of {context}", hint="the file is broken")
    return IpAdapterShape(
        hidden=hidden,
        image=first[1],
        context=context,
        tokens=last[0] // context,
        blocks=sizes.count(shapes, r"ip_adapter\.(\d+)\."),
        deep=deep,
        inside="ip_adapter.0.to_k_ip.bias" not in shapes,
    )


def clip_vision_shape(part: Part) -> ClipVisionShape:
    """Of its config if there is one, else of its tensors; heads are then 64 wide, as in every published CLIP."""
    if (config := config_of(part)) is not None:
        return configs.read_clip_vision(config, part.config or part.place)
    shapes = shapes_in(part)
    positions, hidden = matrix(shapes, "vision_model.embeddings.position_embedding.weight", part.place)
    patch = shapes.get("vision_model.embeddings.patch_embedding.weight", (0,))[-1]
    if hidden % CLIP_HEAD or patch == 0:
        raise BadWeights(f"{part.place}: CLIP's width is {hidden}", hint="put its config.json beside the file")
    return ClipVisionShape(
        hidden=hidden,
        layers=sizes.count(shapes, r"vision_model\.encoder\.layers\.(\d+)\."),
        heads=hidden // CLIP_HEAD,
        mlp=matrix(shapes, "vision_model.encoder.layers.0.mlp.fc1.weight", part.place)[0],
        size=round((positions - 1) ** 0.5) * patch,
        patch=patch,
        out=matrix(shapes, "visual_projection.weight", part.place)[0],
    )


def tiny_shape(part: Part) -> TinyShape:
    """Of its tensors; scale and shift of its config if there is one."""
    shapes = shapes_in(part)
    channels, latent = matrix(shapes, "decoder.layers.0.weight", part.place)
    levels = [0]
    for i in sorted({int(name.split(".")[2]) for name in shapes if LAYER.match(name)} - {0}):
        if f"decoder.layers.{i}.conv.0.weight" in shapes:
            levels[-1] += 1
        elif f"decoder.layers.{i}.weight" in shapes:
            levels.append(0)
    shape = TinyShape(latent=latent, channels=channels, decoder=tuple(levels[:-1]))
    return shape if part.config is None else configs.read_tiny(read_json(part.config), shape, part.config)


def _speaks_of(config: Mapping[str, Any], kind: str) -> bool:
    if kind in MODELS:
        return config.get("model_type") in MODELS[kind]
    return kind in CLASSES and config.get("_class_name") == CLASSES[kind]


def _count(value: object, part: Part) -> int:
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= configs.LARGE:
        raise BadWeights(f"{part.config}: {value!r:.80} is no count", hint="download the config again")
    return value


def matrix(shapes: Shapes, name: str, place: object) -> tuple[int, int]:
    shape = shapes.get(name, ())
    if len(shape) < 2 or 0 in shape:
        raise BadWeights(f"{place}: {name} is of shape {list(shape)}", hint="the file is incomplete, or another's")
    return shape[0], shape[1]
