"""`fluxone lora` and `--lora` as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fluxone import provenance
from fluxone.lora.base import Base

Fluxone = Callable[..., Any]


@pytest.fixture
def lora(tiny: Path, tmp_path: Path) -> Path:
    """A random adapter of the tiny model's attention."""
    source = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in Base(str(tiny)).shapes["transformer"].items():
        if name.endswith(("qkv.weight", "linear1.weight")):
            out, inside = shape
            key = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            tensors[f"{key}.lora_down.weight"] = torch.randn(2, inside, generator=source)
            tensors[f"{key}.lora_up.weight"] = torch.randn(out, 2, generator=source)
            tensors[f"{key}.alpha"] = torch.tensor(1.0)
    path = tmp_path / "loras" / "fox.safetensors"
    path.parent.mkdir()
    save_file(tensors, path, metadata={"ss_tag_frequency": '{"a": {"zorp": 3}}'})
    return path


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def draw(fluxone: Fluxone, model: Path, name: str, *more: object) -> np.ndarray:
    fluxone("generate", "a fox", "--model", model, "--steps", 2, "-o", name, "--quiet", *more)
    return pixels(name)


def test_drawing_with_an_adapter_and_replaying(fluxone: Fluxone, tiny: Path, lora: Path) -> None:
    plain = draw(fluxone, tiny, "plain.png")
    half = draw(fluxone, tiny, "half.png", "--lora", f"{lora}:0.5")
    assert np.abs(plain - half).max() > 2
    assert np.array_equal(draw(fluxone, tiny, "none.png", "--lora", f"{lora}:0"), plain)
    entry = provenance.read("half.png")
    assert entry.recipe["adapters"] == ["fox.safetensors:0.5"]
    assert entry.hashes["lora fox"].startswith("sha256:") and entry.hashes["lora fox"].endswith(" at 0.5")
    said = fluxone("replay", "half.png", code=2).stderr
    assert "fox.safetensors is not in this folder; say where each lies now: --lora FOLDER/fox.safetensors:0.5" in said
    assert "0 pixels differ" in fluxone("replay", "half.png", "--lora", f"{lora}:0.5").stdout
    assert "not the ones" in fluxone("replay", "half.png", "--lora", f"{lora}:0.25", code=1).stderr


def test_inspect(fluxone: Fluxone, tiny: Path, lora: Path) -> None:
    told = fluxone("lora", "inspect", lora, "--model", tiny).stdout
    assert "kohya" in told and "zorp (3)" in told and "relative to its weights" in told
    report = json.loads(fluxone("lora", "inspect", lora, "--json").stdout)
    assert (report["format"], list(report["ranks"]), report["unmatched"]) == ("kohya", ["2"], [])


@pytest.mark.parametrize("style", ["diffusers", "comfy", "kohya"])
def test_a_converted_adapter_draws_the_same(fluxone: Fluxone, tiny: Path, lora: Path, style: str) -> None:
    assert fluxone("lora", "convert", lora, "b.safetensors", "--to", style).stdout == "b.safetensors\n"
    first = draw(fluxone, tiny, "a.png", "--lora", lora)
    assert np.abs(first - draw(fluxone, tiny, "b.png", "--lora", "b.safetensors")).max() <= 1


def test_merged_and_extracted(fluxone: Fluxone, tiny: Path, lora: Path) -> None:
    wanted = draw(fluxone, tiny, "a.png", "--lora", f"{lora}:0.7")
    assert fluxone("lora", "merge", tiny, f"{lora}:0.7", "merged").stdout == "merged\n"
    assert np.abs(wanted - draw(fluxone, Path("merged"), "b.png")).max() <= 1
    done = fluxone("lora", "extract", "merged", tiny, "out.safetensors", "--rank", 2)
    assert "rank 2 holds 100.00 % of the change" in done.stderr
    assert np.abs(wanted - draw(fluxone, tiny, "c.png", "--lora", "out.safetensors")).max() <= 1


def test_mistakes(fluxone: Fluxone, tiny: Path, lora: Path) -> None:
    assert "did you mean 'kohya'" in fluxone("lora", "convert", lora, "x", "--to", "kohia", code=2).stderr
    assert "is there already" in fluxone("lora", "convert", lora, lora, "--to", "comfy", code=2).stderr
    assert "merge needs adapters" in fluxone("lora", "merge", tiny, "out", code=2).stderr
    assert "there is no adapter nothing.safetensors" in fluxone("lora", "inspect", "nothing.safetensors", code=2).stderr
    assert "rank is 0" in fluxone("lora", "extract", tiny, tiny, "x", "--rank", 0, code=2).stderr
    model = next((tiny / "transformer").glob("*.safetensors"))
    assert "is a model, not an adapter" in fluxone("lora", "inspect", model, code=2).stderr
