"""Requests with adapters of their own: alone, and different ones in one batch, which equals one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fluxone.errors import BadRequest, UnknownName
from fluxone.lora.adapters import Strength
from fluxone.lora.load import read_lora
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from unit import tiny as small
from unit.lora.test_pipeline import adapter

ASKED = Request(prompt="a red fox", steps=3, seed=4)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    made = small.pipeline(tmp_path / "words")
    for seed, name in enumerate(("a", "b", "words")):
        parts = ("transformer", "clip", "t5") if name == "words" else ("transformer",)
        made.adapters.load(read_lora(adapter(made, parts, seed=seed)), name)
    return made


def latents(pipeline: Pipeline, request: Request) -> torch.Tensor:
    return [step.x for step in pipeline.steps(request)][-1]


def test_a_request_brings_its_adapters_and_takes_them_away(pipeline: Pipeline) -> None:
    plain = latents(pipeline, ASKED)
    pipeline.adapters.use({"a": Strength(scale=0.7), "words": Strength(scale=0.5)})
    wanted = latents(pipeline, ASKED)
    pipeline.adapters.use({"b": Strength()})
    before = latents(pipeline, ASKED)
    asked = replace(ASKED, adapters=(("a", 0.7), ("words", 0.5)))
    assert torch.equal(latents(pipeline, asked), wanted)
    assert torch.equal(latents(pipeline, ASKED), before) and list(pipeline.adapters.active) == ["b"]
    assert torch.equal(latents(pipeline, replace(ASKED, adapters=())), plain)
    assert not torch.allclose(wanted, plain, atol=1e-3)


@pytest.mark.parametrize("more", [{}, {"cfg": 3.0, "negative": "blur"}, {"sampler": "heun"}])
def test_different_adapters_in_one_batch_are_as_one_by_one(pipeline: Pipeline, more: dict[str, object]) -> None:
    pipeline.adapters.use({"b": Strength(course=(1.0, 0.2))})
    worn = [(("a", 0.8),), (("b", 1.0), ("a", -0.4)), (), (("words", 0.6), ("b", 0.5))]
    prompts = ("a red", "a house", "snow", "the fox")
    base = replace(ASKED, **more)
    asked = [
        replace(base, adapters=own, seed=9 + i, count=1 + i % 2, prompt=prompts[i]) for i, own in enumerate(worn)
    ]
    together = pipeline.together(asked)
    for one, result in zip(asked, together, strict=True):
        alone = pipeline(one)
        assert result.seeds == alone.seeds and result.request == alone.request
        for image, other in zip(result.images, alone.images, strict=True):
            assert np.abs(np.subtract(image, other, dtype=np.int16)).max() <= 1
    distinct = {result.images[0].tobytes() for result in together}
    assert len(distinct) == 4 and list(pipeline.adapters.active) == ["b"]


def test_what_cannot_share_a_batch_is_told(pipeline: Pipeline) -> None:
    pairs = [({"steps": 2}, "sigmas"), ({"guidance": 1.0}, "guidance"), ({"sampler": "heun"}, "sampler")]
    for fields, words in pairs:
        with pytest.raises(BadRequest, match=f"differ in {words}"):
            pipeline.together([ASKED, replace(ASKED, **fields)])
    with pytest.raises(BadRequest, match="some do not"):
        pipeline.together([ASKED, replace(ASKED, adapters=(("a", 1.0),))])
    with pytest.raises(UnknownName, match="no adapter is called 'c'"):
        pipeline(replace(ASKED, adapters=(("c", 1.0),)))
    with pytest.raises(BadRequest, match="ultra"):
        pipeline.together([ASKED, replace(ASKED, ultra="tiled")])


def test_an_adapter_that_replaces_a_parameter_serves_one_strength_a_batch(pipeline: Pipeline) -> None:
    norm = {"diffusion_model.double_blocks.0.img_attn.norm.key_norm.diff": torch.full((16,), 0.5)}
    pipeline.adapters.load(read_lora(norm), "norm")
    both = [replace(ASKED, adapters=(("norm", 1.0),), seed=seed) for seed in (1, 2)]
    alone = pipeline(both[1]).images[0]
    made = pipeline.together(both)[1].images[0]
    assert np.abs(np.subtract(made, alone, dtype=np.int16)).max() <= 1
    with pytest.raises(BadRequest, match="which the pictures of a batch share"):
        pipeline.together([both[0], replace(both[1], adapters=(("norm", 0.5),))])


@pytest.mark.parametrize("adapters", [{"a": 1.0}, "a", (("a", 1.0), ("a", 2.0)), (("a",),), ((1, 1.0),), (("a", "x"),)])
def test_what_names_no_adapters_is_said(adapters: object) -> None:
    with pytest.raises(BadRequest, match="adapter"):
        replace(ASKED, adapters=adapters)


def test_no_requests_make_no_pictures(pipeline: Pipeline) -> None:
    assert pipeline.together([]) == []
