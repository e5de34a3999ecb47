"""`fluxone ultra`, `--raw`, `--region` and `--nag` on the command line: sizes, records, replay, mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxone.geometry import Resolution
from fluxone.variants import MINI

Fluxone = Callable[..., Any]
FAST = ("--steps", 2, "--quiet", "--json")


def mask(path: Path, left: int, right: int) -> Path:
    half = Image.new("L", (2, 2))
    half.putdata([left, right] * 2)
    half.resize((64, 64), Image.Resampling.NEAREST).save(path)
    return path


def test_a_large_picture_of_the_mini_keeps_what_the_small_one_shows(fluxone: Fluxone) -> None:
    asked = ("a red car in the snow", "--seed", 4, "--steps", 5, "--aspect", "1:1", "--quiet")
    large = Path(fluxone("ultra", *asked, "-o", "large.png").stdout.strip())
    fluxone("generate", *asked[:-3], "--size", f"{MINI.size}x{MINI.size}", "--quiet", "-o", "small.png")
    one, other = Image.open(large), Image.open("small.png")
    assert one.size == (2 * MINI.size, 2 * MINI.size)
    shrunk = np.asarray(one.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
    small = np.asarray(other.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
    assert np.abs(shrunk - small).mean() < 12, "the same composition, its means within the decoder's error"
    plain = other.resize(one.size, Image.Resampling.BICUBIC)
    for axis in (0, 1):
        pixels = (np.asarray(image, dtype=np.float32) for image in (one, plain))
        steps, expected = (np.abs(np.diff(values, axis=axis)).mean((1 - axis, 2)) for values in pixels)
        assert steps.max() < 2 * expected.max(), "no line stands out that the small picture does not have"


@pytest.mark.parametrize("aspect", ["21:9", "9:21", None])
def test_every_aspect_comes_out_and_replays(fluxone: Fluxone, tiny: Path, aspect: str | None) -> None:
    half = Resolution.from_aspect(aspect or "16:9", MINI.size**2)
    given = () if aspect is None else ("--aspect", aspect)
    done = fluxone("ultra", "a fox", "--model", tiny, "--variant", "mini", *given, *FAST, "--raw")
    (image,) = json.loads(done.stdout)["images"]
    assert Image.open(image["path"]).size == (2 * half.width, 2 * half.height)
    assert image["request"]["guidance"] == MINI.raw_guidance and image["request"]["ultra"] == "tiled"
    if aspect is None:
        fluxone("replay", image["path"], "--quiet")


def test_regions_and_nag_are_recorded_and_replayed(fluxone: Fluxone, tmp_path: Path, tiny: Path) -> None:
    left, right = mask(tmp_path / "left.png", 255, 0), mask(tmp_path / "right.png", 0, 255)
    asked = ("a b", "--region", f"{left}:fox: red", "--region", f"{right}:2.5:house", "--nag", 4, "--negative", "c")
    done = fluxone("generate", *asked, "--model", tiny, "--size", "64x64", *FAST)
    (image,) = json.loads(done.stdout)["images"]
    told = [{"prompt": "fox: red", "strength": 1.0}, {"prompt": "house", "strength": 2.5}]
    assert image["request"]["regions"] == told
    fluxone("replay", image["path"], "--region", left, "--region", right, "--quiet")
    fluxone("replay", image["path"], "--region", right, "--region", left, code=2)
    fluxone("replay", image["path"], code=2)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("ultra", "a", "--aspect", "3:1"), "use 21:9 to 9:21"),
        (("ultra", "a", "--aspect", "wide"), "write ACROSS:DOWN"),
        (("ultra", "a", "--pass", "thrice"), "no way of ultra"),
        (("generate", "a", "--raw", "--model", "schnell"), "schnell has no raw pictures"),
        (("generate", "a", "--region", "left.png"), "write MASK:PROMPT"),
        (("generate", "a", "--region", "left.png:fox"), "there is no picture file left.png"),
        (("generate", "a", "--negative", "b"), "add e.g. --nag 5"),
    ],
)
def test_mistakes_are_told(fluxone: Fluxone, line: tuple[str, ...], words: str) -> None:
    assert words in fluxone(*line, code=2).stderr
