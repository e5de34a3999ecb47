"""What pictures are held to without the judge: the truth passes, softened too, and pictures of other scenes do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")
pytest.importorskip("cv2", reason="the control extra is not installed")

from fluxone.evaluate import follow
from fluxone.evaluate.given import Given, Prompt, request, shown
from fluxone.evaluate.prompts import captions, edits, holes, wordless
from fluxone.evaluate.search import Search
from fluxone.storybook import WORLDS
from fluxone.storybook.spec import Person

FULL = WORLDS["full"]
COUNT = 6


def softened(image: Image.Image) -> Image.Image:
    small = (image.width * 3 // 7, image.height * 3 // 7)
    return image.resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def truth(prompt: Prompt) -> Image.Image:
    return shown(prompt.scene, "rgb", 256)


@pytest.mark.parametrize(
    ("name", "kinds"), [("edges", ("side", "stack")), ("outlines", ("side", "inside")), ("stance", ("person",))]
)
def test_truth_is_followed_and_other_pictures_are_not(name: str, kinds: tuple[str, ...]) -> None:
    found = captions(Search(kinds=kinds), FULL, COUNT)
    check = follow.FOLLOWED[name]
    for prompt, other in zip(found, found[1:] + found[:1], strict=True):
        assert check(prompt, truth(prompt)).right and check(prompt, softened(truth(prompt))).right
        wrong = check(prompt, truth(other))
        assert not wrong.right or name == "stance", (prompt.text, wrong)


def test_another_pose_is_found_out() -> None:
    for prompt in captions(Search(kinds=("person",)), FULL, COUNT):
        (person,) = prompt.scene.items
        assert isinstance(person, Person)
        pose = "jumping" if person.pose != "jumping" else "posing"
        other = replace(prompt.scene, items=(replace(person, pose=pose),))
        assert not follow.stance(prompt, shown(other, "rgb", 256)).right


def test_what_an_edit_leaves_alone_is_held_to_the_truth() -> None:
    for prompt in edits(Search(kinds=()), FULL, 1):
        exact = follow.kept(prompt, truth(prompt))
        assert exact.right and exact.value in (None, 99.0)
        if exact.value is not None:
            grey = Image.fromarray(np.asarray(truth(prompt)) // 2)
            assert not follow.kept(prompt, grey).right
        if prompt.sort in ("colour", "swap", "add"):
            before = shown(prompt.given[0].scene, "rgb", 256)
            assert follow.kept(prompt, before).right, "the change itself is not what is kept"


def test_a_hole_hides_the_first_thing_and_the_rest_is_held_to_the_truth() -> None:
    for prompt in holes(Search(kinds=("side",)), FULL, 3):
        mask = np.asarray(shown(prompt.scene, "hole", 256)) > 0
        left, top, right, bottom = (round(256 * edge) for edge in prompt.scene.facts.things[0].box)
        assert mask[top:bottom, left:right].all() and 0.02 < mask.mean() < 0.7
        assert (follow.untouched(prompt, 256) == ~mask).all()
        asked = request(prompt, seed=1, steps=2, size=256)
        assert asked.init is not None and asked.mask is not None and asked.strength == 1


def test_requests_hold_what_is_given() -> None:
    (prompt,) = wordless(Search(kinds=("one",)), FULL, 1)
    asked = request(prompt, seed=3, steps=4, size=128)
    assert [picture.size for picture in asked.image_prompts] == [(128, 128)]
    assert asked.prompt == "" and asked.seed == 3 and asked.steps == 4
    both = replace(prompt, given=tuple(Given(field="references", scene=prompt.scene, mode=m) for m in ("rgb", "depth")))
    assert len(request(both, seed=0, steps=1, size=64).references) == 2


def test_decibels() -> None:
    assert follow.decibels(0) == 99 and follow.decibels(255.0**2) == 0
