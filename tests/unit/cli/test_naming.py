"""Names of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxone.cli.naming import FORMATS, SUFFIXES, prepare, slug, target, unused
from fluxone.errors import BadRequest, CannotWrite, UnknownName
from fluxone.provenance import WRITERS


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A fox, reading!", "a-fox-reading"),
        ("", "untitled"),
        ("../../etc/passwd", "etc-passwd"),
        ("snake_case & CON.png", "snake-case-con-png"),
        ("Füchse im Schnee", "füchse-im-schnee"),
        ("雪の中の狐", "雪の中の狐"),
        ("x" * 500, "x" * 48),
        ("a long prompt whose words are not cut in the middle of one", "a-long-prompt-whose-words-are-not-cut-in-the"),
    ],
)
def test_slug(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def test_a_name_of_ours_never_overwrites(tmp_path: Path) -> None:
    first = unused(tmp_path / "fox-0.png")
    first.touch()
    second = unused(tmp_path / "fox-0.png")
    second.touch()
    assert [first.name, second.name, unused(tmp_path / "fox-0.png").name] == ["fox-0.png", "fox-0-2.png", "fox-0-3.png"]


def test_what_output_and_format_mean_together(tmp_path: Path) -> None:
    assert str(target(None, None, 1).path("a fox", 3, 0)) == "outputs/a-fox-3.png"
    assert str(target(None, "webp", 1).path("a fox", 3, 0)) == "outputs/a-fox-3.webp"
    assert str(target("foxes", "jpg", 1).path("a fox", 3, 0)) == "foxes/a-fox-3.jpg"
    assert str(target("foxes/", None, 2).path("a fox", 3, 1)) == "foxes/a-fox-3.png"
    assert str(target("deep/f.JPEG", None, 1).path("a fox", 3, 0)) == "deep/f.JPEG"
    assert target("deep/f.JPEG", "jpg", 1).format == "jpg"
    assert [str(target("f.png", None, 2).path("a fox", 3, i)) for i in (0, 1)] == ["f-1.png", "f-2.png"]
    (tmp_path / "v1.5").mkdir()
    assert target(str(tmp_path / "v1.5"), None, 1).path("x", 0, 0) == tmp_path / "v1.5" / "x-0.png"


def test_wrong_names() -> None:
    with pytest.raises(BadRequest, match=r"\.gif"):
        target("fox.gif", None, 1)
    with pytest.raises(BadRequest, match="--format says webp"):
        target("fox.png", "webp", 1)
    with pytest.raises(UnknownName, match="gif"):
        target(None, "gif", 1)


def test_folders_are_tried_before_the_work(tmp_path: Path) -> None:
    prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="cannot make the folder"):
        prepare(tmp_path / "file" / "b")


def test_the_formats_are_those_that_can_be_written() -> None:
    assert set(SUFFIXES) == set(WRITERS)
    assert {SUFFIXES[suffix] for suffix in FORMATS.values()} == set(FORMATS)
