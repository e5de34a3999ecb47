"""The words and letters that a judge's answers are told in; no torch, for render workers need them too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fluxone.evaluate.truth import COLOURS, DETAILS, NAMES, PEOPLE, STAGES, STYLES

# A column of a line of text shows no letter, the gap between two words, or a letter.
LETTERS = "\0 ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!?&'.,-"


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a judge has words for; its weights belong to them."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    stages: tuple[str, ...]
    styles: tuple[str, ...]
    details: Mapping[str, tuple[str, ...]]  # of a person
    people: tuple[str, ...]


TABLES = Tables(names=NAMES, colours=COLOURS, stages=STAGES, styles=STYLES, details=DETAILS, people=PEOPLE)
FOLDED = tuple(LETTERS.index(sign.lower()) for sign in LETTERS)  # for each sign the small letter's number
