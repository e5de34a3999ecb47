"""A folder of pictures with their captions, as the ecosystem has it.

    a.png  a.txt                                             one caption beside each picture
    metadata.jsonl   {"file_name": "a.png", "text": "...", "reference": "b.png", "mask": "m.png"}

Folders below are read too. Of the two ways, a `metadata.jsonl` in a folder counts for that folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from fluxone.errors import BadFile

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
METADATA = "metadata.jsonl"
KEYS = ("file_name", "text", "reference", "references", "mask")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture and what belongs to it.

    Attributes:
        path, text: the picture and its caption.
        references: pictures that it is made from, for models that take such.
        mask: white where the picture counts (or, for models that repaint, where it is repainted).
    """

    path: Path
    text: str
    references: tuple[Path, ...] = ()
    mask: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All pictures of it."""
        return (self.path, *self.references, *(() if self.mask is None else (self.mask,)))


def read(folder: Path) -> list[Example]:
    """The examples of a folder, in the order of their names.

    Raises:
        BadFile: there is no such folder, no picture in it, or a line of metadata that says nothing usable.
    """
    if not folder.is_dir():
        raise BadFile(f"there is no folder {folder}", hint="give a folder of pictures with a .txt beside each")
    found: list[Example] = []
    for place in sorted([folder, *(path for path in folder.rglob("*") if path.is_dir())]):
        found += _told(place / METADATA) if (place / METADATA).is_file() else _beside(place)
    if not found:
        kinds = ", ".join(PICTURES)
        raise BadFile(f"{folder} holds no pictures ({kinds})", hint="put 5 to 50 pictures there, a .txt beside each")
    return found


def _beside(place: Path) -> Iterator[Example]:
    for path in sorted(place.iterdir()):
        if path.suffix.lower() in PICTURES and path.is_file():
            caption = path.with_suffix(".txt")
            yield Example(path=path, text=_text(caption) if caption.is_file() else "")


def _text(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError:
        raise BadFile(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None


def _told(path: Path) -> Iterator[Example]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadFile(f"{path}, line {number}: {error}", hint="write one JSON object a line") from None
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise BadFile(f"{path}, line {number} names no file", hint='write {"file_name": "a.png", "text": "..."}')
        if unknown := sorted(row.keys() - set(KEYS)):
            raise BadFile(f"{path}, line {number} has the key {unknown[0]!r}", hint=f"known are {', '.join(KEYS)}")
        yield _example(path, number, row)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadFile(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None


def _example(path: Path, number: int, row: dict[str, Any]) -> Example:
    given = row.get("references", [])
    given = [row["reference"]] if row.get("reference") else given
    names = [row["file_name"], *(given if isinstance(given, list) else [given])]
    names += [row["mask"]] if row.get("mask") else []
    for name in names:
        if not isinstance(name, str) or not (path.parent / name).is_file():
            raise BadFile(f"{path}, line {number}: there is no {name!r}", hint="names are relative to that file")
    return Example(
        path=path.parent / row["file_name"],
        text=" ".join(str(row.get("text") or "").split()),
        references=tuple(path.parent / name for name in (given if isinstance(given, list) else [given])),
        mask=path.parent / row["mask"] if row.get("mask") else None,
    )


def open_picture(path: Path) -> Image.Image:
    """A picture as people see it: turned as its camera says, what is transparent on white, three colours.

    Raises:
        BadFile: it is no picture, or a broken one.
    """
    try:
        with Image.open(path) as file:
            file.load()
            image = ImageOps.exif_transpose(file)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise BadFile(f"{path} cannot be read: {error}", hint="save it again, or take it out of the folder") from None
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        image = Image.alpha_composite(white, clear)
    return image.convert("RGB")


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def names_of(name: str) -> tuple[str, ...]:
    """The names of what is learnt, one or several with commas between them."""
    return tuple(part for part in (word.strip() for word in name.split(",")) if part)
