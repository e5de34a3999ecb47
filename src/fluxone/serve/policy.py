"""What may not be asked for or shown, as two functions; a row each in `POLICIES` of moderation.py.

    prompt, tolerance  -> reasons        picture, tolerance -> reasons        no reasons: it may
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxone.errors import BadRequest

if TYPE_CHECKING:
    from PIL.Image import Image

NEVER = 7  # above every tolerance


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A content policy; tolerance is 0 (strict) to 6.

    Attributes:
        prompt, picture: the reasons against it.
    """

    prompt: Callable[[str, int], list[str]] = lambda prompt, tolerance: []
    picture: Callable[[Image, int], list[str]] = lambda image, tolerance: []


def words(blocked: Mapping[str, int]) -> Policy:
    """A policy of words and phrases that are asked for from a tolerance on, or `NEVER`.

    Raises:
        BadRequest: a tolerance is none.
    """
    for word, least in blocked.items():
        if not 0 <= least <= NEVER:
            raise BadRequest(f"the tolerance of {word!r} is {least!r}", hint=f"use 0 to {NEVER}; {NEVER} is never")
    patterns = {re.compile(rf"\b{re.escape(_folded(word))}\b"): least for word, least in blocked.items()}

    def prompt(text: str, tolerance: int) -> list[str]:
        folded = _folded(text)
        found = any(tolerance < least and pattern.search(folded) for pattern, least in patterns.items())
        return ["Blocked Words"] if found else []

    return Policy(prompt=prompt)


def _folded(text: str) -> str:
    """Letters as they are compared: no case, no accents, no look-alike forms."""
    apart = unicodedata.normalize("NFKD", text).casefold()
    return " ".join("".join(letter for letter in apart if not unicodedata.combining(letter)).split())
