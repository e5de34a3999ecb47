"""Whether an instruction was followed: what differs between the given scene and the asked one is seen as it is asked.

    place, style, text    the asked one, where it differs
    a thing that came     near where it should be, in its colour
    a thing that changed  near its place, right in what is changed about it: colour, hair, clothes, pose, size
    a thing that went     none of its name near where it was

What else is on the picture is asked by other parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from fluxone.evaluate.judge import Seen
from fluxone.evaluate.truth import Spot
from fluxone.evaluate.verdict import UNSAID, asked, near, plain
from fluxone.storybook import Scene


def made(before: Scene, after: Scene, seen: Seen) -> bool:
    """Whether the picture on which this was seen shows the change from one scene to the other."""
    was, now = asked(before), asked(after)
    came, went = _without(now, was), _without(was, now)
    empty = [one for one in went if not any(_alike(one, other) for other in now)]
    said = plain(" ".join(after.facts.texts))
    return all((
        before.facts.stage == after.facts.stage or seen.stage == after.facts.stage,
        before.style == after.style or seen.style == after.style,
        before.facts.texts == after.facts.texts or plain(seen.text) == said,
        all(any(_changed(one, went, s) for s in seen.spots) for one in came),
        not any(_alike(one, s) for one in empty for s in seen.spots),
    ))


def _without(some: Sequence[Spot], others: Sequence[Spot]) -> list[Spot]:
    """The spots that are not, in every detail, among the others."""
    known = [(other, other.details) for other in others]
    return [one for one in some if (one, one.details) not in known]


def _alike(one: Spot, other: Spot) -> bool:
    return one.name == other.name and near(one, other)


def _changed(one: Spot, went: Sequence[Spot], seen: Spot) -> bool:
    """Whether what was seen is the asked thing, in whatever it was not before; in everything, if it was not there."""
    before = next((other for other in went if other.name == one.name), None)
    colour = one.colour if before is None or before.colour != one.colour else ""
    details = {} if before is None else dict(before.details)
    new = [(name, value) for name, value in one.details if name not in UNSAID and details.get(name) != value]
    return (
        _alike(one, seen)
        and (not colour or seen.colour == colour)
        and all(seen.detail(name) == value for name, value in new)
    )
