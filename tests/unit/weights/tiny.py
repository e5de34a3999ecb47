"""Tiny random models, and the files that people keep them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.variants import DEV
from fluxone.weights.formats import FORMATS
from fluxone.weights.keymap import Format
from fluxone.weights.save import in_format, save_file, save_folder

FLUX = FluxShape(
    in_channels=16, out_channels=16, hidden=32, heads=2, axes=(4, 6, 6), double_blocks=2, single_blocks=1,
    text_dim=24, vec_dim=64,
)  # fmt: skip
VAE = AutoEncoderShape(channels=(32, 64), latent=4)
T5 = T5Shape(vocab=30, hidden=24, layers=2, heads=3, head_dim=5, mlp=28, buckets=8)
CLIP = ClipShape(vocab=40, hidden=64, layers=1, heads=1, mlp=36, positions=11, eos=39)
CLIP_JUNK = {"text_projection.weight": torch.zeros(2, 2), "text_model.embeddings.position_ids": torch.arange(3)}


def network(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    builds = {
        "transformer": lambda: Flux(FLUX),
        "autoencoder": lambda: AutoEncoder(VAE),
        "t5": lambda: T5Encoder(T5),
        "clip": lambda: ClipTextEncoder(CLIP),
    }
    return builds[name]()


def networks() -> dict[str, nn.Module]:
    return {name: network(name) for name in ("transformer", "autoencoder", "t5", "clip")}


def one_file(path: Path, module: nn.Module, form: Format, more: Mapping[str, Tensor] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(path, {**in_format(module.state_dict(), form), **(more or {})}, metadata={"made": "here"})
    return path


def tokenizer(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def split_files(root: Path) -> Path:
    """A transformer's file with its companions beside it."""
    models = networks()
    file = one_file(root / "flux1-tiny.safetensors", models["transformer"], FORMATS["bfl transformer"])
    one_file(root / "ae.safetensors", models["autoencoder"], FORMATS["bfl autoencoder"])
    one_file(root / "t5xxl_fp16.safetensors", models["t5"], FORMATS["t5"])
    one_file(root / "clip_l.safetensors", models["clip"], FORMATS["clip"], CLIP_JUNK)
    tokenizer(root / "tokenizer")
    tokenizer(root / "tokenizer_2")
    return file


def all_in_one(path: Path) -> Path:
    """A file as ComfyUI writes it."""
    tensors: dict[str, Tensor] = {}
    for name, module in networks().items():
        tensors |= in_format(module.state_dict(), FORMATS[f"comfy {name}"])
    for encoder in ("clip_l", "t5xxl"):
        tensors[f"text_encoders.{encoder}.logit_scale"] = torch.tensor(4.6)
    tensors["text_encoders.clip_l.transformer.text_projection.weight"] = torch.zeros(2, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(path, tensors, metadata={})
    return path


def folder(path: Path) -> Path:
    """A diffusers folder of the same model."""
    words = {name: tokenizer(path.parent / f"words-{name}") for name in ("tokenizer", "tokenizer_2")}
    models = networks()
    save_folder(
        path,
        variant=replace(DEV, shape=FLUX),
        transformer=models["transformer"],  # type: ignore[arg-type]
        autoencoder=models["autoencoder"],  # type: ignore[arg-type]
        t5=models["t5"],  # type: ignore[arg-type]
        clip=models["clip"],  # type: ignore[arg-type]
        tokenizers=words,
    )
    return path


def equal(found: nn.Module | None, wanted: nn.Module) -> None:
    assert found is not None
    state, target = found.state_dict(), wanted.state_dict()
    assert state.keys() == target.keys()
    for name, tensor in target.items():
        assert torch.equal(state[name], tensor), name
