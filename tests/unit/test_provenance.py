"""What is written into a picture is read back, whatever the format; saving is whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from fluxone import provenance
from fluxone.errors import BadFile, BadRequest, CannotWrite
from fluxone.geometry import Resolution
from fluxone.recipe import Recipe
from fluxone.request import Request

PROMPT = 'a "fox" – 狐狸 reading\nunder a tree, 50% <b> & 😀'
FORMATS = ["a.png", "a.jpg", "a.jpeg", "a.webp", "a.PNG"]


def picture(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def entry(**fields: object) -> provenance.Record:
    wanted = {"prompt": PROMPT, "resolution": Resolution(width=24, height=16), "seed": 2**63 - 1, "steps": 3}
    return provenance.record(
        Request(**(wanted | fields)),
        model="mini",
        source="mini",
        hashes={"transformer": "sha256:0123456789abcdef", "autoencoder": "sha256:fedc"},
        recipe=Recipe(compat="bfl", token="hf_secret", vae="somebody/ae.safetensors"),
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_record_comes_back_from_every_format(tmp_path: Path, name: str) -> None:
    made = entry(
        negative="blur", cfg=2.5, cfg_interval=(0.1, 0.9), sigmas=(1.0, 0.5, 0.25), guidance=3.5, clip_prompt="fox"
    )
    path = provenance.save(picture(), tmp_path / name, made)
    assert provenance.read(path) == made
    assert provenance.request_of(path) == made.request
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_png_is_lossless_and_keeps_the_pixels(tmp_path: Path) -> None:
    path = provenance.save(picture(), tmp_path / "a.png", entry())
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), np.asarray(picture()))


def test_secrets_and_places_stay_at_home(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp"):
        data = provenance.save(picture(), tmp_path / name, entry()).read_bytes()
        for text in ("hf_secret", "somebody"):
            assert text.encode() not in data and text.encode("utf-16-be") not in data
    assert provenance.read(tmp_path / "a.png").recipe["compat"] == "bfl"


def test_other_tools_can_show_the_png(tmp_path: Path) -> None:
    made = entry(negative="blur", guidance=3.5)
    with Image.open(provenance.save(picture(), tmp_path / "a.png", made)) as image:
        lines = image.info["parameters"]
    assert lines.startswith(PROMPT) and "\nNegative prompt: blur\nSteps: 3, " in lines
    assert "Seed: 9223372036854775807, Size: 24x16, Model: mini, Model hash: 0123456789, " in lines
    assert json.loads(image.info["fluxone"])["request"]["prompt"] == PROMPT
    assert "AI generated" in image.info["Software"]


def test_jpeg_says_who_made_it(tmp_path: Path) -> None:
    with Image.open(provenance.save(picture(), tmp_path / "a.jpg", entry())) as image:
        assert "AI generated" in image.getexif()[ExifTags.Base.Software]


@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_characters_fit(tmp_path: Path, name: str) -> None:
    made = entry(prompt="狐" * 10_000, negative="b" * 10_000)
    assert provenance.read(provenance.save(picture(), tmp_path / name, made)) == made


def test_what_does_not_fit_is_said_before_anything_is_written(tmp_path: Path) -> None:
    made = entry(prompt="a" * 20_000, negative="b" * 20_000)
    with pytest.raises(CannotWrite, match="JPEG holds"):
        provenance.save(picture(), tmp_path / "a.jpg", made)
    assert not list(tmp_path.iterdir())
    assert provenance.read(provenance.save(picture(), tmp_path / "a.webp", made)) == made


def test_a_picture_from_a_picture_needs_that_picture_again(tmp_path: Path) -> None:
    start, other = picture(seed=1), picture(seed=2)
    made = entry(init=start, strength=0.4)
    path = provenance.save(picture(), tmp_path / "a.png", made)
    assert provenance.read(path).init == provenance.fingerprint(start)
    with pytest.raises(BadFile, match="made from another picture"):
        provenance.request_of(path)
    with pytest.raises(BadFile, match="not made from the picture that was given"):
        provenance.request_of(path, init=other)
    again = provenance.request_of(path, init=start)
    assert again.init is start and again.strength == 0.4


def test_one_record_is_one_picture() -> None:
    with pytest.raises(BadRequest, match="2 pictures"):
        entry(count=2)


def test_without_a_record_nothing_is_made_up(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp"):
        path = provenance.save(picture(), tmp_path / name)
        with pytest.raises(BadFile, match="no record"):
            provenance.read(path)


def test_what_is_no_picture_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    (tmp_path / "b.png").write_bytes(provenance.save(picture(200, 200), tmp_path / "c.png", entry()).read_bytes()[:20])
    for path, said in (("a.png", "no picture"), ("b.png", "no picture"), ("none.png", "no file"), ("", "no picture")):
        with pytest.raises(BadFile, match=said):
            provenance.read(tmp_path / path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"fluxone": "1"}', '{"fluxone":"1","model":"m","request":{"steps":-1}}', '"a"', "null",
             '{"fluxone":"1","model":"m","request":{"resolution":"big"}}', '{"fluxone":"1","model":"m","request":[1]}']
)  # fmt: skip
def test_a_broken_record_is_said(text: str) -> None:
    with pytest.raises(BadFile, match="cannot be read"):
        provenance.from_json(text)


def test_fields_of_a_later_version_are_left_alone() -> None:
    text = '{"fluxone":"9.9","model":"m","request":{"prompt":"a","mood":"blue"},"more":1}'
    assert provenance.from_json(text).request == Request(prompt="a")


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    for name in ("a", "a.tiff", "a.txt"):
        with pytest.raises(CannotWrite, match=r"\.png"):
            provenance.save(picture(), tmp_path / name, entry())


@pytest.mark.parametrize(
    ("place", "said"),
    [("none/a.png", "no such folder"), ("file/a.png", "not a folder"), ("folder.png", "folder of that name"),
     ("x" * 300 + ".png", "too long")],
)  # fmt: skip
def test_places_that_cannot_be_written_are_said(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CannotWrite, match=said):
        provenance.save(picture(), tmp_path / place, entry())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "not writable"), (errno.EROFS, "read-only"), (errno.EIO, "rror")],
)
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    path = provenance.save(picture(seed=1), tmp_path / "a.png", entry())
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CannotWrite, match=said):
        provenance.save(picture(seed=2), path, entry())
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_limit_on_file_size_leaves_no_half_file(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CannotWrite, match="larger than allowed"):
            provenance.save(picture(200, 200), tmp_path / "a.png", entry())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(old: object, new: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        provenance.save(picture(), tmp_path / "a.png", entry())
    assert not list(tmp_path.iterdir())


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    path = provenance.save(picture(), tmp_path / "a.png", entry())
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
