"""Adapters against diffusers with PEFT: the same file, strengths, two at once, fused: velocity and pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fluxone import FluxPipeline
from fluxone.lora.load import read_lora
from fluxone.lora.save import in_style
from parity.conftest import Oracle, build

pytest.importorskip("peft")

Get = Callable[[str], Oracle]
LEAVES = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_v_proj", "to_add_out", "proj", "net.2", "linear",
          "proj_mlp", "proj_out", "x_embedder", "context_embedder", "linear_1", "q_proj", "fc2")  # fmt: skip


def adapter(oracle: Oracle, path: Path, seed: int, *, rank: int = 4, alpha: float | None = None) -> dict[str, Any]:
    """A random LoRA of the tiny model's transformer and CLIP in diffusers' names, saved."""
    source = torch.Generator().manual_seed(seed)
    tensors = {}
    modules = {"transformer": oracle.pipe.transformer, "text_encoder": oracle.pipe.text_encoder}
    for part, root in modules.items():
        for name, module in root.named_modules():
            if isinstance(module, torch.nn.Linear) and name.endswith(LEAVES):
                key = f"{part}.{name}"
                tensors[f"{key}.lora_A.weight"] = 0.3 * torch.randn(rank, module.in_features, generator=source)
                tensors[f"{key}.lora_B.weight"] = 0.3 * torch.randn(module.out_features, rank, generator=source)
                if alpha is not None and part == "transformer":
                    tensors[f"{key}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return tensors


def pictures(oracle: Oracle, ours: FluxPipeline, latent: bool = False, **more: Any) -> tuple[Any, Any]:
    size = 3 * 2 * oracle.tiny.factor
    kind = "latent" if latent else "np"
    call = {"prompt": "the fox", "height": size, "width": size, "num_inference_steps": 2, "max_sequence_length": 16}
    drawn = []
    for pipe in (oracle.pipe, ours):
        images = pipe(**call, **more, output_type=kind, generator=torch.Generator().manual_seed(1)).images
        drawn.append(np.asarray(images))
    return drawn[0], drawn[1]


def close(oracle: Oracle, ours: FluxPipeline) -> np.ndarray:
    theirs, own = pictures(oracle, ours)
    assert np.abs(theirs - own).max() < 1e-4
    return own


@pytest.fixture
def pipes(oracle: Get) -> tuple[Oracle, FluxPipeline]:
    """A pipeline of diffusers for this test alone, since PEFT leaves rounding behind, and ours."""
    found = oracle("dev")
    ours = FluxPipeline.from_pretrained(str(found.folder), torch_dtype=torch.float32, device="cpu")
    return Oracle(found.tiny, build(found.tiny), found.folder), ours


def test_strengths_two_at_once_and_fused(pipes: tuple[Oracle, FluxPipeline], tmp_path: Path) -> None:
    oracle, ours = pipes
    plain = close(oracle, ours)
    adapter(oracle, tmp_path / "a.safetensors", 1)
    adapter(oracle, tmp_path / "b.safetensors", 2, rank=2, alpha=1.0)
    for pipe in (oracle.pipe, ours):
        pipe.load_lora_weights(str(tmp_path / "a.safetensors"), adapter_name="a")
        pipe.set_adapters(["a"], [0.7])
    one = close(oracle, ours)
    assert np.abs(one - plain).max() > 0.01
    for pipe in (oracle.pipe, ours):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
            pipe.load_lora_weights(str(tmp_path / "b.safetensors"), adapter_name="b")
        pipe.set_adapters(["a", "b"], [0.4, -0.6])
    two = close(oracle, ours)
    assert np.abs(one - two).max() > 0.01
    oracle.pipe.fuse_lora(components=["transformer", "text_encoder"], lora_scale=0.5)
    ours.fuse_lora(lora_scale=0.5)
    fused = close(oracle, ours)
    assert np.abs(fused - two).max() > 0.001
    ours.unfuse_lora()
    oracle.pipe.unfuse_lora(components=["transformer", "text_encoder"])
    oracle.pipe.unload_lora_weights()
    ours.unload_lora_weights()
    assert np.array_equal(pictures(oracle, ours)[1], plain)
    assert ours.get_active_adapters() == []


def test_the_strength_of_one_call(pipes: tuple[Oracle, FluxPipeline], tmp_path: Path) -> None:
    oracle, ours = pipes
    adapter(oracle, tmp_path / "a.safetensors", 5)
    for pipe in (oracle.pipe, ours):
        pipe.load_lora_weights(str(tmp_path / "a.safetensors"), adapter_name="a")
        pipe.set_adapters(["a"], [0.7])
    whole = pictures(oracle, ours)[1]
    theirs, own = pictures(oracle, ours, joint_attention_kwargs={"scale": 0.4})
    assert np.abs(theirs - own).max() < 1e-4 and np.abs(own - whole).max() > 0.01
    assert np.array_equal(pictures(oracle, ours)[1], whole), "the next call is as those before"


def test_velocity(pipes: tuple[Oracle, FluxPipeline], tmp_path: Path) -> None:
    oracle, ours = pipes
    adapter(oracle, tmp_path / "a.safetensors", 3, alpha=2.0)
    for pipe in (oracle.pipe, ours):
        pipe.load_lora_weights(str(tmp_path / "a.safetensors"), adapter_name="a")
    theirs, own = pictures(oracle, ours, latent=True)
    assert np.abs(theirs - own).max() < 1e-5 * max(1, np.abs(theirs).max())


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lora": ("LoraConfig", {"lora_alpha": 6, "rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_v": 9}}),
    "rslora": ("LoraConfig", {"lora_alpha": 6, "use_rslora": True}),
    "dora": ("LoraConfig", {"lora_alpha": 6, "use_dora": True}),
    "loha": ("LoHaConfig", {"alpha": 6, "alpha_pattern": {"to_v": 9}}),
    "lokr, one side whole": ("LoKrConfig", {"alpha": 6, "r": 2}),
    "lokr, both sides whole": ("LoKrConfig", {"alpha": 6, "r": 8}),
    "lokr, neither": ("LoKrConfig", {"alpha": 6, "r": 1, "decompose_both": True, "decompose_factor": 4}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_folders_that_peft_saves(pipes: tuple[Oracle, FluxPipeline], tmp_path: Path, kind: str) -> None:
    """Alpha and rank are in the configuration beside the file, not in it."""
    import peft

    oracle, ours = pipes
    name, more = KINDS[kind]
    config = getattr(peft, name)(**({"r": 4, "target_modules": ["to_q", "to_k", "to_v", "proj_mlp"]} | more))
    network = peft.get_peft_model(oracle.pipe.transformer, config)
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, value in network.named_parameters():
            if value.requires_grad:
                value.add_(0.2 * torch.randn(value.shape, generator=source) * (0.3 if "magnitude" in key else 1))
    network.save_pretrained(tmp_path)
    plain = pictures(oracle, ours)[1]
    ours.load_lora_weights(str(tmp_path))
    assert np.abs(close(oracle, ours) - plain).max() > 0.01


def test_diffusers_reads_what_we_write(pipes: tuple[Oracle, FluxPipeline], tmp_path: Path) -> None:
    oracle, ours = pipes
    made = adapter(oracle, tmp_path / "a.safetensors", 4, alpha=2.0)
    tensors = in_style(read_lora(in_style(read_lora(made), "comfy")), "diffusers")
    save_file(tensors, tmp_path / "b.safetensors")
    oracle.pipe.load_lora_weights(str(tmp_path / "b.safetensors"), adapter_name="a")
    ours.load_lora_weights(str(tmp_path / "a.safetensors"), adapter_name="a")
    close(oracle, ours)
