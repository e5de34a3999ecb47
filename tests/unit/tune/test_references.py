"""Training an editing model with several references a picture: what the network is given is what drawing gives it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fluxone.conditions.reference import PLACES, positions
from fluxone.lora.adapters import Strength
from fluxone.lora.load import load_lora
from fluxone.nn.tokens import image_ids
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from fluxone.tune import folder as folders
from fluxone.tune.cache import Cache
from fluxone.tune.folder import open_picture
from fluxone.tune.learner import Learner
from fluxone.tune.lint import lint
from fluxone.tune.looks import Looker, Prompts
from fluxone.tune.material import Material
from fluxone.tune.settings import Settings
from fluxone.tune.trainer import Trainer
from fluxone.tune.write import write
from fluxone.variants import DEPTH, KONTEXT
from unit.tiny import TINY, pipeline
from unit.tune import made

EDITOR = replace(TINY, name="tiny-kontext", takes=KONTEXT.takes)
SHOWN = ((32, 32), (48, 16), (16, 48))  # px of the first, second and third reference
PAIRS = {"0.png": ["a.png", "b.png"], "1.png": ["b.png", "a.png"], "2.png": ["a.png", "b.png", "c.png"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three edits of two references, or three, and two of one, in a JSONL with lists."""
    folder = made.pictures(tmp_path_factory.mktemp("edits"), 5)
    for name, size in zip("abc", SHOWN, strict=True):
        image = Image.linear_gradient("L").resize(size).convert("RGB")
        ImageDraw.Draw(image).ellipse((2, 2, 9, 12), fill={"a": "red", "b": "blue", "c": "green"}[name])
        image.save(folder / f"{name}.png")
    rows: list[dict[str, Any]] = [
        {"file_name": n, "text": f"red fox {n[0]}", "references": r} for n, r in PAIRS.items()
    ]
    rows += [{"file_name": f"{i}.png", "text": made.NAMES[i], "reference": "a.png"} for i in (3, 4)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("words"), EDITOR)


def learner(editor: Pipeline, place: Path, out: Path, **given: object) -> Learner:
    chosen = made.settings(**({"batch": 1, "drop": 0.0, "drop_references": 0.0} | given))
    material = Material(editor, Cache(editor, out / "cache"), chosen, folders.read(place))
    beside: Any = SimpleNamespace()
    return Learner(editor, beside, material, chosen)


