"""Texts of the command line become fields."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from fluxone.cli import options, train
from fluxone.errors import BadFile, BadRequest, UnknownName
from fluxone.geometry import Resolution
from fluxone.sampling.samplers import SAMPLERS
from fluxone.sampling.schedule import SCHEDULES
from fluxone.variants import VARIANTS


def test_the_names_are_those_of_the_tables() -> None:
    assert tuple(SAMPLERS) == options.SAMPLERS
    assert tuple(SCHEDULES) == options.SCHEDULES


def test_sizes() -> None:
    assert options.read_resolution("640x480", None, None) == Resolution(width=640, height=480)
    assert options.read_resolution(None, "16:9", 1.0) == Resolution(width=1360, height=768)
    assert options.read_resolution(None, "1:1", 0.25) == Resolution(width=512, height=512)
    assert options.read_resolution(None, None, None) is None


def test_a_bare_word_must_be_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in (*VARIANTS, "folder", "org/name", "missing.safetensors"):
        options.check_model(name)
    with pytest.raises(UnknownName, match="did you mean 'schnell'"):
        options.check_model("snell")


def test_a_prompt_from_standard_input_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("  ein Füchschen\n".encode())))
    assert options.read_prompt("-") == "ein Füchschen"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    with pytest.raises(BadRequest, match="UTF-8"):
        options.read_prompt("-")
    assert options.read_prompt("--") == "--"


def test_pictures_come_upright_and_in_three_colours(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("L", (40, 20), 99).save(tmp_path / "side.jpg", exif=exif)
    picture = options.read_image(str(tmp_path / "side.jpg"))
    assert (picture.size, picture.mode) == ((20, 40), "RGB")
    (tmp_path / "cut.png").write_bytes((tmp_path / "side.jpg").read_bytes()[:100])
    for bad in ("nothing.png", "cut.png", "."):
        with pytest.raises(BadFile):
            options.read_image(str(tmp_path / bad))


def test_training_settings_are_toml_values() -> None:
    given = ("steps=20", "out=runs/a", 'name = "x"', "rates=[1, 2.5]", "ema=true")
    read = train.read_settings(given)
    assert read == {"steps": 20, "out": "runs/a", "name": "x", "rates": [1, 2.5], "ema": True}
