"""What was asked against what is seen: right or wrong, part by part. Nothing more may be there than was asked for.

    things    the asked names, each as often as asked, and nothing else
    colours   every asked thing in its colour, where the world has a word for it; of a person the shirt
    places    every relation holds
    stage     the asked stage
    style     the asked style, or none
    sizes     what is called small or big is so
    person    hair, pose, hat, glasses and what is worn below, of everyone
    looks     the same without the pose, and what no caption says: the cut of the hair, the skin
    where     every thing near where it is in the scene, and about as large
    word      the asked text, capitals or not

Beside them go numbers: `letters` is 1 less the edit distance by the length of the asked text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fluxone.evaluate.judge import Seen
from fluxone.evaluate.places import holds
from fluxone.evaluate.truth import Spot, spots
from fluxone.storybook import Scene, Thing

SMALL, BIG = 0.28, 0.60  # of the picture: how long a lone thing is at most, or at least, that is called small or big
SMALLER = 0.6  # of the big thing's length is the small one's, at most
NEAR, ALIKE = 0.12, 1.6  # how far a thing may be from its place; by which factor it may be larger or smaller
UNSAID = ("style", "skin")  # what a caption does not say of a person, or not always
ALIKE_LETTERS = str.maketrans({"0": "o", "1": "i", "l": "i"})  # in some of the fonts these are drawn alike


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which parts are right, the numbers beside them, and what was seen, in words."""

    parts: dict[str, bool]
    numbers: dict[str, float] = field(default_factory=dict)
    seen: str


def judged(scene: Scene, seen: Seen) -> Verdict:
    """What is right about a picture of the scene."""
    wanted, things = asked(scene), scene.facts.things
    first = [sum(t.count for t in things[:i]) for i in range(len(things))]  # each thing's first spot
    text, read = plain(" ".join(scene.facts.texts)), plain(seen.text)
    rows = [
        (r.name, [wanted[first[i]] for i in (r.subject, r.other, r.third) if i is not None])
        for r in scene.facts.relations
    ]
    parts = {
        "things": Counter(s.name for s in wanted) == Counter(s.name for s in seen.spots),
        "colours": not Counter(_coloured(wanted)) - Counter(_coloured(seen.spots)),
        "places": all(holds(name, row, seen.spots) for name, row in rows),
        "stage": seen.stage == scene.facts.stage,
        "style": seen.style == scene.style,
        "sizes": _sized(things, seen.spots),
        "person": _dressed(wanted, seen.spots, but=UNSAID),
        "looks": _dressed(wanted, seen.spots, but=("pose",)),
        "where": _placed(wanted, seen.spots),
        "word": read == text,
    }
    return Verdict(parts=parts, numbers={"letters": alike(text, read)} if text else {}, seen=described(seen))


def plain(text: str) -> str:
    """The text without case, and with one letter for those that look alike."""
    return text.lower().translate(ALIKE_LETTERS)


def asked(scene: Scene) -> list[Spot]:
    """The things in the order of the facts, without the colours that the world has no word for."""
    spoken = [bool(t.colour or t.detail("shirt")) for t in scene.facts.things for _ in range(t.count)]
    return [spot if said else replace(spot, colour="") for spot, said in zip(spots(scene), spoken, strict=True)]


def _coloured(found: Sequence[Spot]) -> list[tuple[str, str]]:
    return [(spot.name, spot.colour) for spot in found if spot.colour]


def _long(spot: Spot) -> float:
    return max(spot.width, spot.height)


def _sized(things: Sequence[Thing], seen: Sequence[Spot]) -> bool:
    """Whether the things that are called small or big are: alone by themselves, and together by each other."""
    said = [(t, [s for s in seen if s.name == t.name]) for t in things if t.detail("size")]
    if not all(found for _, found in said):
        return False
    if len(said) == 2:
        small, big = (found for _, found in sorted(said, key=lambda row: row[0].detail("size"), reverse=True))
        return any(_long(a) < SMALLER * _long(b) for a in small for b in big)
    return all(
        any(_long(s) < SMALL if thing.detail("size") == "small" else _long(s) > BIG for s in found)
        for thing, found in said
    )


def _dressed(wanted: Sequence[Spot], seen: Sequence[Spot], but: Sequence[str]) -> bool:
    """Whether everyone who is asked for is there, with these details and this shirt; each seen one stands for one."""
    left = list(seen)
    for one in (spot for spot in wanted if spot.details):
        same = (s for s in left if s.name == one.name and s.colour == one.colour and _same(one, s, but))
        if (found := next(same, None)) is None:
            return False
        left.remove(found)
    return True


def _same(one: Spot, other: Spot, but: Sequence[str]) -> bool:
    return all(other.detail(name) == value for name, value in one.details if name not in but)


def _placed(wanted: Sequence[Spot], seen: Sequence[Spot]) -> bool:
    """Whether each asked thing has one of its name near its place and about of its size."""
    return all(any(s.name == one.name and near(one, s) for s in seen) for one in wanted)


def near(a: Spot, b: Spot) -> bool:
    """Whether the places are near each other and the sizes alike, as far as both have one."""
    close = (a.x - b.x) ** 2 + (a.y - b.y) ** 2 < NEAR**2
    return close and (not _long(b) or 1 / ALIKE < _long(a) / _long(b) < ALIKE)


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
        f"{' '.join((s.colour, s.name or 'something', *_told(s))).strip()} at {round(100 * s.x)},{round(100 * s.y)}"
        for s in sorted(seen.spots, key=lambda spot: spot.x)
    ]
    return "; ".join([*things, f"{seen.stage} {seen.style}".strip(), *([f'"{seen.text}"'] if seen.text else [])])


def _told(spot: Spot) -> tuple[str, ...]:
    """A person's details in words."""
    if not spot.details:
        return ()
    told = [value for name, value in spot.details if value and name in ("hair", "pose", "hat", "glasses", "bottom")]
    return (f"({', '.join(told)})",)
