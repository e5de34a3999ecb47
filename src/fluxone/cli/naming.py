"""Where pictures go: a readable name of our own that never overwrites, or exactly the name that was asked for."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from fluxone.errors import BadRequest, CannotWrite, pick

FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp"}
SUFFIXES = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
FOLDER = Path("outputs")
SLUG = 48  # characters: enough to know a picture by, short enough for any file system


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the pictures of one request go.

    Attributes:
        folder: that they lie in.
        stem: of the file when the user named one; None lets each picture name itself.
        suffix: with its dot; says the format.
        count: of pictures that share the stem.
    """

    folder: Path
    stem: str | None
    suffix: str
    count: int

    @property
    def format(self) -> str:
        """Row of `FORMATS`."""
        return SUFFIXES[self.suffix.lower()]

    def path(self, prompt: str, seed: int, index: int) -> Path:
        """The file of picture `index`, counted from 0. A name of ours is one that does not exist yet."""
        if self.stem is not None:
            tail = f"-{index + 1}" if self.count > 1 else ""
            return self.folder / f"{self.stem}{tail}{self.suffix}"
        return unused(self.folder / f"{slug(prompt)}-{seed}{self.suffix}")


def target(output: str | None, format: str | None, count: int) -> Target:
    """What `-o FILE|DIR` and `--format` mean together. A name with a suffix is a file, any other a folder.

    Raises:
        UnknownName: the format is in no row.
        BadRequest: the name's suffix says no format, or another one than `format`.
    """
    suffix = ".png" if format is None else pick(FORMATS, format, "picture format")
    if output is None:
        return Target(folder=FOLDER, stem=None, suffix=suffix, count=count)
    path = Path(output)
    if path.is_dir() or output.endswith(("/", os.sep)) or not path.suffix:
        return Target(folder=path, stem=None, suffix=suffix, count=count)
    said = SUFFIXES.get(path.suffix.lower())
    if said is None:
        raise BadRequest(f"the name {path.name!r} ends in {path.suffix}", hint=f"use {', '.join(SUFFIXES)}")
    if format is not None and said != format:
        raise BadRequest(f"the name {path.name!r} says {said}, --format says {format}", hint="drop one of them")
    return Target(folder=path.parent, stem=path.stem, suffix=path.suffix, count=count)


def prepare(folder: Path) -> None:
    """Make the folder and see that it can be written to: before the work, not after it.

    Raises:
        CannotWrite: it cannot be made, is a file, or is not ours to write to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot make the folder {folder}: {error.strerror}", hint="choose another with -o") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"the folder {folder} is not writable", hint="choose another with -o")


def slug(prompt: str) -> str:
    """The prompt's first words, lower case, joined by hyphens; letters of any script stay."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", prompt[: 4 * SLUG]).lower().replace("_", " "))
    text = ""
    for word in words:
        if text and len(text) + 1 + len(word) > SLUG:
            break
        text = f"{text}-{word}" if text else word[:SLUG]
    return text or "untitled"


def unused(path: Path) -> Path:
    """The path, or the first of `name-2`, `name-3`, ... that does not exist."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate
