"""The published networks at their full size, from keys and shapes alone: each key is used, none is missing.

Numbers of the ControlNets: their repositories' config.json; of the IP-Adapters: their authors' code (see the facts in
`weights/formats/beside.py`).
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, FluxControlNetModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from fluxone.nn.clip_vision import ClipVisionEncoder
from fluxone.nn.controlnet import ControlNet
from fluxone.nn.ip_adapter import IpAdapter
from fluxone.nn.siglip_pooled import SiglipPooledEncoder
from fluxone.nn.taef1 import TinyDecoder
from fluxone.shapes import ClipVisionShape, FluxShape, IpAdapterShape, SiglipShape, TinyShape
from fluxone.weights.beside import (
    clip_vision_shape,
    controlnet_shape,
    ip_adapter_shape,
    open_beside,
    shapes_in,
    tiny_shape,
)
from fluxone.weights.formats.beside import SIGLIP_POOLED
from fluxone.weights.parts import Part
from fluxone.weights.redux import siglip_shape

Shapes = dict[str, tuple[int, ...]]
Make = Callable[[dict[str, tuple[int, ...]], str], Part]
DEV = FluxShape()


@pytest.fixture
def part(tmp_path: Path) -> Make:
    """The part of a file that holds these tensors; behind the header the file is a hole without a byte on the disk."""

    def made(shapes: Shapes, kind: str) -> Part:
        fields: dict[str, Any] = {}
        at = 0
        for name, shape in shapes.items():
            size = 2 * math.prod(shape)
            fields[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        raw = json.dumps(fields).encode()
        path = tmp_path / "published.safetensors"
        path.write_bytes(struct.pack("<Q", len(raw)) + raw)
        os.truncate(path, 8 + len(raw) + at)
        return open_beside(path, kind)

    return made


def assert_fits(found: Part, network: nn.Module) -> None:
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes_in(found) == wanted


def of(module: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


CONTROLNETS: dict[str, dict[str, Any]] = {
    "InstantX Canny": {"num_layers": 5, "num_single_layers": 0, "guidance_embeds": False},
    "InstantX Union": {"num_layers": 5, "num_single_layers": 10, "guidance_embeds": True, "num_mode": 10},
    "Shakker Union-Pro": {"num_layers": 5, "num_single_layers": 10, "guidance_embeds": True, "num_mode": 10},
    "Shakker Union-Pro-2.0": {"num_layers": 6, "num_single_layers": 0, "guidance_embeds": True},
    "XLabs in diffusers": {"num_layers": 2, "num_single_layers": 0, "guidance_embeds": True}
    | {"conditioning_embedding_channels": 16, "patch_size": 2},
}


@pytest.mark.parametrize("name", CONTROLNETS)
def test_controlnets(part: Make, name: str) -> None:
    with torch.device("meta"):
        theirs = FluxControlNetModel(**CONTROLNETS[name])
        found = part(of(theirs), "controlnet")
        shape = controlnet_shape(found, DEV)
        ours = ControlNet(shape)
    assert_fits(found, ours)
    assert shape.flux.axes == DEV.axes and shape.flux.heads == DEV.heads
    assert_fits(part(of(ours), "controlnet"), ours)  # the same in XLabs' names, as in XLabs' own and ComfyUI's files


def xlabs(tokens: int) -> Shapes:
    shapes: Shapes = {
        "ip_adapter_proj_model.proj.weight": (tokens * 4096, 768),
        "ip_adapter_proj_model.proj.bias": (tokens * 4096,),
    }
    shapes |= {f"ip_adapter_proj_model.norm.{end}": (4096,) for end in ("weight", "bias")}
    for i in range(19):
        for kind in "kv":
            key = f"double_blocks.{i}.processor.ip_adapter_double_stream_{kind}_proj"
            shapes |= {f"{key}.weight": (3072, 4096), f"{key}.bias": (3072,)}
    return shapes


@pytest.mark.parametrize("tokens", [4, 16])
def test_xlabs_ip_adapters(part: Make, tokens: int) -> None:
    found = part(xlabs(tokens), "IP-Adapter")
    shape = ip_adapter_shape(shapes_in(found), found.place)
    assert shape == IpAdapterShape(tokens=tokens)
    with torch.device("meta"):
        assert_fits(found, IpAdapter(shape))


def test_instantx_ip_adapter(part: Make) -> None:
    shapes: Shapes = {
        "image_proj.proj.0.weight": (2304, 1152),
        "image_proj.proj.0.bias": (2304,),
        "image_proj.proj.2.weight": (128 * 4096, 2304),
        "image_proj.proj.2.bias": (128 * 4096,),
        "image_proj.norm.weight": (4096,),
        "image_proj.norm.bias": (4096,),
    }
    shapes |= {f"ip_adapter.{i}.to_{kind}_ip.weight": (3072, 4096) for i in range(57) for kind in "kv"}
    found = part(shapes, "IP-Adapter")
    shape = ip_adapter_shape(shapes_in(found), found.place)
    assert shape == IpAdapterShape(image=1152, tokens=128, blocks=57, deep=True, inside=True)
    with torch.device("meta"):
        assert_fits(found, IpAdapter(shape))


def test_clip_vision(part: Make) -> None:
    with torch.device("meta"):
        config = CLIPVisionConfig(
            hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, patch_size=14,
            projection_dim=768,
        )  # fmt: skip
        found = part(of(CLIPVisionModelWithProjection(config)), "picture encoder")
        assert clip_vision_shape(found) == ClipVisionShape()
        assert_fits(found, ClipVisionEncoder(ClipVisionShape()))


def test_taef1(part: Make) -> None:
    with torch.device("meta"):
        found = part(of(AutoencoderTiny(latent_channels=16)), "tiny decoder")
        assert tiny_shape(found) == TinyShape()
        assert_fits(found, TinyDecoder(TinyShape()))


def test_siglip_with_its_head(part: Make) -> None:
    with torch.device("meta"):
        config = SiglipVisionConfig(
            hidden_size=1152,
            num_hidden_layers=27,
            num_attention_heads=16,
            intermediate_size=4304,
            image_size=384,
            patch_size=14,
        )
        named = {f"vision_model.{name}": shape for name, shape in of(SiglipVisionModel(config)).items()}
        found = part(named, SIGLIP_POOLED)
        assert siglip_shape(found) == SiglipShape()
        assert_fits(found, SiglipPooledEncoder(SiglipShape()))
