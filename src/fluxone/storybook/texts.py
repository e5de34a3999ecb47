"""What signs say: a word of the list or a made-up one, a number, or two to four words in one or two lines."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from fluxone.storybook.words import invented, lettered
from fluxone.storybook.worlds import World

LONGEST = 22  # characters on one sign
LINE = 11  # characters up to which a phrase stays in one line, most of the time
USUAL = 0.35  # share of the phrases that people know
ODD = 0.04  # share of the words in a case like "iPod"
PHRASES = (
    "happy birthday", "good morning", "good night", "thank you", "hello world", "I love you", "best friends",
    "welcome home", "open now", "for sale", "no parking", "keep out", "this way", "one way", "be kind", "be brave",
    "have fun", "well done", "good luck", "let's go", "see you soon", "yes please", "no thanks", "hot coffee",
    "fresh bread", "ice cream", "free hugs", "party time", "do not enter", "mind the gap", "sale today",
    "once upon a time", "the end", "my book", "big news", "wet paint", "slow down", "stop here", "happy new year",
    "merry christmas", "get well soon", "come in", "we are open", "sorry, closed", "what's up?", "how are you?",
    "who is it?", "oh no!", "hooray!", "wow!", "guess what?", "made with love", "home sweet home", "dream big",
    "stay calm", "save the bees", "the little fox", "to the moon", "magic inside", "story time",
)  # fmt: skip


def text(r: Random, world: World) -> str:
    """What one sign says, in the case it is written in; at most `LONGEST` characters."""
    draw = r.random()
    if draw < world.numbers:
        return number(r)
    if draw < world.numbers + world.phrases:
        return phrase(r, world)
    return word(r, world)


def word(r: Random, world: World) -> str:
    """One word, in the case it is written in."""
    if r.random() < world.random_words:
        found = invented(r, r.randint(3, world.max_letters))
    else:
        found = r.choice(_short(world.words, world.max_letters))
    if world.fluent and r.random() < ODD:
        at = r.randrange(1, len(found))
        return found[:at] + found[at:].capitalize()
    shown = lettered(r, found) if not world.fluent or r.random() < 0.4 else cased(r, found)
    return shown + r.choice("!?") if world.fluent and r.random() < 0.06 else shown


@lru_cache(maxsize=256)
def _short(words: tuple[str, ...], most: int) -> tuple[str, ...]:
    return tuple(w for w in words if len(w) <= most)


def number(r: Random) -> str:
    """One to four digits, now and then a price or a house number."""
    size = r.randint(1, 4)
    digits = str(r.randrange(10 ** (size - 1), 10**size) if r.random() < 0.8 else r.choice(YEARS))
    return f"No. {digits}" if r.random() < 0.1 else digits


def phrase(r: Random, world: World) -> str:
    """Two to four words that fit on a sign."""
    if r.random() < USUAL:
        return cased(r, r.choice(PHRASES))
    count = r.choices((2, 3, 4), weights=(6, 3, 1))[0]
    room = LONGEST - (count - 1)
    chosen: list[str] = []
    for left in range(count, 0, -1):
        most = room - 3 * (left - 1)
        if r.random() < world.random_words * 0.6:
            found = invented(r, r.randint(3, max(3, min(world.max_letters, most))))
        elif r.random() < world.numbers * 0.5:
            found = str(r.randrange(1, 1000))
        else:
            found = r.choice(_short(world.words, min(most, LONGEST)))
        chosen.append(found)
        room -= len(found)
    return cased(r, " ".join(chosen))


def cased(r: Random, said: str) -> str:
    """The text in capitals, as a sentence, in small letters, or with every word capitalised."""
    draw = r.random()
    if draw < 0.4:
        return said.upper()
    if draw < 0.65:
        return said[0].upper() + said[1:]
    if draw < 0.85:
        return said
    return " ".join(w[0].upper() + w[1:] for w in said.split(" "))


def broken(r: Random, said: str) -> int:
    """Where the text is broken into two lines: the index of a space, or 0 for one line."""
    spaces = [i for i, letter in enumerate(said) if letter == " "]
    if not spaces or (len(said) <= LINE and r.random() < 0.6):
        return 0
    return min(spaces, key=lambda i: max(i, len(said) - i - 1))


YEARS = (1984, 1999, 2000, 2020, 2024, 2025, 2026, 2027, 2030)
