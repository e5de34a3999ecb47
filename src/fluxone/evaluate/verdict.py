"""What was asked against what is seen: right or wrong, part by part. Nothing more may be there than was asked for.

    things    the asked names, each as often as asked, and nothing else
    colours   every asked thing in its colour, where the world has a word for it
    places    every relation holds
    stage     the asked stage
    word      the asked word, capitals or not
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fluxone.evaluate.judge import Seen
from fluxone.evaluate.truth import Spot, spots
from fluxone.storybook import Scene

APART = 0.15  # of the picture: how far two things' middles must be from each other to be left and right, or above
BESIDE = 0.22  # how far a middle may be to the side of what it is in or over
Check = Callable[[Spot, Spot], bool]


def left(a: Spot, b: Spot) -> bool:
    """The first is to the left."""
    return b.x - a.x > APART


def above(a: Spot, b: Spot) -> bool:
    """The first is higher, and not beside."""
    return b.y - a.y > APART and abs(a.x - b.x) < b.y - a.y


def out_of(a: Spot, b: Spot) -> bool:
    """The first looks out of the second: over its middle."""
    return a.y < b.y and abs(a.x - b.x) < BESIDE


def before(a: Spot, b: Spot) -> bool:
    """The second, a book, is held before the first."""
    return a.y < b.y and abs(a.x - b.x) < BESIDE / 2


def shaded(a: Spot, b: Spot) -> bool:
    """The first is beside the trunk of the second, and lower."""
    return b.y < a.y and abs(a.x - b.x) > APART


PLACES: dict[str, Check] = {
    "left of": left,
    "above": above,
    "inside": out_of,
    "tail": out_of,
    "ears": out_of,
    "reading": before,
    "shaded by": shaded,
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which parts are right, how much of the word is (0..1), and what was seen, in words."""

    parts: dict[str, bool]
    letters: float
    seen: str


def judged(scene: Scene, seen: Seen) -> Verdict:
    """What is right about a picture of the scene."""
    asked = _asked(scene)
    word = scene.facts.texts[0].lower() if scene.facts.texts else ""
    parts = {
        "things": Counter(s.name for s in asked) == Counter(s.name for s in seen.spots),
        "colours": not Counter(_coloured(asked)) - Counter(_coloured(seen.spots)),
        "places": all(_holds(r.name, asked[r.subject], asked[r.other], seen) for r in scene.facts.relations),
        "stage": seen.stage == scene.facts.stage,
        "word": bool(word) and seen.text.lower() == word,
    }
    return Verdict(parts=parts, letters=alike(word, seen.text.lower()), seen=described(seen))


def _asked(scene: Scene) -> list[Spot]:
    """The things in the order of the facts, without the colours that the world has no word for."""
    spoken = [bool(t.colour or t.detail("shirt")) for t in scene.facts.things for _ in range(t.count)]
    return [spot if said else replace(spot, colour="") for spot, said in zip(spots(scene), spoken, strict=True)]


def _coloured(found: Sequence[Spot]) -> list[tuple[str, str]]:
    return [(spot.name, spot.colour) for spot in found if spot.colour]


def _holds(relation: str, a: Spot, b: Spot, seen: Seen) -> bool:
    """Whether some thing of the first's name stands so to one of the second's. Untrue if either is not there."""
    first, second = ([s for s in seen.spots if s.name == asked.name] for asked in (a, b))
    check = PLACES.get(relation)
    return bool(first and second) and (check is None or any(check(x, y) for x in first for y in second))


def alike(word: str, text: str) -> float:
    """1 less the share of letters that are wrong: the edit distance over the word's length, at least 0."""
    row = list(range(len(text) + 1))
    for i, letter in enumerate(word, start=1):
        corner, row[0] = row[0], i
        for j, other in enumerate(text, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != other))
    return max(0.0, 1 - row[-1] / len(word)) if word else 0.0


def described(seen: Seen) -> str:
    """What was seen, in a few words: "red car at 27,80; tree at 70,70; snow"."""
    things = [
        f"{' '.join((s.colour, s.name or 'something')).strip()} at {round(100 * s.x)},{round(100 * s.y)}"
        for s in sorted(seen.spots, key=lambda spot: spot.x)
    ]
    return "; ".join([*things, seen.stage, *([f'"{seen.text}"'] if seen.text else [])])
