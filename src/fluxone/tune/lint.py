"""What is wrong with a folder of pictures, before any time is spent on it; and all of it on one contact sheet.

    broken   a file that cannot be read            tiny   less than half the size that is trained at
    blurred  nothing in it is sharp                alike  two pictures are the same, or nearly
    words    no caption, no trigger word, a caption that is cut, a word that the model cannot read
    unseen   references that the model does not look at

An error ends the run; a warning is told and shown in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fluxone.errors import BadFile
from fluxone.pipeline import Pipeline
from fluxone.text.tokenizers import Tokenizer
from fluxone.tune.folder import Example, names_of, open_picture
from fluxone.variants import Kind, Variant

LOOK = 256  # px: longest side that sharpness is looked at
SHARP = 60.0  # variance of the Laplacian of grey levels below which a picture is called blurred
HASH = 16  # differences a row of a picture's fingerprint
NEAR = 8  # differing bits, of HASH * HASH, up to which two pictures are called alike
FEW = 5  # pictures that are hardly enough
THUMB, GAP = 144, 10
COLOURS = {"error": "#c62828", "warning": "#ef9a00", "": "#c8c8c8"}
UNKNOWN = "<unk>"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        level: `error` or `warning`.
        file: name of the picture; empty for the whole folder.
    """

    level: str
    file: str
    what: str
    hint: str

    def __str__(self) -> str:
        place = f"{self.file}: " if self.file else ""
        return f"{place}{self.what}; {self.hint}"


def lint(examples: Sequence[Example], *, size: int, trigger: str, pipeline: Pipeline | None = None) -> list[Finding]:
    """All that is wrong, errors first.

    Args:
        size: px that is trained at.
        trigger: what every caption should name, one of several with commas between them; empty if none.
        pipeline: the model, whose tokenizers say what it can read.
    """
    found: list[Finding] = []
    pictures: dict[str, Image.Image] = {}
    for example in examples:
        try:
            for path in example.files:
                image = open_picture(path)
                if path == example.path:
                    pictures[example.path.name] = image
        except BadFile as error:
            found.append(Finding(level="error", file=example.path.name, what=error.message, hint=error.hint or ""))
    for name, image in pictures.items():
        found += _looked(name, image, size)
    found += _alike(pictures)
    found += _words(examples, trigger)
    found += _counted(len(pictures))
    if pipeline is not None:
        found += _readable(examples, trigger, pipeline)
        found += _unseen(examples, pipeline.variant)
    return sorted(found, key=lambda finding: finding.level)


def sharpness(image: Image.Image) -> float:
    """The variance of the Laplacian of the grey levels, at a size of at most `LOOK` px."""
    grey = ImageOps.contain(image.convert("L"), (LOOK, LOOK)) if max(image.size) > LOOK else image.convert("L")
    a = np.asarray(grey, dtype=np.float32)
    if min(a.shape) < 3:
        return 0.0
    middle = a[1:-1, 1:-1]
    return float((a[:-2, 1:-1] + a[2:, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] - 4 * middle).var())


def fingerprint(image: Image.Image) -> NDArray[np.bool_]:
    """Whether each place is lighter than its left neighbour, on a small grid, by colour."""
    small = np.asarray(image.convert("RGB").resize((HASH + 1, HASH), Image.Resampling.BOX), dtype=np.int16)
    return small[:, 1:] > small[:, :-1]


def _looked(name: str, image: Image.Image, size: int) -> list[Finding]:
    found = []
    if min(image.size) < size / 2:
        what = f"{image.width}x{image.height} px, trained at {size}"
        found.append(Finding(level="warning", file=name, what=what, hint="enlarged pictures teach softness"))
    if max(image.size) > 6 * min(image.size):
        what = f"{image.width}x{image.height} px is cut to 4:1"
        found.append(Finding(level="warning", file=name, what=what, hint="cut it yourself, where it matters"))
    colours = np.asarray(image.resize((32, 32)), dtype=np.float32).reshape(-1, 3).std(0).max()
    if colours < 1:
        found.append(Finding(level="error", file=name, what="it is of one colour", hint="take it out"))
    elif (value := sharpness(image)) < SHARP:
        what = f"nothing in it is sharp ({value:.0f}, usual is above {SHARP:.0f})"
        found.append(Finding(level="warning", file=name, what=what, hint="take it out unless that is the look"))
    return found


def _alike(pictures: dict[str, Image.Image]) -> list[Finding]:
    prints = {name: fingerprint(image) for name, image in pictures.items()}
    found = []
    for a, b in combinations(prints, 2):
        apart = int((prints[a] != prints[b]).sum()) / 3
        if apart <= NEAR and pictures[a].size == pictures[b].size:
            same = "the same as" if apart == 0 and _equal(pictures[a], pictures[b]) else "nearly the same as"
            found.append(Finding(level="warning", file=b, what=f"{same} {a}", hint="keep one: it counts twice"))
    return found


