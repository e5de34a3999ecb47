"""The content policies of a server: every row of the table looks, and each may refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fluxone.serve.classifier import looks
from fluxone.serve.policy import Policy, words
from fluxone.serve.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

POLICIES: dict[str, Callable[[Settings], Policy]] = {
    "words": lambda settings: words(settings.blocked),
    "classifier": lambda settings: looks(settings.classifier, settings.withheld),
}


def policy_of(settings: Settings) -> Policy:
    """All policies as one.

    Raises:
        UserError: one of them cannot be had.
    """
    rows = [make(settings) for make in POLICIES.values()]

    def prompt(text: str, tolerance: int) -> list[str]:
        return [reason for row in rows for reason in row.prompt(text, tolerance)]

    def picture(image: Image, tolerance: int) -> list[str]:
        return [reason for row in rows for reason in row.picture(image, tolerance)]

    return Policy(prompt=prompt, picture=picture)
