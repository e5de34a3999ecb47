"""How things stand to each other: which relation of a scene holds for the spots that were seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fluxone.evaluate.truth import Spot

APART = 0.15  # of the picture: how far two things' middles must be from each other to be left and right, or above
ASIDE = 0.12  # the same of neighbours in a row of three
BESIDE = 0.22  # how far a middle may be to the side of what it is in or over
ARM = 0.3  # how far what is held may be from the middle of who holds it
TOP = 0.37  # half of a table
Check = Callable[[Spot, Spot], bool]
Order = Callable[[Spot, Spot, Spot], bool]


def left(a: Spot, b: Spot) -> bool:
    """The first is to the left."""
    return b.x - a.x > APART


def beside(a: Spot, b: Spot) -> bool:
    """One is to the left of the other."""
    return abs(b.x - a.x) > APART


def above(a: Spot, b: Spot) -> bool:
    """The first is higher, and not beside."""
    return b.y - a.y > APART and abs(a.x - b.x) < b.y - a.y


def under(a: Spot, b: Spot) -> bool:
    """The first is lower, and not beside."""
    return above(b, a)


def out_of(a: Spot, b: Spot) -> bool:
    """The first looks out of the second: over its middle."""
    return a.y < b.y and abs(a.x - b.x) < BESIDE


def before(a: Spot, b: Spot) -> bool:
    """The second, a book, is held before the first."""
    return a.y < b.y and abs(a.x - b.x) < BESIDE / 2


def shaded(a: Spot, b: Spot) -> bool:
    """The first is beside the trunk of the second, and lower."""
    return b.y < a.y and abs(a.x - b.x) > APART


def nearer(a: Spot, b: Spot) -> bool:
    """The first stands lower on the ground than the second, and before it or at its side."""
    return a.y + a.height / 2 > b.y + b.height / 2 and abs(a.x - b.x) < (a.width + b.width) / 2 + 0.05


def on_top(a: Spot, b: Spot) -> bool:
    """The first is over the top of the second, a table."""
    return a.y < b.y and abs(a.x - b.x) < TOP


def below(a: Spot, b: Spot) -> bool:
    """The first is under the top of the second, a table."""
    return a.y > b.y and abs(a.x - b.x) < TOP


def in_hand(a: Spot, b: Spot) -> bool:
    """The second is within reach of the first's arm, and to a side."""
    return abs(a.x - b.x) < ARM and abs(a.y - b.y) < ARM and abs(a.x - b.x) > 0.05


def between(a: Spot, b: Spot, c: Spot) -> bool:
    """The first is in the middle of a row."""
    return in_a_row(b, a, c) or in_a_row(c, a, b)


def in_a_row(a: Spot, b: Spot, c: Spot) -> bool:
    """From left to right."""
    return b.x - a.x > ASIDE and c.x - b.x > ASIDE


PLACES: dict[str, Check] = {
    "left of": left,
    "next to": beside,
    "above": above,
    "under": under,
    "saying": under,
    "inside": out_of,
    "tail": out_of,
    "ears": out_of,
    "reading": before,
    "shaded by": shaded,
    "in front of": nearer,
    "on": on_top,
    "below": below,
    "holding": in_hand,
}
ROWS: dict[str, Order] = {"between": between, "in a row": in_a_row}


def holds(relation: str, asked: Sequence[Spot], seen: Sequence[Spot]) -> bool:
    """Whether some things of the asked names stand so. Untrue if one is not there."""
    rows = [[s for s in seen if s.name == spot.name] for spot in asked]
    if not all(rows):
        return False
    if len(asked) > 2:
        return any(ROWS[relation](a, b, c) for a in rows[0] for b in rows[1] for c in rows[2])
    return any(PLACES[relation](a, b) for a in rows[0] for b in rows[1])
