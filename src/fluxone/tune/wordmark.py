"""Whether a brand's word is drawn, by OCR: what stands on most references, and on how many pictures it stands then."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from fluxone.errors import MissingExtra
from fluxone.evaluate.ocr import reader

WHAT = ("style", "product")  # that carry words; a character's are those of the places it stands in
USUAL = 0.5  # share of the references that a word must stand on
SHORTEST = 3  # letters: shorter ones are read into textures
WORD = re.compile(r"[a-z0-9]+")

Read = Callable[[Image.Image], str]


@dataclass(frozen=True, kw_only=True)
class Wordmark:
    """A word, and the share of references, of the base's pictures, and of the chosen ones that it stands on."""

    word: str
    references: float
    base: float
    drawn: float


def able() -> Read | None:
    """The OCR, if it is installed."""
    try:
        return reader()
    except MissingExtra:
        return None


def wordmarks(
    read: Read, references: Sequence[Image.Image], base: Sequence[Image.Image], drawn: Sequence[Image.Image]
) -> tuple[Wordmark, ...]:
    """The words that most references carry, the commonest first; the other pictures are read only if there are any."""
    rows = [_words(read(picture)) for picture in references]
    counts = Counter(word for row in rows for word in row)
    usual = [word for word, count in counts.most_common() if count >= USUAL * len(rows)]
    if not usual:
        return ()
    others = [[_words(read(picture)) for picture in pictures] for pictures in (base, drawn)]
    return tuple(
        Wordmark(word=word, references=counts[word] / len(rows), base=_share(word, others[0]),
                 drawn=_share(word, others[1]))
        for word in usual
    )  # fmt: skip


def _words(text: str) -> set[str]:
    return {word for word in WORD.findall(text.lower()) if len(word) >= SHORTEST}


def _share(word: str, rows: Sequence[set[str]]) -> float:
    return sum(word in row for row in rows) / len(rows) if rows else 0.0
