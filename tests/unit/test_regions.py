"""Regions and NAG of a whole pipeline: what they change, what they leave, and that a picture is its seed's alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.pipeline import Pipeline
from fluxone.regions import mixed
from fluxone.request import Region, Request
from unit.tiny import pipeline

ASKED = Request(prompt="a red car", resolution=Resolution(height=64, width=64), steps=2, seed=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("tiny"))


def last(tiny: Pipeline, **fields: object) -> Tensor:
    return [step.x for step in tiny.steps(replace(ASKED, **fields))][-1]


def half(left: int, right: int) -> Image.Image:
    mask = Image.new("L", (2, 1))
    mask.putdata([left, right])
    return mask.resize((64, 64), Image.Resampling.NEAREST)


def test_a_region_changes_its_part_most(tiny: Pipeline) -> None:
    plain = last(tiny, steps=1)
    region = Region(prompt="fox snow", mask=half(255, 0), strength=20.0)
    gap = (last(tiny, steps=1, regions=(region,)) - plain).abs().mean(-1).reshape(4, 4)
    assert gap[:, :2].mean() > 3 * gap[:, 2:].mean()
    assert gap[:, 2:].mean() > 0, "the parts of a picture see each other"


def test_regions_in_any_batch_are_as_alone(tiny: Pipeline) -> None:
    regions = (Region(prompt="fox", mask=half(255, 0)), Region(prompt="snow house", mask=half(0, 128)))
    for more in ({}, {"nag": 4.0, "negative": "blur"}, {"nag": 4.0, "cfg": 2.0, "negative": "blur"}):
        both = last(tiny, regions=regions, count=2, **more)
        for i in range(2):
            assert torch.allclose(both[i : i + 1], last(tiny, regions=regions, seed=3 + i, **more), atol=1e-4)


def test_regions_do_not_depend_on_their_order(tiny: Pipeline) -> None:
    one, other = Region(prompt="fox", mask=half(255, 0)), Region(prompt="snow house", mask=half(0, 255))
    assert torch.allclose(last(tiny, regions=(one, other)), last(tiny, regions=(other, one)), atol=1e-4)


def test_nag_is_off_at_one_and_off_outside_of_its_interval(tiny: Pipeline) -> None:
    plain = last(tiny)
    assert torch.equal(last(tiny, nag=1.0, negative="blur"), plain)
    assert torch.allclose(last(tiny, nag=5.0, nag_alpha=0.0, negative="blur"), plain, atol=1e-5)
    assert torch.allclose(last(tiny, nag=5.0, negative="a red car"), plain, atol=1e-4), "away from itself is nowhere"
    guided = last(tiny, nag=5.0, nag_alpha=1.0, negative="blur")
    assert not torch.allclose(guided, plain, atol=1e-2)
    early = last(tiny, nag=5.0, nag_alpha=1.0, negative="blur", cfg_interval=(0.0, 0.4))
    assert not torch.allclose(early, plain, atol=1e-2) and not torch.allclose(early, guided, atol=1e-3)
    assert torch.allclose(last(tiny, nag=5.0, negative="blur", cfg_interval=(0.0, 0.0)), plain, atol=1e-4)


def test_regions_stand_after_all_that_the_prompt_has_become(tiny: Pipeline) -> None:
    """Image prompts make the text longer than its words: what stands behind begins there."""
    request = tiny.resolve(replace(ASKED, regions=(Region(prompt="fox", mask=half(255, 0)),), nag=3.0, negative="blur"))
    job = tiny.prepare(request)
    assert job.mixing is not None and job.more is not None
    longer = replace(job, text=replace(job.text, txt=job.text.txt.repeat(1, 2, 1)), more=None, mixing=None)
    again = mixed(request, tiny.encode, longer, tiny.encode(["blur"], [None], None))
    assert again.mixing is not None and again.more is not None
    assert again.mixing.text == 2 * job.mixing.text == longer.text.txt.shape[1]
    assert torch.equal(again.more, job.more) and again.mixing.more == job.mixing.more
    list(tiny.walk(again))


def test_bad_regions_are_told(tiny: Pipeline) -> None:
    for mask, words in ((None, "has no mask"), (Image.new("L", (8, 8)), "is black")):
        with pytest.raises(BadRequest, match=words):
            last(tiny, regions=(Region(prompt="fox", mask=mask),))
    with pytest.raises(BadRequest, match="strength of a region"):
        Region(prompt="fox", strength=-1)
    with pytest.raises(BadRequest, match=r"nag is 0\.5"):
        Request(nag=0.5)
