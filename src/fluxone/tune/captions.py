"""Captions for pictures that have none: written beside them, by whoever looks at them.

    folder --wanting--> pictures without a .txt --Describe--> sentences --named--> the name in them --put--> .txt

A caption that is there is never written over, unless that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fluxone.errors import BadRequest, CannotWrite
from fluxone.tune.folder import METADATA, Example, names_of, open_picture, read

Describe = Callable[[Iterable[Image.Image]], Iterator[str]]  # a sentence for each picture, in their order
SHOWS = re.compile(
    r"^(?:the |this |an? )?(?:image|picture|photo|photograph|illustration) (?:shows|depicts|is of) ", re.IGNORECASE
)
SENTENCE = re.compile(r"(?<=[.!?])\s+")
MARKS = " \t\"'`*#-"
BETWEEN = "an?|the|and|with|of|in|on|at|to|by|near|behind|beside|before"  # words that are no looks of what follows


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the pictures are of.

    Attributes:
        name: the trigger word; empty if there is none.
        class_word: what kind of thing it is.
        style: whether it is a way of drawing, and so stands at a caption's end.
    """

    name: str = ""
    class_word: str = ""
    style: bool = False

    def __post_init__(self) -> None:
        if len(names_of(self.name)) > 1:
            hint = "put each one's pictures in a folder of its own, and name it there"
            raise BadRequest(f"which of {self.name} is on a picture cannot be told", hint=hint)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What stands, or would stand, beside a picture.

    Attributes:
        state: `kept`, `new` or `other` (one that is written over).
    """

    picture: Path
    text: str
    state: str

    @property
    def path(self) -> Path:
        """The file of the text."""
        return self.picture.with_suffix(".txt")


def wanting(folder: Path, *, force: bool) -> list[Caption]:
    """All pictures of a folder; the text of those that are to be written is what stands there now.

    Raises:
        BadFile: there is no such folder, or no picture in it.
        BadRequest: pictures whose captions stand in a list lack them there; two pictures would share a caption.
    """
    found: list[Caption] = []
    for example in read(folder):
        listed = (example.path.parent / METADATA).is_file()
        if listed and not example.text:
            hint = f'write its "text" there, or take {METADATA} away'
            raise BadRequest(f"{example.path.name} has no caption in {METADATA}", hint=hint)
        found.append(Caption(picture=example.path, text=example.text, state=_state(example, listed, force)))
    own: dict[Path, Path] = {}
    for one in found:
        if one.state != "kept" and one.path in own:
            what = f"{own[one.path].name} and {one.picture.name} would share {one.path.name}"
            raise BadRequest(what, hint="rename one of them")
        own[one.path] = one.picture
    return found


def _state(example: Example, listed: bool, force: bool) -> str:
    if listed or (example.text and not force):
        return "kept"
    return "other" if example.text else "new"


def described(rows: Sequence[Caption], describe: Describe, subject: Subject) -> Iterator[Caption]:
    """The same with the texts that are to be written, one after the other.

    Raises:
        BadFile: one of the pictures cannot be read.
    """
    texts = describe(open_picture(row.picture) for row in rows if row.state != "kept")  # one at a time in memory
    for row in rows:
        if row.state == "kept":
            yield row
        else:
            yield Caption(picture=row.picture, text=named(next(texts), subject), state=row.state)


def plain(said: str) -> str:
    """One sentence of what a model said, without what it begins with before it says anything."""
    text = SENTENCE.split(" ".join(said.split()).strip(MARKS))[0].strip(MARKS).removesuffix(".")
    return SHOWS.sub("", text)


def named(text: str, subject: Subject) -> str:
    """The caption with the name in it: put in the class' place, or before it; behind it where it is a style's."""
    name, own = subject.name, subject.class_word
    if not name or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE):
        return text
    if subject.style:
        return f"{text}, {name}".strip(", ")
    if own:
        looks = rf"(?:(?:an?|the|one)\s+(?:(?!(?:{BETWEEN})\b)[\w-]+\s+){{0,3}}?)?"  # "a young smiling"
        put_in, count = re.subn(rf"\b{looks}{re.escape(own)}\b", name, text, count=1, flags=re.IGNORECASE)
        if count:
            return put_in
    return f"{name}, {text}".strip(", ")


def put(caption: Caption) -> None:
    """Write it, whole or not at all.

    Raises:
        CannotWrite: the folder is not writable, or the disk full.
    """
    part = caption.path.with_suffix(".part")
    try:
        part.write_text(caption.text + "\n", encoding="utf-8")
        part.replace(caption.path)
    except OSError as error:
        raise CannotWrite(f"cannot write {caption.path}: {error}", hint="choose a folder that is yours") from None
