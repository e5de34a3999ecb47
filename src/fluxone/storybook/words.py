"""Short words for signs, and made-up ones so that a model learns to spell rather than to recall."""

from __future__ import annotations

from importlib.resources import files
from random import Random

WORDS: tuple[str, ...] = tuple(files("fluxone.storybook").joinpath("assets", "words.txt").read_text("ascii").split())
CONSONANTS, VOWELS = "bdfhjlmnprstvwyz", "aeiou"  # without those that most often spell what nobody wants to read


def invented(rng: Random, letters: int) -> str:
    """A word that can be pronounced and, most likely, is not in the list."""
    start = rng.randrange(2)
    return "".join(rng.choice((CONSONANTS, VOWELS)[(start + i) % 2]) for i in range(letters))


def lettered(rng: Random, word: str) -> str:
    """The word in one of the three cases signs use, capitals most of all."""
    draw = rng.random()
    return word.upper() if draw < 0.7 else word.capitalize() if draw < 0.88 else word
