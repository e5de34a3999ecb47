"""Edits in a row: each looks at the latents of the one before, and nothing is decoded or encoded between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fluxone import FluxPipeline, provenance
from fluxone.errors import BadRequest
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from fluxone.variants import Kind
from unit.conditions.test_pipeline import half, picture, row
from unit.tiny import pipeline

ASKED = Request(prompt="a red car", then=("in the snow", "a fox"), references=(picture(),), steps=2, seed=3)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("tiny"), row(Kind.REFERENCE))


def last(pipe: Pipeline, request: Request) -> torch.Tensor:
    return list(pipe.steps(request))[-1].x


def counted(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passes through the autoencoder from now on."""
    passes: list[str] = []

    def told(name: str, does: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **more: passes.append(name) or does(*given, **more)

    for name in ("encode", "decode"):
        monkeypatch.setattr(pipe.autoencoder, name, told(name, getattr(pipe.autoencoder, name)))
    return passes


def test_the_next_looks_at_the_latents_of_the_one_before(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    x = last(pipe, replace(ASKED, then=()))
    for text in ASKED.then:
        job = pipe.prepare(pipe.resolve(replace(ASKED, prompt=text, then=())))
        ids = pipe.prepare(pipe.resolve(replace(ASKED, prompt=text, then=())), x).extra.reference_ids
        x = list(pipe.walk(replace(job, extra=replace(job.extra, reference=x, reference_ids=ids))))[-1].x
    passes = counted(pipe, monkeypatch)
    assert torch.equal(last(pipe, ASKED), x)
    assert passes == ["encode"]
    steps = list(pipe.steps(ASKED))
    assert [step.index for step in steps] == [0, 1] * 3
    assert len(pipe(ASKED).images) == 1


def test_every_instruction_matters_and_pictures_of_a_batch_are_those_drawn_alone(pipe: Pipeline) -> None:
    whole = last(pipe, ASKED)
    for more in ({"prompt": "a house"}, {"then": ("blur", "a fox")}, {"then": ("a",)}):
        other = replace(ASKED, **more)  # type: ignore[arg-type]
        assert not torch.allclose(last(pipe, other), whole, atol=1e-3)
    together = last(pipe, replace(ASKED, seed=2, count=2))
    torch.testing.assert_close(together[1:], whole, rtol=0, atol=2e-5 * max(1.0, float(whole.abs().max())))


def test_what_a_mask_leaves_stays_to_the_last_bit_through_all(pipe: Pipeline) -> None:
    given = replace(ASKED, init=picture(), mask=half(), strength=1.0, paste=2, resolution=None)
    (image,) = pipe(given).images
    assert np.array_equal(np.asarray(image)[:, 30:], np.asarray(picture())[:, 30:])


def test_a_record_holds_the_chain(pipe: Pipeline, tmp_path: Path) -> None:
    result = pipe(ASKED)
    entry = provenance.record(result.request, model="tiny", source="tiny", hashes={}, recipe=pipe.recipe)
    path = provenance.save(result.images[0], tmp_path / "a.png", entry)
    again = pipe(provenance.request_of(path, references=[picture()]))
    assert np.array_equal(np.asarray(again.images[0]), np.asarray(result.images[0]))


def test_the_python_door(pipe: Pipeline) -> None:
    door = FluxPipeline(pipe)
    call: dict[str, Any] = {
        "num_inference_steps": 2, "height": 48, "width": 32, "seed": 3, "image": picture(), "output_type": "latent"
    }  # fmt: skip
    chained = door("a red car", then=["in the snow"], **call).images
    assert not torch.allclose(chained, door("a red car", **call).images, atol=1e-3)
    both = door(["a house", "a red car"], then="in the snow", **(call | {"seed": 2})).images
    torch.testing.assert_close(both[1:], chained, rtol=0, atol=1e-4)
    with pytest.raises(BadRequest, match="then is given without a picture to edit"):
        door("a red car", then="in the snow", seed=1)


def test_a_chain_needs_something_to_edit(pipe: Pipeline) -> None:
    with pytest.raises(BadRequest, match="then is given without a picture to edit"):
        pipe(replace(ASKED, references=()))
