"""An edit is made when what differs between two scenes is seen as asked, whatever else is on the picture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluxone.evaluate.change import made
from fluxone.evaluate.judge import Seen
from fluxone.evaluate.prompts import edits
from fluxone.evaluate.search import Search
from fluxone.evaluate.truth import spots
from fluxone.storybook import WORLDS
from unit.evaluate.known import perfect

FULL = WORLDS["full"]
PAIRS = [(p.sort, p.given[0].scene, p.scene) for p in edits(Search(kinds=()), FULL, 2 * len(FULL.edits))]


@pytest.mark.parametrize("sort", FULL.edits)
def test_the_asked_picture_shows_the_change_and_the_given_one_does_not(sort: str) -> None:
    pairs = [(before, after) for name, before, after in PAIRS if name == sort]
    assert len(pairs) >= 2
    for before, after in pairs:
        assert made(before, after, perfect(after)), after.caption
        assert not made(before, after, perfect(before)), after.caption
        # That nothing else went with what was to be removed is asked of the px that stay.
        assert sort == "remove" or not made(before, after, Seen(spots=(), stage="", text="?")), after.caption


def test_what_was_not_to_change_does_not_count() -> None:
    """Another colour of the other thing, or another stage, is no matter of the change."""
    before, after = next((b, a) for name, b, a in PAIRS if name == "colour" and len(a.facts.things) == 2)
    now = perfect(after)
    changed = next(i for i, (a, b) in enumerate(zip(spots(before), spots(after), strict=True)) if a != b)
    others = [s if i == changed else replace(s, colour="none") for i, s in enumerate(now.spots)]
    assert made(before, after, replace(now, spots=tuple(others), stage="elsewhere"))
    moved = [replace(s, x=(s.x + 0.4) % 1) if i == changed else s for i, s in enumerate(now.spots)]
    assert not made(before, after, replace(now, spots=tuple(moved)))


def test_a_person_is_asked_for_what_changed_alone() -> None:
    before, after = next((b, a) for name, b, a in PAIRS if name == "hair")
    now = perfect(after)
    (i,) = [i for i, s in enumerate(now.spots) if s.details]

    def wearing(**details: str) -> Seen:
        one = replace(now.spots[i], details=tuple({**dict(now.spots[i].details), **details}.items()))
        return replace(now, spots=(*now.spots[:i], one, *now.spots[i + 1 :]))

    assert made(before, after, wearing(pose="somehow", glasses="glasses"))
    assert not made(before, after, wearing(hair="another"))


def test_what_is_replaced_must_be_gone() -> None:
    before, after = next((b, a) for name, b, a in PAIRS if name == "swap")
    both = (*spots(after), *spots(before))
    assert not made(before, after, replace(perfect(after), spots=both))
