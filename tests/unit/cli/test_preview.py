"""How previews are shown."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from fluxone.cli.preview import File, Screen, half_blocks
from fluxone.errors import CannotWrite


def test_half_blocks_hold_two_pixels_a_sign() -> None:
    picture = Image.frombytes("RGB", (2, 2), bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]))
    assert half_blocks(picture, 2) == (
        "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m▀\x1b[38;2;0;255;0m\x1b[48;2;9;9;9m▀\x1b[0m\n"
    )
    assert half_blocks(Image.new("RGB", (16, 8)), 8).count("\n") == 2


def test_the_screen_draws_over_itself_and_wipes() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.show(Image.new("RGB", (8, 8)))
    screen.show(Image.new("RGB", (8, 8)))
    screen.close()
    lines = stream.getvalue().count("\n")
    assert lines == 16
    assert re.findall(r"\x1b\[(\d+)A", stream.getvalue()) == ["8", "8"]
    assert stream.getvalue().endswith("\x1b[J")


def test_the_file_is_replaced_and_removed(tmp_path: Path) -> None:
    file = File(tmp_path / "fox.jpg")
    for colour in ("red", "blue"):
        file.show(Image.new("RGB", (8, 4), colour))
        assert [path.name for path in tmp_path.iterdir()] == ["fox.preview.png"]
        with Image.open(file.path) as shown:
            assert shown.size == (256, 128)
            assert shown.getpixel((5, 5)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    file.close()
    assert list(tmp_path.iterdir()) == []
    file.close()


def test_a_preview_that_cannot_be_written_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, part: Path, **settings: Any) -> None:
        part.write_bytes(b"half")
        raise OSError("full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(CannotWrite, match="full"):
        File(tmp_path / "fox.png").show(Image.new("RGB", (8, 4)))
    assert list(tmp_path.iterdir()) == []
