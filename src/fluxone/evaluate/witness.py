"""A judge of things, and beside it the reader of people: first people are read and taken off the picture, then things.

    picture -- figures.find --> people -- figures.without --> the rest -- judge --> things, stage, text --> all of it

A judge that knows by itself how people look needs no witness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from fluxone.evaluate import judge
from fluxone.evaluate.figures import Figure, find, without
from fluxone.evaluate.judge import Picture, Seen, Sees
from fluxone.evaluate.labels import TABLES
from fluxone.evaluate.truth import Spot, looks
from fluxone.storybook.render import reach


class Witness:
    """Both together."""

    def __init__(self, things: Sees) -> None:
        self.things = things
        self.tables = replace(things.tables, details=TABLES.details)

    def look(self, pictures: Sequence[Picture]) -> list[Seen]:
        """What is seen on each of the pictures, which may have any size.

        Raises:
            MissingExtra: what draws storybook scenes is not installed.
        """
        images = [p if isinstance(p, Image.Image) else Image.fromarray(p) for p in pictures]
        people = [find(image) for image in images]
        rest = [without(image, found) if found else image for image, found in zip(images, people, strict=True)]
        return [_joined(seen, found) for seen, found in zip(self.things.look(rest), people, strict=True)]


def _joined(seen: Seen, people: Sequence[Figure]) -> Seen:
    """People first; the shares of how sure it is go with them."""
    if not people:
        return seen
    sure = (*(one.share for one in people), *seen.sure) if seen.sure else ()
    return replace(seen, spots=(*map(spot, people), *seen.spots), sure=sure)


def spot(figure: Figure) -> Spot:
    """The person in the judge's words."""
    left, top, right, bottom = reach(figure.person)
    return Spot(name=figure.person.who, colour=figure.person.shirt, x=(left + right) / 2, y=(top + bottom) / 2,
                width=right - left, height=bottom - top, details=looks(figure.person))  # fmt: skip


def shipped() -> Sees:
    """The judge inside the package, with the reader of people if it does not know by itself how they look."""
    things = judge.shipped()
    return things if things.tables.details else Witness(things)
