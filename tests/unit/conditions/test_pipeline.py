"""Every condition through the whole pipeline: batches, offload, records, and what a model does not take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fluxone import provenance
from fluxone.errors import BadFile, BadRequest
from fluxone.geometry import Resolution
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from fluxone.variants import Kind, Variant
from unit.tiny import LATENT, TINY, pipeline

ASKED = Request(prompt="a red car", resolution=Resolution(height=48, width=32), steps=2, seed=3)
WIDE = {Kind.FILL: 32 + 4 * LATENT.factor**2, Kind.CONTROL: 32}


def picture(seed: int = 0, width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def half(width: int = 60, height: int = 40) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (0, 0, width // 2, height))
    return mask


def row(kind: Kind | None) -> Variant:
    shape = TINY.shape if kind not in WIDE else replace(TINY.shape, in_channels=WIDE[kind])
    return replace(TINY, shape=shape, takes=() if kind is None else (kind,))


# name -> what the model takes, the request's pictures
CASES: dict[str, tuple[Kind | None, dict[str, Any]]] = {
    "reference": (Kind.REFERENCE, {"references": (picture(),)}),
    "references": (Kind.REFERENCE, {"references": (picture(), picture(1, 30, 50)), "layout": "index"}),
    "reference, in part": (Kind.REFERENCE, {"references": (picture(),), "init": picture(), "mask": half(), "paste": 2}),
    "fill": (Kind.FILL, {"init": picture(), "mask": half(), "strength": 1.0}),
    "control": (Kind.CONTROL, {"control": picture()}),
    "edges": (Kind.CONTROL, {"control": picture(), "detector": "canny"}),
    "repaint": (None, {"init": picture(), "mask": half(), "strength": 0.9}),
    "expand": (None, {"init": picture(), "expand": (0, 8, 8, 0), "paste": 2, "strength": 1.0}),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind | None], Pipeline]:
    made: dict[Kind | None, Pipeline] = {}

    def get(kind: Kind | None) -> Pipeline:
        if kind not in made:
            made[kind] = pipeline(tmp_path_factory.mktemp("tiny"), row(kind))
        return made[kind]

    return get


@pytest.mark.parametrize("case", CASES)
def test_batches_offload_and_records(tiny: Callable[[Kind | None], Pipeline], tmp_path: Path, case: str) -> None:
    kind, given = CASES[case]
    pipe, asked = tiny(kind), replace(ASKED, **given)
    alone = list(pipe.steps(replace(asked, seed=4)))[-1].x
    together = list(pipe.steps(replace(asked, count=2)))[-1].x
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-5 * max(1.0, float(alone.abs().max())))
    for mode in ("model", "block"):
        other = pipeline(tmp_path / mode, row(kind), offload=mode)
        assert torch.equal(list(other.steps(replace(asked, seed=4)))[-1].x, alone)
    result = pipe(asked)
    entry = provenance.record(result.request, model="tiny", source="tiny", hashes={}, recipe=pipe.recipe)
    path = provenance.save(result.images[0], tmp_path / "a.png", entry)
    assert provenance.read(path) == entry
    with pytest.raises(BadFile, match="made from"):
        provenance.request_of(path)
    pictures = {name: given[name] for name in ("init", "mask", "control", "references") if name in given}
    again = pipe(provenance.request_of(path, **pictures))
    assert np.array_equal(np.asarray(again.images[0]), np.asarray(result.images[0]))
    with pytest.raises(BadFile):
        provenance.request_of(path, **(pictures | {"init": picture(9)}))


@pytest.mark.parametrize("case", CASES)
def test_each_picture_matters(tiny: Callable[[Kind | None], Pipeline], case: str) -> None:
    kind, given = CASES[case]
    base = list(tiny(kind).steps(replace(ASKED, **given)))[-1].x
    for name in ("init", "mask", "control", "references"):
        if name in given:
            other = (picture(7), *given[name][1:]) if name == "references" else picture(7)
            changed = list(tiny(kind).steps(replace(ASKED, **(given | {name: other}))))[-1].x
            assert not torch.allclose(base, changed, atol=1e-3), name


@pytest.mark.parametrize("case", ["reference", "fill", "repaint", "expand"])
def test_the_picture_comes_out_at_the_size_of_the_one_given(tiny: Callable[[Kind | None], Pipeline], case: str) -> None:
    kind, given = CASES[case]
    (image,) = tiny(kind)(replace(ASKED, resolution=None, **given)).images
    assert image.size == ((68, 48) if case == "expand" else (60, 40))


def test_pasting_keeps_every_pixel_outside(tiny: Callable[[Kind | None], Pipeline]) -> None:
    for kind, given in ((None, CASES["repaint"][1]), CASES["reference, in part"], (None, CASES["expand"][1])):
        (image,) = tiny(kind)(replace(ASKED, resolution=None, **(given | {"paste": 3}))).images
        out, old = np.asarray(image), np.asarray(picture())
        kept = out[11:, :57] if "expand" in given else out[:, 30:]
        assert np.array_equal(kept, old[3:, :57] if "expand" in given else old[:, 30:])


def test_all_that_is_held_becomes_the_reference(tiny: Callable[[Kind | None], Pipeline]) -> None:
    """Whatever the network draws: 100 is farther than latents are from each other."""
    pipe, asked = tiny(Kind.REFERENCE), replace(ASKED, steps=8, references=(picture(),), auto_resize=False)
    asked = replace(asked, resolution=Resolution(height=32, width=48))
    reference = pipe.prepare(pipe.resolve(asked)).extra.reference
    assert reference is not None
    free, held, as_row = (list(pipe.steps(replace(asked, hold=hold)))[-1].x for hold in (0.0, 100.0, None))
    torch.testing.assert_close(held, reference, atol=1e-4, rtol=0)
    assert not torch.allclose(free, reference, atol=1e-2) and torch.equal(free, as_row)


@pytest.mark.parametrize("references", [(picture(), picture(1)), (picture(width=48, height=96),)])
def test_nothing_is_held_without_one_reference_of_the_size(
    tiny: Callable[[Kind | None], Pipeline], references: tuple[Image.Image, ...]
) -> None:
    asked = replace(ASKED, references=references)
    free, held = (list(tiny(Kind.REFERENCE).steps(replace(asked, hold=hold)))[-1].x for hold in (0.0, 100.0))
    assert torch.equal(free, held)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (None, {"references": (picture(),)}, "tiny takes no reference picture; models that do: mini-kontext, kontext"),
        (None, {"control": picture()}, "takes no control picture; models that do: mini-depth, mini-canny, mini-pose"),
        (None, {"mask": half()}, "mask is given without the picture"),
        (Kind.FILL, {}, "tiny cannot draw without a mask and the picture that it is of"),
        (Kind.FILL, {"init": picture()}, "tiny cannot draw without a mask"),
        (Kind.CONTROL, {}, "tiny cannot draw without a control picture"),
        (Kind.FILL, {"references": (picture(),), "init": picture(), "mask": half()}, "takes no reference"),
        (None, {"paste": 2}, "paste is given without a picture"),
    ],
)
def test_what_a_model_does_not_take_is_said(
    tiny: Callable[[Kind | None], Pipeline], kind: Kind | None, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadRequest, match=said):
        tiny(kind)(replace(ASKED, **given))