def given_to(editor: Pipeline, learner: Learner, batch: Any) -> tuple[Tensor, Tensor]:
    """The picture's and references' tokens that the network itself is called with, and their positions."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = editor.transformer.register_forward_pre_hook(lambda module, args: seen.append((args[0], args[1])))
    try:
        learner.velocity(batch)
    finally:
        hook.remove()
    ((img, ids),) = seen
    return img, ids


def test_all_reach_the_network_in_their_order_at_their_places(editor: Pipeline, place: Path, tmp_path: Path) -> None:
    run = learner(editor, place, tmp_path)
    cache = run.material.cache
    grids = {"a.png": (2, 2), "b.png": (1, 3), "c.png": (3, 1)}
    for i, (name, names) in enumerate(PAIRS.items()):
        item = run.material.items[i]
        assert item.example.path.name == name and item.references == tuple(grids[n] for n in names)
        batch = run.material.fixed(i, 0.6)
        img, ids = given_to(editor, run, batch)
        own = [cache.tokens(place / n, grids[n]) for n in names]
        assert torch.equal(img, torch.cat([batch.state[0], *own])[None])
        starts = PLACES["offset"]([grids[n] for n in names])
        assert len(set(starts)) == len(names) and {start[0] for start in starts} == {1}
        assert torch.equal(ids, torch.cat([image_ids(2, 2), *(map(positions, (grids[n] for n in names), starts))]))
        # What drawing with the same pictures gives the network, by its own way.
        asked = Request(prompt="fox", references=tuple(open_picture(place / n) for n in names), steps=1)
        extra = editor.prepare(editor.resolve(asked)).extra
        assert extra.reference is not None and extra.reference_ids is not None
        assert torch.equal(ids[4:], extra.reference_ids)
        assert (img[0, 4:] - extra.reference[0]).abs().max() < 1e-5


def test_each_of_them_counts(editor: Pipeline, place: Path, tmp_path: Path) -> None:
    """Another second reference, and the same two in another order, are told apart."""
    run = learner(editor, place, tmp_path)
    batch = run.material.fixed(2, 0.6)
    assert batch.reference is not None
    plain = run.velocity(batch)
    for start, stop in ((0, 4), (4, 7), (7, 10)):
        other = batch.reference.clone()
        other[:, start:stop] += 1
        assert (run.velocity(replace(batch, reference=other)) - plain).abs().max() > 1e-3, (start, stop)
    one, two = (run.material.fixed(i, 0.6) for i in (0, 1))
    assert one.reference is not None and two.reference is not None
    assert torch.equal(one.reference[:, :4], two.reference[:, 3:])
    assert torch.equal(one.reference[:, 4:], two.reference[:, :3])
    assert not torch.equal(one.ids, two.ids)


def test_a_batch_is_of_pictures_that_see_alike(editor: Pipeline, place: Path, tmp_path: Path) -> None:
    run = learner(editor, place, tmp_path, batch=2)
    counts = {i: len(item.references) for i, item in enumerate(run.material.items)}
    for step in range(12):
        numbers = run.material.order.at(step)
        assert len({run.material.items[i].references for i in numbers}) == 1
        batch = run.material.batch(step, slice(0, 2))
        assert batch.reference is not None and len(batch.reference) == 2
        assert batch.ids.shape[0] == 4 + batch.reference.shape[1]
        assert counts[numbers[0]] == counts[numbers[1]]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_references_are_left_out_as_often_as_is_asked(
    editor: Pipeline, place: Path, tmp_path: Path, share: float
) -> None:
    run = learner(editor, place, tmp_path, batch=2, drop_references=share)
    steps, alone = range(200 if 0 < share < 1 else 20), []
    for step in steps:
        first, second = (run.material.batch(step, slice(i, i + 1)) for i in (0, 1))
        assert (first.reference is None) == (second.reference is None)  # the whole batch, however it is cut
        alone.append(first.reference is None)
        if first.reference is None:
            assert torch.equal(first.ids, image_ids(2, 2))
            img, _ = given_to(editor, run, first)
            assert img.shape[1] == 4
    assert abs(sum(alone) / len(alone) - share) < 0.1
    again = learner(editor, place, tmp_path, batch=2, drop_references=share)
    assert [again.material.batch(step, slice(0, 1)).reference is None for step in steps] == alone
    assert run.material.fixed(0, 0.5).reference is not None  # never where it is measured


def test_a_saved_adapter_predicts_what_the_training_did(place: Path, tmp_path: Path) -> None:
    editor = pipeline(tmp_path / "words", EDITOR)
    chosen: Settings = made.settings(batch=1, steps=3, drop=0.0, drop_references=0.3, rate=0.05)
    run: Trainer = made.trainer(editor, place, tmp_path, chosen)
    base = run.learner.velocity(run.learner.material.fixed(2, 0.6)).detach()
    for _ in range(3):
        run.advance()
    batch = run.learner.material.fixed(2, 0.6)
    with torch.no_grad():
        expected = run.learner.velocity(batch)
    assert (expected - base).abs().max() > 1e-2
    names = PAIRS["2.png"]
    for file in write(run.learner.beside.lora(), tmp_path, "edit", {}, dtype=torch.float32):  # both key styles
        fresh = pipeline(tmp_path / "words", EDITOR)
        fresh.adapters.load(load_lora(file.path), "edit")
        fresh.adapters.use({"edit": Strength(scale=1.0)})
        asked = Request(
            prompt="red fox 2",
            references=tuple(open_picture(place / n) for n in names),
            sigmas=(0.6,),
            guidance=chosen.guidance,
        )
        job = replace(fresh.prepare(fresh.resolve(asked)), x=batch.state)
        assert job.sigmas == [0.6, 0.0]
        with torch.no_grad():
            (step,) = fresh.walk(job)
        assert ((batch.state - step.x) / 0.6 - expected).abs().max() < 1e-4


def test_samples_are_drawn_with_all_of_them(place: Path, tmp_path: Path) -> None:
    editor = pipeline(tmp_path / "words", EDITOR)
    run = made.trainer(editor, place, tmp_path, made.settings(batch=1))
    told: list[int] = []
    prepare = editor.prepare

    def noted(request: Request, *more: Any) -> Any:
        told.append(len(request.references))
        return prepare(request, *more)

    editor.prepare = noted  # type: ignore[method-assign]
    examples = folders.read(place)
    words = Prompts(named=("red fox", "a car", "the house", "blur fox"), plain=("a fox",), others=("snow",))
    Looker(editor, run.learner.beside, words, examples[:2], examples[2:], size=32, steps=1)
    assert told[:5] == [2, 2, 3, 1, 1]


def test_references_for_nothing_are_told(place: Path, editor: Pipeline, tmp_path: Path) -> None:
    def said(variant: Any) -> list[str]:
        model: Any = SimpleNamespace(text=None, variant=variant)
        found = lint(folders.read(place), size=32, trigger="", pipeline=model)
        return [str(finding) for finding in found if "references" in finding.what]

    assert said(EDITOR) == []
    (all_,) = said(TINY)
    assert "5 pictures have references, of which tiny looks at none" in all_
    (more,) = said(DEPTH)
    assert "3 pictures have references, of which depth looks at the first alone" in more
