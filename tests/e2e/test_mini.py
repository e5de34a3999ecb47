"""The model inside the package: there, small, and drawing by default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fluxone as package
from fluxone.variants import VARIANTS

Fluxone = Callable[..., Any]
ASSETS = Path(package.__file__).parent / "assets"
BYTES = 35 * 10**6
PROMPT = "a red car to the left of a house in the snow"


@pytest.mark.parametrize("name", [row.name for row in VARIANTS.values() if row.assets])
def test_a_model_inside_the_package_is_whole_and_small(fluxone: Fluxone, name: str) -> None:
    folder = ASSETS / VARIANTS[name].assets
    report = json.loads(fluxone("models", "inspect", folder, "--json").stdout)
    assert {part["name"] for part in report["parts"]} == {"transformer", "autoencoder", "t5", "clip"}
    assert report["missing"] == []
    assert report["variant"] == name
    assert {kind for part in report["parts"] for kind in part["precision"]} == {"bfloat16"}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < BYTES


def test_the_mini_draws_by_default_and_replays(fluxone: Fluxone, tmp_path: Path) -> None:
    done = fluxone("generate", PROMPT, "--json")
    (row,) = json.loads(done.stdout)["images"]
    assert row["path"] == "outputs/a-red-car-to-the-left-of-a-house-in-the-snow-0.png"
    assert (row["model"], row["request"]["steps"]) == ("mini", VARIANTS["mini"].steps)
    with Image.open(tmp_path / row["path"]) as image:
        pixels = np.asarray(image).astype(int)
    side = VARIANTS["mini"].size
    assert pixels.shape == (side, side, 3)
    assert pixels.std() > 20, "a picture, not one grey"
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 110) & (pixels[..., 2] < 110)
    assert red.sum() > 300, "a red car, on either side: docs/models.md says how often it is the right one"
    assert json.loads(fluxone("replay", row["path"], "--json").stdout)["largest_difference"] == 0


def test_what_is_asked_for_changes_what_is_drawn(fluxone: Fluxone, tmp_path: Path) -> None:
    for name, prompt in (("red.png", "a red balloon"), ("blue.png", "a blue balloon")):
        fluxone("generate", prompt, "-o", name, "--seed", 3)
    with Image.open(tmp_path / "red.png") as one, Image.open(tmp_path / "blue.png") as other:
        red, blue = (np.asarray(image).astype(int) for image in (one, other))
    assert (red[..., 0] - red[..., 2]).max() > 80
    assert (blue[..., 2] - blue[..., 0]).max() > 80


def test_the_python_door_draws_the_same_picture(fluxone: Fluxone, tmp_path: Path) -> None:
    fluxone("generate", PROMPT, "-o", "car.png", "--seed", 5)
    image = package.FluxPipeline.from_pretrained("mini")(PROMPT, seed=5).images[0]
    with Image.open(tmp_path / "car.png") as saved:
        assert saved.tobytes() == image.tobytes()
