"""What the package's own judge sees on storybook pictures, as a caption.

pictures --judge--> things, place, text --subject--> the thing that is on most of them --tell--> a sentence each
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from PIL import Image

from fluxone.evaluate.judge import Seen, Sees, shipped
from fluxone.evaluate.places import above, left
from fluxone.evaluate.truth import Spot
from fluxone.storybook.nouns import article
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.props import SIGNS
from fluxone.storybook.rig import POSES
from fluxone.storybook.stages import STAGES
from fluxone.storybook.styles import STYLES
from fluxone.storybook.wordings import NUMBERS
from fluxone.tune.captions import Describe, Subject

USUAL = 0.5  # share of the pictures that the subject must be seen on
MOST = 3  # other things that a caption names
BY_POSE = "pose"


def teller(subject: Subject, judge: Sees | None = None) -> Describe:
    """What describes storybook pictures, by the judge inside the package if none is given."""
    return partial(_told, subject, judge)


def _told(subject: Subject, judge: Sees | None, pictures: Iterable[Image.Image]) -> Iterator[str]:
    judge = judge or shipped()
    rows = [row for picture in pictures for row in judge.look([picture])]
    name = _usual(rows, subject) if subject.name and not subject.style else None
    people = judge.tables.people
    for row in rows:
        yield tell(row, name, subject, people)


def _usual(rows: Sequence[Seen], subject: Subject) -> str | None:
    """The judge's name of what the pictures are of: the class, or what is on most; empty is what it has no name for."""
    known = {spot.name for row in rows for spot in row.spots}
    if subject.class_word.lower() in known:
        return subject.class_word.lower()
    counts = Counter(name for row in rows for name in {spot.name for spot in row.spots} if name not in SIGNS)
    if not counts:
        return None
    name, count = max(counts.items(), key=lambda pair: (pair[1], pair[0] == ""))
    return name if count >= USUAL * len(rows) else None


def tell(seen: Seen, subject: str | None, names: Subject, people: Sequence[str] = ()) -> str:
    """A sentence of what is seen.

    Args:
        subject: the judge's name of what the picture is of, which is told by the name of `names`; None is nothing.
        people: the names of people, whose colour is their shirt's.
    """
    ours = max((spot for spot in seen.spots if spot.name == subject), key=_area, default=None)
    others = sorted((spot for spot in seen.spots if spot is not ours and spot.name), key=_area, reverse=True)
    groups = _grouped(others, people, seen.text)[:MOST]
    place = STAGES[seen.stage].phrases[0] if seen.stage in STAGES else ""
    if ours is not None or (names.name and not names.style):
        first, at, doing = names.name, ours, _doing(ours)
    elif groups:
        (first, at), doing, groups = groups[0], "", groups[1:]
    else:
        first, at, doing = "", None, ""
    words = [first, doing]
    if groups and at is not None:
        words += [_beside(at, groups[0][1]), groups[0][0]]
        groups = groups[1:]
    words += [f"with {' and '.join(text for text, _ in groups)}"] if groups else []
    lettered = any(spot.name in SIGNS for spot in seen.spots)
    words += [f'with the words "{seen.text}"'] if seen.text and not lettered else []
    told = " ".join(word for word in (*words, place) if word)
    return ", ".join(part for part in (told, *STYLES[seen.style].phrases[:1]) if part) if seen.style else told


def _grouped(spots: Sequence[Spot], people: Sequence[str], text: str) -> list[tuple[str, Spot]]:
    """Equal things as one, in words with an article, and where the largest of them is."""
    found: dict[tuple[str, str], list[Spot]] = {}
    for spot in spots:
        found.setdefault((spot.name, spot.colour), []).append(spot)
    return [(_words(row[0], len(row), people, text), row[0]) for row in found.values()]


def _words(spot: Spot, count: int, people: Sequence[str], text: str) -> str:
    if spot.name in people:
        return article(spot.name) + (f" in {article(f'{spot.colour} shirt')}" if spot.colour else "")
    if spot.name in SIGNS:
        said = f' that says "{text}"' if text else ""
        return article(f"{spot.colour} {spot.name}".strip()) + said
    row = OBJECTS.get(spot.name)
    if count > 1 and row is not None:
        return f"{NUMBERS.get(count, 'many')} {f'{spot.colour} {row.many(spot.name)}'.strip()}"
    return article(f"{spot.colour} {spot.name}".strip())


def _doing(spot: Spot | None) -> str:
    pose = "" if spot is None else spot.detail(BY_POSE)
    return POSES[pose].phrases[0] if pose in POSES else ""


def _beside(a: Spot, b: Spot) -> str:
    """How the first stands to the second, in words between them."""
    ways: tuple[tuple[Callable[[Spot, Spot], bool], str, str], ...] = (
        (above, "above", "under"), (left, "to the left of", "to the right of"),
    )  # fmt: skip
    for holds, word, other in ways:
        if holds(a, b):
            return word
        if holds(b, a):
            return other
    return "next to"


def _area(spot: Spot) -> float:
    return spot.width * spot.height
