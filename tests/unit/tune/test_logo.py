"""Logos are found where they were put, at their size, and not where something like them is."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from fluxone import storybook
from fluxone.errors import BadFile
from fluxone.tune.logo import FOUND, Logo, Sighting, logo_check, look_for, read_logo, right
from fluxone.tune.report import framed

SIDE = 128
COUNT = 5  # pictures of each kind, from scenes that no threshold was chosen on


def star() -> Image.Image:
    """Of one colour, cut out; what is transparent is of another."""
    image = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    angles = [math.pi * i / 5 - math.pi / 2 for i in range(10)]
    radii = [(98, 42)[i % 2] for i in range(10)]
    points = [(100 + r * math.cos(a), 100 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    ImageDraw.Draw(image).polygon(points, fill="#7020c0")
    return image


def badge() -> Image.Image:
    """Round, of two colours, on white paper."""
    image = Image.new("RGB", (220, 220), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((20, 20, 200, 200), fill="#1450b0")
    pen.ellipse((60, 60, 160, 160), fill="#ffd020")
    pen.rectangle((100, 40, 120, 180), fill="#1450b0")
    return image


def flag() -> Image.Image:
    """A whole rectangle, wider than high."""
    image = Image.new("RGB", (240, 120), "#108040")
    pen = ImageDraw.Draw(image)
    pen.rectangle((80, 0, 160, 120), fill="#f8f8f0")
    pen.polygon([(120, 20), (150, 100), (90, 100)], fill="#d01818")
    return image


LOGOS = {"star": star, "badge": badge, "flag": flag}


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    world = storybook.WORLDS["first"]
    return [Image.fromarray(np.asarray(storybook.render(storybook.scene(n, world), SIDE))) for n in range(COUNT)]


def read(name: str, folder: Path) -> Logo:
    LOGOS[name]().save(folder / f"{name}.png")
    return read_logo(folder / f"{name}.png")


def put(scene: Image.Image, mark: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, tuple[int, ...]]:
    """The mark somewhere, from 18 to 50 % as large as the scene; and where."""
    scale = SIDE * rng.uniform(0.18, 0.5) / max(mark.size)
    small = mark.resize((round(mark.width * scale), round(mark.height * scale)), Image.Resampling.LANCZOS)
    left, top = (int(rng.integers(0, SIDE - side + 1)) for side in small.size)
    made = scene.copy()
    made.paste(small, (left, top), small)
    return made, (left, top, left + small.width, top + small.height)


def spoilt(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """As pictures come: soft, off in colour, noisy, squeezed by JPEG."""
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2))), dtype=np.float32)
    values = values * rng.uniform(0.9, 1.1) + rng.uniform(-10, 10, 3) + rng.normal(0, rng.uniform(0, 8), values.shape)
    file = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(70, 96)))
    return Image.open(file).convert("RGB")


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(0, width) * max(0, height)
    return both / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - both)


def like_it(logo: Logo, number: int) -> Image.Image:
    """What is not the logo: a disc or block of its commonest colour, or itself in other colours."""
    size, colour = logo.picture.size, tuple(int(v) for v in np.median(logo.colours[logo.shape > 0.5], axis=0))
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    if number % 3 == 0:
        ImageDraw.Draw(image).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=colour)
    elif number % 3 == 1:
        image = Image.new("RGBA", size, colour)
    else:
        values = np.asarray(logo.picture).copy()
        values[..., :3] = values[..., [1, 2, 0]]
        image = Image.fromarray(values)
    return image


@pytest.mark.parametrize("name", LOGOS)
def test_it_is_found_where_it_is_and_nowhere_else(scenes: list[Image.Image], name: str, tmp_path: Path) -> None:
    logo, rng = read(name, tmp_path), np.random.default_rng(11)
    with_it, without = [], []
    for number, scene in enumerate(scenes):
        picture, box = put(scene, logo.picture, rng)
        seen = look_for(logo, spoilt(picture, rng))
        with_it.append(seen.found and overlap(seen.box, box) > 0.5)
        empty = scene if number % 2 else put(scene, like_it(logo, number), rng)[0]
        without.append(look_for(logo, spoilt(empty, rng)).found)
    plain = name == "star"  # of one colour: less sure, both ways
    assert sum(with_it) >= (COUNT - 2 if plain else COUNT - 1)
    assert sum(without) <= int(plain)


def test_large_and_small_pictures_are_seen_alike(scenes: list[Image.Image], tmp_path: Path) -> None:
    logo, rng = read("badge", tmp_path), np.random.default_rng(2)
    picture, box = put(scenes[0], logo.picture, rng)
    for times in (0.75, 4):
        size = round(SIDE * times)
        seen = look_for(logo, picture.resize((size, size), Image.Resampling.LANCZOS))
        assert seen.found and overlap(seen.box, tuple(round(v * times) for v in box)) > 0.7


def test_nothing_is_seen_where_there_is_no_contrast(tmp_path: Path) -> None:
    seen = look_for(read("star", tmp_path), Image.new("RGB", (96, 64), "#7020c0"))
    assert seen == Sighting(score=0.0, box=(0, 0, 0, 0))


def test_what_is_read_of_a_logo(tmp_path: Path) -> None:
    whole = read("badge", tmp_path)
    assert 181 <= whole.picture.width == whole.picture.height <= 184  # without the paper
    assert whole.shape[0, 0] == 0 and whole.shape[90, 90] == 1
    assert read("flag", tmp_path).shape.min() == 1
    cut = read("star", tmp_path)
    assert cut.shape.min() == 0
    assert np.abs(cut.colours.astype(int) - (0x70, 0x20, 0xC0)).max() == 0  # black of what is transparent is gone
    Image.new("RGB", (40, 40), "white").save(tmp_path / "blank.png")
    (tmp_path / "text.png").write_text("logo")
    for file, said in (("blank.png", "nothing to look for"), ("text.png", "cannot be read"), ("none.png", "cannot be")):
        with pytest.raises(BadFile, match=said):
            read_logo(tmp_path / file)


def test_a_check_says_how_often_and_the_report_where(scenes: list[Image.Image], tmp_path: Path) -> None:
    logo = read("badge", tmp_path)
    picture, box = put(scenes[1], logo.picture, np.random.default_rng(4))
    found = logo_check(logo, [picture], [scenes[1]], [picture, scenes[1]])
    assert [right(each) for each in (found.references, found.base, found.drawn, ())] == [1, 0, 0.5, 0]
    assert found.drawn[0].score > FOUND > found.drawn[1].score
    made = framed(picture.copy(), found.drawn[0])
    left, top = found.drawn[0].box[:2]
    assert made.getpixel((left, top)) == (0, 176, 80) and overlap(found.drawn[0].box, box) > 0.7
    assert framed(picture.copy(), Sighting(score=0.0, box=(0, 0, 0, 0))).tobytes() == picture.tobytes()