def _equal(a: Image.Image, b: Image.Image) -> bool:
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


def _words(examples: Sequence[Example], trigger: str) -> list[Finding]:
    found, names = [], names_of(trigger)
    for example in examples:
        if not example.text:
            hint = f"write {example.path.with_suffix('.txt').name}: what may change, not what makes it itself"
            found.append(Finding(level="warning", file=example.path.name, what="it has no caption", hint=hint))
        elif names and not any(name.lower() in example.text.lower() for name in names):
            what = f"its caption lacks {' or '.join(map(repr, names))}"
            found.append(Finding(level="warning", file=example.path.name, what=what, hint="name it in every caption"))
    texts = {example.text for example in examples if example.text}
    if len(examples) > 3 and len(texts) == 1:
        what = "all captions are the same"
        found.append(Finding(level="warning", file="", what=what, hint="say what differs, or it is learnt as well"))
    return found


def _counted(count: int) -> list[Finding]:
    if count < FEW:
        what = f"{count} pictures"
        return [Finding(level="warning", file="", what=what, hint=f"{FEW} and more, in different places, learn better")]
    return []


def _unseen(examples: Sequence[Example], variant: Variant) -> list[Finding]:
    """References for nothing: all, or of a control model those after the map."""
    if Kind.REFERENCE in variant.takes:
        return []
    looked = int(variant.wide is Kind.CONTROL)
    count = sum(len(example.references) > looked for example in examples)
    what = (
        f"{count} pictures have references, of which {variant.name} looks at {'the first alone' if looked else 'none'}"
    )
    hint = "train a model that edits, such as kontext, or take them out"
    return [Finding(level="warning", file="", what=what, hint=hint)] if count else []


def _readable(examples: Sequence[Example], trigger: str, pipeline: Pipeline) -> list[Finding]:
    text = pipeline.text
    if text is None:
        return []
    found = []
    length = pipeline.variant.text_tokens
    for example in examples:
        words = text.t5_tokenizer.longest([example.text])
        if words > length:
            what = f"its caption has {words} tokens, and the model reads {length}"
            found.append(Finding(level="warning", file=example.path.name, what=what, hint="shorten it"))
    unread = [word for word in trigger.replace(",", " ").split() if _unknown(text.t5_tokenizer, word)]
    if len(unread) > 1:
        what = f"the model cannot tell {' and '.join(map(repr, unread))} apart: it has a token for neither"
        found.append(Finding(level="error", file="", what=what, hint="use one word, or words that it knows"))
    elif unread:
        what = f"the model has no token of its own for {unread[0]!r}; it reads it as it reads every unknown word"
        found.append(Finding(level="warning", file="", what=what, hint="other unknown words will draw the same"))
    return found


def _unknown(tokenizer: Tokenizer, word: str) -> bool:
    """Whether a word has no token of its own, nor letters that have."""
    unknown = tokenizer.backend.token_to_id(UNKNOWN)
    return unknown is not None and unknown in tokenizer.encode([word], 1 + len(word))[0].tolist()


def contact_sheet(examples: Sequence[Example], findings: Sequence[Finding], columns: int = 6) -> Image.Image:
    """All pictures, framed in the colour of the worst that was found, with file name and caption."""
    font = ImageFont.load_default(11)
    high = THUMB + 44
    rows = -(-len(examples) // columns)
    page = Image.new("RGB", (columns * (THUMB + GAP) + GAP, rows * (high + GAP) + GAP), "white")
    pen = ImageDraw.Draw(page)
    worst: dict[str, str] = {}
    for finding in reversed(findings):
        worst[finding.file] = finding.level
    for i, example in enumerate(examples):
        x, y = GAP + i % columns * (THUMB + GAP), GAP + i // columns * (high + GAP)
        pen.rectangle((x - 3, y - 3, x + THUMB + 2, y + THUMB + 2), outline=COLOURS[worst.get(example.path.name, "")],
                      width=3)  # fmt: skip
        page.paste(_thumb(example.path), (x, y))
        pen.text((x, y + THUMB + 4), _short(example.path.name), fill="#555555", font=font)
        for k, line in enumerate(_lines(example.text)):
            pen.text((x, y + THUMB + 16 + 12 * k), line, fill="#111111", font=font)
    return page


def _thumb(path: Path) -> Image.Image:
    try:
        return ImageOps.pad(open_picture(path), (THUMB, THUMB), color="#eeeeee")
    except BadFile:
        return Image.new("RGB", (THUMB, THUMB), COLOURS["error"])


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _lines(text: str) -> list[str]:
    return [text[:24], _short(text[24:], 24)] if len(text) > 24 else [text]
