"""ControlNets, IP-Adapters, own words and tiny decoders as a user of the command line meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fluxone import provenance
from fluxone.nn.clip_vision import ClipVisionEncoder
from fluxone.nn.controlnet import ControlNet
from fluxone.nn.ip_adapter import IpAdapter
from fluxone.nn.taef1 import TinyDecoder
from fluxone.shapes import ClipVisionShape, ControlNetShape, IpAdapterShape, TinyShape
from fluxone.weights.configs import read_autoencoder, read_clip, read_flux, read_t5

Fluxone = Callable[..., Any]


def save(module: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = torch.Generator().manual_seed(0)
    state = {}
    for name, value in module.state_dict().items():
        size = 1.5 / value[0].numel() ** 0.5 if value.ndim > 1 else 0.1
        state[name] = size * torch.randn(value.shape, generator=source)
    save_file(state, path)
    return path


def config(tiny: Path, part: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((tiny / part / "config.json").read_text())
    return fields


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    small = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(small).resize((90, 60)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def draw(fluxone: Fluxone, model: Path, name: str, *more: object) -> np.ndarray:
    fluxone("generate", "a fox", "--model", model, "--steps", 2, "--size", "64x48", "-o", name, "--quiet", *more)
    return pixels(name)


def test_a_controlnet(fluxone: Fluxone, tiny: Path, picture: Path, tmp_path: Path) -> None:
    base = read_flux(config(tiny, "transformer"), tiny)
    shape = ControlNetShape(
        flux=replace(base, in_channels=base.out_channels, double_blocks=1, single_blocks=1), modes=4
    )
    file = save(ControlNet(shape), tmp_path / "nets" / "union.safetensors")
    plain = draw(fluxone, tiny, "plain.png")
    more = ("--controlnet", f"{file}:0.7", "--control-image", picture, "--control-mode", "depth")
    steered = draw(fluxone, tiny, "steered.png", *more)
    assert np.abs(plain - steered).max() > 2
    assert np.array_equal(draw(fluxone, tiny, "off.png", *more, "--control-range", "0.9:0.95"), plain)
    entry = provenance.read("steered.png")
    assert entry.recipe["controlnets"] == ["union.safetensors:0.7"] and entry.request.hint_modes == ("depth",)
    assert entry.hashes["controlnet union"].endswith(" at 0.7") and len(entry.hints) == 1
    assert "there is no file union" in fluxone("replay", "steered.png", "--control-image", picture, code=2).stderr
    again = ("--controlnet", f"{file}:0.7", "--control-image", picture)
    assert "0 pixels differ" in fluxone("replay", "steered.png", *again).stdout
    assert "1 hints, 0 are given" in fluxone("replay", "steered.png", *again[:2], code=2).stderr


def test_an_ip_adapter(fluxone: Fluxone, tiny: Path, picture: Path, tmp_path: Path) -> None:
    base = read_flux(config(tiny, "transformer"), tiny)
    shape = IpAdapterShape(hidden=base.hidden, image=12, context=base.text_dim, blocks=base.double_blocks)
    file = save(IpAdapter(shape), tmp_path / "ip" / "ip_adapter.safetensors")
    plain = draw(fluxone, tiny, "plain.png")
    more = ("--ip-adapter", f"{file}:0.8", "--ip-image", picture)
    told = fluxone("generate", "a fox", "--model", tiny, *more, code=2).stderr
    assert "has no encoder for its pictures; give image_encoder" in told
    vision = ClipVisionShape(hidden=64, layers=1, heads=1, mlp=32, size=28, patch=14, out=12)
    encoder = save(ClipVisionEncoder(vision), tmp_path / "clip_vision" / "clip_l.safetensors")
    steered = draw(fluxone, tiny, "steered.png", *more)  # the encoder is found where ComfyUI keeps them
    assert np.abs(plain - steered).max() > 2
    encoder = encoder.rename(tmp_path / "moved.safetensors")
    assert "0 pixels differ" in fluxone("replay", "steered.png", *more, "--image-encoder", encoder).stdout


def test_own_words(fluxone: Fluxone, tiny: Path, tmp_path: Path) -> None:
    clip, t5 = read_clip(config(tiny, "text_encoder"), tiny), read_t5(config(tiny, "text_encoder_2"), tiny)
    file, source = tmp_path / "emb" / "fox.safetensors", torch.Generator().manual_seed(0)
    file.parent.mkdir()
    rows = {
        "clip_l": torch.randn(2, clip.hidden, generator=source),
        "t5xxl": torch.randn(2, t5.hidden, generator=source),
    }
    save_file(rows, file)
    plain = draw(fluxone, tiny, "plain.png")
    assert np.abs(draw(fluxone, tiny, "fox.png", "--embedding", file) - plain).max() > 2  # its name is in the prompt
    assert np.array_equal(draw(fluxone, tiny, "other.png", "--embedding", f"{file}:<cat>"), plain)
    assert provenance.read("fox.png").recipe["embeddings"] == ["fox.safetensors"]
    assert "0 pixels differ" in fluxone("replay", "fox.png", "--embedding", file).stdout


def test_a_tiny_decoder(fluxone: Fluxone, tiny: Path, tmp_path: Path) -> None:
    shape = read_autoencoder(config(tiny, "vae"), tiny)
    levels = (1,) * len(shape.channels)
    file = save(TinyDecoder(TinyShape(latent=shape.latent, channels=8, decoder=levels)), tmp_path / "taef1.safetensors")
    plain = draw(fluxone, tiny, "plain.png")
    assert np.array_equal(draw(fluxone, tiny, "seen.png", "--preview", "--preview-decoder", file), plain)
    assert np.abs(draw(fluxone, tiny, "quick.png", "--decoder", file) - plain).max() > 2
    assert "0 pixels differ" in fluxone("replay", "quick.png", "--decoder", file).stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--control-image", "x.png"], "--control-image is given without --controlnet; add --controlnet"),
        (["--ip-adapter", "x.safetensors"], "--ip-adapter is given without --ip-image; add --ip-image"),
        (["--control-mode", "canny"], "--control-mode is given without --controlnet"),
        (["--control-range", "half"], "--control-range is 'half'"),
        (["--embedding", "gone.safetensors"], "there is no file gone.safetensors"),
        (["--decoder", "gone.safetensors"], "there is no file gone.safetensors"),
    ],
)
def test_mistakes_are_told(fluxone: Fluxone, tiny: Path, options: list[str], told: str) -> None:
    done = fluxone("generate", "a fox", "--model", tiny, *options, code=2)
    assert told in done.stderr and not list(Path().glob("outputs/*.png"))
