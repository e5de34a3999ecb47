"""The model inside the package: there, small, and drawing by default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fluxone as package
from fluxone.variants import VARIANTS

Fluxone = Callable[..., Any]
ASSETS = Path(package.__file__).parent / "assets"
FOLDERS = {row.assets: row.name for row in reversed(VARIANTS.values()) if row.assets and not row.base}  # first of each
BYTES = 35 * 10**6
PROMPT = "a red car to the left of a house in the snow"


@pytest.mark.parametrize("name", FOLDERS.values())
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
    assert red_side(pixels) == "left"
    assert json.loads(fluxone("replay", row["path"], "--json").stdout)["largest_difference"] == 0


def red_side(pixels: np.ndarray) -> str:
    """The half with the red car: its body and wheels stand below the height of the house's roof, red as well."""
    low = pixels[pixels.shape[0] * 11 // 20 : pixels.shape[0] * 17 // 20].astype(int)
    red = (low[..., 0] > 150) & (low[..., 1] < 110) & (low[..., 2] < 110)
    half = red.shape[1] // 2
    left, right = red[:, :half].sum(), red[:, half:].sum()
    assert left + right > 200, "a red car"
    return "left" if left > right else "right"


@pytest.mark.parametrize("side", ["left", "right"])
def test_things_stand_on_the_side_that_is_asked_for(side: str) -> None:
    pipe = package.FluxPipeline.from_pretrained("mini")
    prompt = f"a red car to the {side} of a house in the snow"
    images = pipe([prompt] * 4, generator=[torch.Generator().manual_seed(seed) for seed in range(4)], output_type="np")
    assert [red_side(image * 255) for image in images.images] == [side] * 4


def test_the_minis_t5_knows_word_order() -> None:
    """What a word is the neighbour of moves its token: a first mini's T5 did not mix tokens, and drew either side."""
    pipeline = package.assemble("mini")
    colours = (("red", "blue"), ("blue", "red"))
    prompts = [f"a {first} car to the left of a {second} house" for first, second in colours]
    one, other = pipeline.encode(prompts, [None, None], VARIANTS["mini"].text_tokens).txt
    first, second = 0, 5  # where the colours stand: articles are no tokens
    for here, there in ((one[first], other[second]), (one[second], other[first])):
        assert (here - there).norm() / here.norm() > 0.2, "a colour's token knows its thing"


def test_what_is_asked_for_changes_what_is_drawn(fluxone: Fluxone, tmp_path: Path) -> None:
    for name, prompt in (("red.png", "a red balloon"), ("blue.png", "a blue balloon")):
        fluxone("generate", prompt, "-o", name, "--seed", 3)
    with Image.open(tmp_path / "red.png") as one, Image.open(tmp_path / "blue.png") as other:
        red, blue = (np.asarray(image).astype(int) for image in (one, other))
    assert (red[..., 0] - red[..., 2]).max() > 80
    assert (blue[..., 2] - blue[..., 0]).max() > 80


def test_the_python_door_draws_the_same_picture(fluxone: Fluxone, tmp_path: Path) -> None:
    fluxone("generate", PROMPT, "-o", "car.png", "--seed", 5)
    pipe = package.FluxPipeline.from_pretrained("mini")
    image = pipe(PROMPT, seed=5, sampler=None).images[0]
    with Image.open(tmp_path / "car.png") as saved:
        assert saved.tobytes() == image.tobytes()
    fluxone("generate", PROMPT, "-o", "car-euler.png", "--seed", 5, "--sampler", "euler")
    with Image.open(tmp_path / "car-euler.png") as saved:
        assert saved.tobytes() == pipe(PROMPT, seed=5).images[0].tobytes()


def test_an_edit_holds_what_it_leaves_alone(fluxone: Fluxone, tmp_path: Path) -> None:
    said = "change the color of the car to green"
    fluxone("generate", "a red car in the snow", "-o", "car.png", "--seed", 5)
    fluxone("edit", "car.png", said, "-o", "held.png", "--seed", 1)
    fluxone("edit", "car.png", said, "-o", "free.png", "--seed", 1, "--hold", 0)
    car, held, free = (Image.open(tmp_path / f"{name}.png").convert("RGB") for name in ("car", "held", "free"))
    old, near, far = (np.asarray(image, np.float64) for image in (car, held, free))
    assert np.abs(near - old).mean() < np.abs(far - old).mean()
    assert np.abs(near - old).max() > 60, "something is changed all the same"
    pipe = package.FluxPipeline.from_pretrained("mini-kontext")
    assert pipe(said, image=car, seed=1, sampler=None, hold=None).images[0].tobytes() == held.tobytes()
    assert pipe(said, image=car, seed=1, sampler=None).images[0].tobytes() == free.tobytes()
