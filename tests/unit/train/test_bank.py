"""The bank: workers' samples arrive whole, mixes hold what they say, objectives learn from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from fluxone import storybook
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.tokens import pack
from fluxone.shapes import AutoEncoderShape
from fluxone.storybook import WORLDS, Scene
from fluxone.train import tokenizer as words
from fluxone.train.data import bank as banks
from fluxone.train.data import samples
from fluxone.train.data.answers import survey
from fluxone.train.data.bank import MIXES, Bank, Order, holes
from fluxone.train.data.samples import SHELVES, WORDINGS
from fluxone.train.data.scenes import draw, nth, pixels
from fluxone.train.data.views import covered

pytest.importorskip("resvg_py")
WORLD = WORLDS["full"]
SIZE, LENGTH = 32, 48
CPU = torch.device("cpu")


def brightness(scene: Scene) -> dict[str, np.ndarray]:
    """Something about a scene: how many things it has."""
    return {"things": np.array([len(scene.facts.things)], np.int16)}


@pytest.fixture(scope="module")
def autoencoder() -> AutoEncoder:
    torch.manual_seed(0)
    return AutoEncoder(AutoEncoderShape(channels=(8, 8, 8, 8), blocks=1, groups=4)).eval()


@pytest.fixture(scope="module")
def bank(autoencoder: AutoEncoder) -> Iterator[Bank]:
    patch = pytest.MonkeyPatch()
    patch.setattr(banks, "CHUNK", 4)
    patch.setattr(samples, "ENGINE", "resvg")
    tokenizer = words.build(storybook.vocabulary(WORLD))
    phases = (("text", 8), ("photo", 4), ("edit", 4), ("both", 4), ("control", 4), ("pose", 4), ("text", 4))
    order = Order(world=WORLD, phases=phases, size=SIZE, length=LENGTH, workers=2, keep=8, extra=brightness)
    made = Bank(order, tokenizer, survey(WORLD))
    made.attach(autoencoder, CPU)
    for shelf, count in made.capacity.items():
        made.fill(shelf, count)
    yield made
    patch.undo()


def test_shelves_hold_every_number_once(bank: Bank, autoencoder: AutoEncoder) -> None:
    assert {name: kept.filled for name, kept in bank.shelves.items()} == bank.capacity
    kept = bank.shelves["text"].rows
    scenes = [nth(WORLD, number) for number in range(12)]
    with torch.no_grad():
        x = torch.stack([pixels(storybook.render(scene, SIZE)) for scene in scenes])
        tokens = pack(autoencoder.encode(x))
    for row in tokens:  # workers hand chunks over in any order
        assert (kept["x"].float() - row).abs().amax((1, 2)).min() < 0.02
    assert kept["half x"].shape[1:] == (1, 64)
    assert kept["ids"].shape == (12, WORDINGS, LENGTH)
    assert len(kept["pictures"]) == len(kept["extra things"]) == 8


@pytest.mark.parametrize("task", MIXES)
def test_every_mix_is_a_batch(bank: Bank, task: str) -> None:
    shapes = set()
    for step in range(12):
        batch = bank.batch(task, 2, 64, draw(0, step))
        count = len(batch.x)
        assert batch.x.shape == (count, 4, 64)
        assert batch.ids.shape == (count, LENGTH)
        assert batch.shown.shape == (count, 3, 4)
        references = 0 if batch.reference is None else batch.reference.shape[1] // 4
        if batch.places is not None:
            assert batch.places.shape == (4 * references, 3)
            assert (batch.places[:, 0] == 1).all()
        channels = {"fill": 320, "depth": 64, "canny": 64, "pose": 64, "control": 64}.get(task, 0)
        assert (0 if batch.channels is None else batch.channels.shape[-1]) == channels
        assert count == (64 if not references else banks._fewer(64, 4, references, LENGTH))
        assert (batch.pictures is None) == (task != banks.SAID)
        shapes.add(references)
    assert shapes <= {len(SHELVES[shelf].given) if shelf in ("edit", "both") else 0 for shelf in MIXES[task]}


def test_plain_words_are_those_of_the_pictures(bank: Bank, autoencoder: AutoEncoder) -> None:
    batch = bank.batch("plain", 2, 16, draw(0, 2))
    assert batch.pictures is not None
    x = batch.pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(pack(autoencoder.encode(x)), batch.x, atol=0.02, rtol=0.02)
    scenes = [nth(WORLD, number) for number in range(12)]
    said = words.encode(words.build(storybook.vocabulary(WORLD)), [samples.plain(scene) for scene in scenes], LENGTH)
    assert {tuple(row) for row in batch.ids.tolist()} <= {tuple(row) for row in said}


def test_a_share_of_the_batches_is_half_as_large(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "halves", 0.5)
    sides = [bank.batch("text", 2, 8, draw(0, step)).x.shape[1] for step in range(64)]
    assert {1, 4} == set(sides) and 20 < sides.count(1) < 44
    maps = {bank.batch("control", 2, 8, draw(0, step)).x.shape[1] for step in range(16)}
    assert maps == {4}, "maps are only followed at full size"


def test_kept_pictures_come_with_their_samples(bank: Bank, autoencoder: AutoEncoder) -> None:
    rows = bank.seen(16, draw(0, 1))
    x = rows["pictures"].permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(pack(autoencoder.encode(x)), rows["x"].float(), atol=0.02, rtol=0.02)
    assert rows["things"].shape == (16, 1)


def test_a_hole_is_the_same_for_pixels_and_tokens() -> None:
    edges = [(0.1, 0.25, 0.6, 0.9), (0.0, 0.0, 1.0, 1.0)]
    found = holes(torch.tensor(edges), 64)
    for mask, edge in zip(found, edges, strict=True):
        assert ((mask[0] > 0).numpy() == (covered(edge, 64) > 0)).mean() > 0.99


def test_samples_keep_to_their_side_of_the_hold_out() -> None:
    for shelf, row in SHELVES.items():
        for number in range(3):
            made = row.make(replace(WORLD, styles=()), number, 16)
            assert set(made.pictures) == {"x", *row.given}, shelf
            assert len(made.texts) == WORDINGS
            assert not storybook.held_out(made.scene), shelf
