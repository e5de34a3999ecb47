"""`fluxone edit`, `fill`, `expand` and `control` as a user meets them: real files, and replay that asks for them."""

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

from unit.conditions.test_redux import write

Fluxone = Callable[..., Any]
QUICK = ("--steps", 2, "-o", "out.png", "--quiet")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A picture, another, and a mask over the left half of the first."""
    noise = np.random.default_rng(0)
    for name in ("one.png", "two.png"):
        Image.fromarray(noise.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    mask = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    mask.paste((9, 9, 9, 255), (0, 0, 30, 40))
    mask.save(tmp_path / "mask.png")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_fill_changes_what_the_mask_covers_and_replays(fluxone: Fluxone, tiny: Path, files: Path) -> None:
    fluxone("fill", "one.png", "mask.png", "a fox", "--model", tiny, *QUICK)
    old, new = pixels(files / "one.png"), pixels(files / "out.png")
    assert np.array_equal(old[:, 30:], new[:, 30:]) and not np.array_equal(old[:, :20], new[:, :20])
    given = ("--init", "one.png", "--mask")
    assert "as init" in fluxone("replay", "out.png", code=2).stderr
    assert "as mask" in fluxone("replay", "out.png", *given[:2], code=2).stderr
    # The mask counted by its alpha, here and there.
    Image.open(files / "mask.png").getchannel("A").save(files / "grey.png")
    assert json.loads(fluxone("replay", "out.png", *given, "grey.png", "--json").stdout)["equal"]
    assert json.loads(fluxone("replay", "out.png", *given, "mask.png", "--json").stdout)["equal"]


def test_expand_adds_what_was_asked_for(fluxone: Fluxone, tiny: Path, files: Path) -> None:
    fluxone("expand", "one.png", "--left", 12, "--bottom", 4, "--overlap", 5, "--model", tiny, *QUICK)
    old, new = pixels(files / "one.png"), pixels(files / "out.png")
    assert new.shape == (44, 72, 3) and np.array_equal(new[:35, 17:], old[:35, 5:])
    assert json.loads(fluxone("replay", "out.png", "--init", "one.png", "--json").stdout)["equal"]
    assert "nothing is to be added" in fluxone("expand", "one.png", "--model", tiny, code=2).stderr


@pytest.mark.parametrize("keep", [(), ("--keep-outside", "mask.png"), ("--keep-outside", "auto")])
def test_edit_keeps_the_size_and_replays(fluxone: Fluxone, tiny: Path, files: Path, keep: tuple[str, ...]) -> None:
    line = ("edit", "one.png", "two.png", "make it night", "--model", tiny, "--variant", "kontext", "--own-size")
    fluxone(*line, *keep, *QUICK)
    assert pixels(files / "out.png").shape == (40, 60, 3)
    given: tuple[str, ...] = ("--reference", "one.png", "--reference", "two.png")
    if not keep:
        assert "2 references, 1 are given" in fluxone("replay", "out.png", *given[:2], code=2).stderr
    if "mask.png" in keep:
        given += ("--init", "one.png", "--mask", "mask.png")
    assert json.loads(fluxone("replay", "out.png", *given, "--json").stdout)["equal"]


def test_control_by_a_lora_and_replay(fluxone: Fluxone, tiny: Path, files: Path) -> None:
    """As Black Forest Labs' control LoRAs: the way in takes twice the channels; any kind of map then guides it."""
    shape = json.loads((tiny / "transformer" / "config.json").read_text())
    columns, width = shape["in_channels"], shape["num_attention_heads"] * shape["attention_head_dim"]
    source = torch.Generator().manual_seed(0)
    tensors = {
        "img_in.lora_A.weight": torch.randn(4, 2 * columns, generator=source),
        "img_in.lora_B.weight": torch.randn(width, 4, generator=source),
    }
    save_file(tensors, files / "pose.safetensors")
    line = ("control", "pose", "one.png", "a fox", "--model", tiny)
    assert "takes no control picture" in fluxone(*line, "--map", code=2).stderr
    fluxone(*line, "--map", "--lora", "pose.safetensors:0.85", *QUICK)
    assert pixels(files / "out.png").shape == (40, 60, 3)
    again = ("replay", "out.png", "--control", "one.png", "--lora", "pose.safetensors:0.85", "--json")
    assert json.loads(fluxone(*again).stdout)["equal"]


def test_edits_in_a_row_replay(fluxone: Fluxone, tiny: Path, files: Path) -> None:
    line = ("edit", "one.png", "make it night", "--then", "add snow", "--model", tiny, "--variant", "kontext")
    done = fluxone(*line, "--own-size", "--steps", 2, "-o", "out.png")
    assert "step 4/4" in done.stderr
    assert json.loads(fluxone("replay", "out.png", "--reference", "one.png", "--json").stdout)["equal"]


def test_vary_and_replay(fluxone: Fluxone, tiny: Path, files: Path) -> None:
    redux = write(files / "redux")
    line = ("vary", "one.png", "two.png", "a fox", "--weights", "1,0.5", "--strength", 0.8, "--size", "64x48")
    fluxone(*line, "--model", tiny, "--redux", redux, *QUICK)
    given = ("--image-prompt", "one.png", "--image-prompt", "two.png", "--json")
    assert "takes no image prompt" in fluxone("replay", "out.png", *given, code=2).stderr
    assert json.loads(fluxone("replay", "out.png", *given, "--redux", redux).stdout)["equal"]


def test_wrong_models_and_missing_pictures_are_said(fluxone: Fluxone, tiny: Path, files: Path) -> None:
    assert "takes no reference picture" in fluxone("edit", "one.png", "x", "--model", tiny, code=2).stderr
    assert "no reference" in fluxone("edit", "one.png", "x", "--then", "y", "--model", tiny, code=2).stderr
    assert "is given without the model" in fluxone("vary", "one.png", "--redux", "r.safetensors", code=2).stderr
    assert "--weights is" in fluxone("vary", "one.png", "--weights", "a,b", "--model", tiny, code=2).stderr
    assert "takes no image prompt" in fluxone("vary", "one.png", "two.png", "x", "--model", tiny, code=2).stderr
    assert "takes no control picture" in fluxone("control", "canny", "one.png", "x", "--model", tiny, code=2).stderr
    said = fluxone("control", "depth", "one.png", "x", "--model", tiny, code=2).stderr
    assert "one.png does not look like a picture of depth; give --detector, which finds it; or --map" in said
    assert "did you mean 'canny'" in fluxone("control", "cany", "one.png", "x", "--model", tiny, code=2).stderr
    assert "no picture file" in fluxone("fill", "none.png", "mask.png", "x", "--model", tiny, code=2).stderr
