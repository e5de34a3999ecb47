"""The mini in another layout, by the command line: written, inspected, drawn with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MINI = Path(str(files("fluxone"))) / "assets" / "mini"


def test_the_mini_as_gguf_draws_nearly_the_same(fluxone: Callable[..., Any], tmp_path: Path) -> None:
    done = fluxone("models", "convert", "mini", "mini-Q8_0.gguf", "--to", "gguf")
    assert done.stdout == "mini-Q8_0.gguf\n"
    assert re.search(r"[1-9]\d* rounded, at most 0\.", done.stderr)
    assert "left out: the autoencoder" in done.stderr
    report = json.loads(fluxone("models", "inspect", "mini-Q8_0.gguf", "--json").stdout)
    assert (report["variant"], report["layout"]) == ("mini", "bfl transformer GGUF file")
    assert report["parts"][0]["precision"].keys() == {"q8_0", "float32"}
    places = {"--vae": "vae", "--text-encoder": "text_encoder", "--text-encoder-2": "text_encoder_2"}
    parts = [word for option, place in places.items() for word in (option, MINI / place)]
    asked = ["generate", "a red car", "--size", "64x64", "--steps", 3, "--quiet"]
    fluxone(*asked, "-o", "plain.png")
    fluxone(*asked, "-o", "packed.png", "--model", "mini-Q8_0.gguf", *parts)
    plain, packed = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("plain.png", "packed.png"))
    assert 0 < np.abs(plain - packed).mean() < 4


def test_json_tells_what_was_found(fluxone: Callable[..., Any]) -> None:
    done = fluxone("models", "convert", "mini", "all.safetensors", "--to", "comfy", "--json", "--quiet")
    told = json.loads(done.stdout)
    assert (told["parts"], told["left_out"]) == (["transformer", "autoencoder", "t5", "clip"], [])
    assert told["check"].pop("exact") > 300
    assert told["check"] == {"rounded": 0, "worst": 0.0, "where": ""}
    assert done.stderr == ""


def test_a_mistake_is_one_line(fluxone: Callable[..., Any], tmp_path: Path) -> None:
    for arguments, words in (
        (["x.gguf", "--to", "ggml"], "no layout is called 'ggml'; choose one of bfl"),
        (["x.gguf", "--to", "gguf", "--dtype", "Q4_K"], "can be read, not written"),
        (["x.safetensors", "--to", "gguf"], "end its name in .gguf"),
    ):
        done = fluxone("models", "convert", "mini", *arguments, code=2)
        assert done.stdout == ""
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
