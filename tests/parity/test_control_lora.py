"""Control LoRAs (Depth and Canny on Dev) against diffusers' FluxControlPipeline with the same one loaded.

Ours is in Black Forest Labs' names, as published: `img_in` twice as wide, biases, new scales of the norms. Diffusers'
own converter of these names has the real model's width in it, so it gets the same numbers under its own names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxControlPipeline
from safetensors.torch import save_file
from torch import Tensor, nn

from fluxone import FluxPipeline
from fluxone.weights.formats.transformer import DIFFUSERS
from fluxone.weights.keymap import Change, spread
from parity.conftest import TINIES, build
from parity.test_pipeline import arguments, assert_close, start

pytest.importorskip("peft")


def published(model: nn.Module, rank: int) -> dict[str, Tensor]:
    """A random control LoRA of every linear layer and every norm's scale; the way in takes twice the channels."""
    source = torch.Generator().manual_seed(4)
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            columns = module.in_features * (2 if name == "img_in" else 1)
            own = min(rank, columns, module.out_features)
            tensors[f"{name}.lora_A.weight"] = 0.3 * torch.randn(own, columns, generator=source)
            tensors[f"{name}.lora_B.weight"] = 0.3 * torch.randn(module.out_features, own, generator=source)
            tensors[f"{name}.lora_B.bias"] = 0.3 * torch.randn(module.out_features, generator=source)
    for name, value in model.named_parameters():
        if name.endswith("_norm.scale"):
            tensors[name] = 1 + 0.3 * torch.randn(value.shape, generator=source)
    return tensors


def renamed(tensors: dict[str, Tensor], model: nn.Module, width: int) -> dict[str, Tensor]:
    """The same in diffusers' names: fused layers in pieces that share `lora_A`, the last layer's halves swapped."""
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    ways = spread([f"{name}.weight" for name in layers] + [n for n in tensors if n.endswith("_norm.scale")], DIFFUSERS)
    found = {}
    for native, way in ways.items():
        if native in tensors:
            found[f"transformer.{way.names[0]}"] = tensors[native]
            continue
        layer = native.removesuffix(".weight")
        for key in ("lora_B.weight", "lora_B.bias"):
            whole = tensors[f"{layer}.{key}"]
            if way.change is Change.SWAP:
                whole = torch.cat(tuple(reversed(whole.chunk(2))))
            rest = len(whole) - width * (len(way.names) - 1)
            pieces = whole.split([width] * (len(way.names) - 1) + [rest])
            for name, piece in zip(way.names, pieces, strict=True):
                found[f"transformer.{name.removesuffix('.weight')}.{key}"] = piece.contiguous()
        for name in way.names:
            down = tensors[f"{layer}.lora_A.weight"].clone()
            found[f"transformer.{name.removesuffix('.weight')}.lora_A.weight"] = down
    return found


@pytest.mark.parametrize("scale", [1.0, 0.85])
def test_equal_to_diffusers_and_gone_when_unloaded(tmp_path: Path, scale: float) -> None:
    base = build(TINIES["dev"], kind=FluxControlPipeline)
    base.save_pretrained(tmp_path / "base")
    ours = FluxPipeline.from_pretrained(str(tmp_path / "base"), torch_dtype=torch.float32, device="cpu")
    kwargs = arguments("dev", 2, 3, {"guidance_scale": 10.0, "num_inference_steps": 2})
    plain = ours(**kwargs, seed=1).images
    tensors = published(ours.transformer, rank=24)
    save_file(tensors, tmp_path / "flux1-depth-dev-lora.safetensors")
    save_file(renamed(tensors, ours.transformer, ours.bundle.transformer.shape.hidden), tmp_path / "theirs.safetensors")
    base.load_lora_weights(str(tmp_path / "theirs.safetensors"), adapter_name="depth")
    ours.load_lora_weights(tmp_path / "flux1-depth-dev-lora.safetensors", adapter_name="depth")
    for pipe in (base, ours):
        pipe.set_adapters(["depth"], [scale])
    picture = {"control_image": start(50, 37)}
    expected, own = (pipe(**kwargs, **picture, generator=torch.manual_seed(3)).images for pipe in (base, ours))
    assert_close(expected, own)
    ours.unload_lora_weights()
    assert np.array_equal(ours(**kwargs, seed=1).images, plain)
