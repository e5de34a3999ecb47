"""The watermark: not seen, found again after JPEG and other sizes, by its own key only."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from starlette.testclient import TestClient

from fluxone import provenance
from fluxone.cli.main import run
from fluxone.errors import BadRequest
from fluxone.serve.mark import LEAST_SIDE, SURE, agreement, marked, marking
from unit.serve.conftest import wait
from unit.serve.fake import Fake

KEY = "a secret of this test"


def scene(width: int, height: int) -> Image.Image:
    """Sky, ground, a house, a sun, and some grass."""
    down = np.linspace(0, 1, height)[:, None, None] * np.ones((1, width, 1))
    image = Image.fromarray((np.array([90, 140, 220]) + down * np.array([90, 60, -60])).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height * 0.7, width, height), (70, 130, 50))
    draw.rectangle((width * 0.2, height * 0.4, width * 0.5, height * 0.8), (170, 60, 40))
    roof = [(width * x, height * y) for x, y in ((0.15, 0.4), (0.35, 0.2), (0.55, 0.4))]
    draw.polygon(roof, (60, 30, 30))
    draw.ellipse((width * 0.7, height * 0.1, width * 0.85, height * 0.1 + width * 0.15), (250, 220, 90))
    grass = Image.effect_noise((width, height), 90).convert("RGB")
    where = Image.fromarray((down[..., 0] > 0.75).astype(np.uint8) * 255)
    return Image.composite(Image.blend(image, grass, 0.4), image, where)


PICTURES = {
    "scene": scene(768, 512), "tall": scene(200, 320), "least": scene(LEAST_SIDE, LEAST_SIDE),
    "noise": Image.effect_noise((256, 256), 60).convert("RGB"),
}  # fmt: skip
PLAIN = {name: Image.new("RGB", (256, 256), name) for name in ("green", "white", "black")}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("name", PICTURES | PLAIN)
def test_it_is_not_seen_and_found_again(name: str) -> None:
    image = (PICTURES | PLAIN)[name]
    shown = marked(image, KEY)
    error = np.asarray(shown, dtype=float) - np.asarray(image, dtype=float)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 40
    assert agreement(image, KEY) < SURE
    assert agreement(shown, KEY + "x") < SURE
    half = shown.resize((shown.width // 2, shown.height // 2))
    ways = {"as it is": shown, "JPEG 85": jpeg(shown, 85), "larger": shown.resize((900, 640))}
    if name in PICTURES:  # one colour hides less
        ways["duller"] = ImageEnhance.Brightness(ImageEnhance.Contrast(shown).enhance(0.9)).enhance(0.9)
    if name in PICTURES and min(image.size) > LEAST_SIDE:
        ways |= {"smaller": half, "smaller, then JPEG 85": jpeg(half, 85)}
    assert {way for way, seen in ways.items() if agreement(seen, KEY) < SURE} == set()


def test_what_is_not_marked_agrees_by_chance_only() -> None:
    found = [agreement(PICTURES["scene"].resize((192, 128)), f"key number {n}") for n in range(200)]
    assert max(map(abs, found)) < 4.5
    assert 0.8 < np.std(found) < 1.2


def test_what_has_no_room_stays_as_it_is() -> None:
    small = scene(LEAST_SIDE - 1, 300)
    assert marked(small, KEY) is small
    assert marking("") is None
    with pytest.raises(BadRequest, match="7 characters"):
        marking("7 chars")


def test_results_of_a_server_are_marked(
    server: Callable[..., TestClient], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, size = server(Fake(), watermark=KEY), {"width": 256, "height": 256}
    reply = client.post("/v1/flux-dev", json={"prompt": "x", "output_format": "jpeg", **size}).json()
    final = wait(client, reply["polling_url"])
    data = client.get(final["result"]["sample"]).content
    assert agreement(Image.open(io.BytesIO(data)), KEY) > SURE
    file, config = tmp_path / "result.jpg", tmp_path / "server.toml"
    file.write_bytes(data)
    assert provenance.read(file).request.prompt == "x"
    config.write_text(f'watermark = "{KEY}"\n')
    plain = tmp_path / "plain.png"
    PICTURES["scene"].save(plain)
    for path, words in ((file, "marked ("), (plain, "not marked (")):
        assert run(["serve", "--config", str(config), "--marked", str(path)]) == 0
        assert capsys.readouterr().out.startswith(words)
    assert run(["serve", "--config", str(config), "--marked", str(config)]) == 2
    assert run(["serve", "--marked", str(file)]) == 2
