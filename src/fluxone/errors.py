"""Every error that fluxone raises on purpose, and `pick`, which looks a name up in a table.

    FluxoneError
    ├── UserError             the user can mend it: exit code 2, HTTP 4xx
    │   ├── BadRequest        a field of the request is out of range or contradicts another
    │   ├── UnknownName       a name that is in no table
    │   ├── BadFile           a file is missing, broken, or not what it was taken for
    │   │   └── BadWeights    a weight file whose keys, shapes or values do not fit the model
    │   ├── MissingParts      a model that lacks its autoencoder, text encoder or tokenizer
    │   ├── HubError          a repository cannot be reached: gated, absent, or no network
    │   ├── MissingExtra      an optional dependency is not installed
    │   └── CannotWrite       the result cannot be saved: disk full, folder not writable
    └── BrokenModel           the model computed NaN or infinity; nothing is saved

An error says what was found, what was expected, and in its hint what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

LONGEST = 1200  # characters of a message: names in files can be as long as their writer wished


class FluxoneError(Exception):
    """Base of all errors raised on purpose. `hint` is one sentence on what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_short(message))
        self.message = _short(message)
        self.hint = None if hint is None else _short(hint)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


def _short(text: str) -> str:
    """The text without its middle if it is very long, and without what no terminal or file can hold."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 3 :]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class UserError(FluxoneError):
    """Something that the user can mend."""


class BadRequest(UserError):
    """A field of the request is out of range, or contradicts another field."""


class UnknownName(UserError):
    """A name that is in no table."""


class BadFile(UserError):
    """A file is missing, broken, or not what it was taken for."""


class BadWeights(BadFile):
    """The keys, shapes or values of a weight file do not fit the model."""


class MissingParts(UserError):
    """A model lacks one or more of its parts."""


class HubError(UserError):
    """A repository cannot be reached."""


class MissingExtra(UserError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, why: str) -> None:
        super().__init__(why, hint=f"install it with: pip install 'fluxone[{extra}]'")


class CannotWrite(UserError):
    """The result cannot be saved."""


class BrokenModel(FluxoneError):
    """The model computed NaN or infinity."""


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """Return the row called `name`, or say which rows there are and which one was probably meant.

    Raises:
        UnknownName: no row has that name.
    """
    word = str(name)  # a picture's record may give anything for a name
    if word == name and word in table:
        return table[word]
    near = difflib.get_close_matches(word[:80], table, n=1)
    there = f"choose one of {', '.join(sorted(table))}" if table else "there is none"
    hint = f"did you mean {near[0]!r}?" if near else there
    raise UnknownName(f"no {what} is called {name!r}", hint=hint)


def article(noun: str) -> str:
    """`a` or `an`, by the noun's first letter."""
    return "an" if noun[:1].lower() in "aeiou" else "a"
