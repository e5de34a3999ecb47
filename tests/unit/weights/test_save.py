"""A folder is written whole or not at all, the same bytes for the same model, and never over something else."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fluxone.errors import BadFile, BadWeights, CannotWrite
from fluxone.nn.transformer import Flux
from fluxone.recipe import Recipe
from fluxone.variants import DEV, KONTEXT
from fluxone.weights import save
from fluxone.weights.load import load_bundle
from fluxone.weights.save import save_file, save_folder
from unit.weights import tiny


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bytes_repeat_and_the_tree_is_complete(tmp_path: Path) -> None:
    first, second = digest(tiny.folder(tmp_path / "a")), digest(tiny.folder(tmp_path / "b"))
    assert first == second
    assert sorted(first) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer_2/tokenizer.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert not list(tmp_path.glob("*.part"))


def parts() -> dict[str, Any]:
    return {"variant": DEV, **tiny.networks(), "tokenizers": {}}


def test_dtype_and_a_model_without_encoders(tmp_path: Path) -> None:
    save_folder(tmp_path / "m", **parts() | {"t5": None, "clip": None}, dtype=torch.bfloat16)
    bundle = load_bundle(str(tmp_path / "m"), recipe=Recipe(device="cpu", dtype="bfloat16"))
    assert bundle.t5 is None
    assert bundle.clip is None
    tiny.equal(bundle.transformer, tiny.network("transformer").bfloat16())


def test_an_index_names_diffusers_class_for_the_row(tmp_path: Path) -> None:
    save_folder(tmp_path / "m", **parts() | {"variant": replace(KONTEXT, shape=tiny.FLUX)})
    assert load_bundle(str(tmp_path / "m"), recipe=words(tmp_path)).variant.takes == KONTEXT.takes


def test_an_older_model_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m")
    (folder / "old-notes.txt").write_text("of the old model")
    save_folder(folder, **parts() | {"transformer": tiny.network("transformer", seed=4)})
    assert not (folder / "old-notes.txt").exists()
    tiny.equal(load_bundle(str(folder), recipe=words(tmp_path)).transformer, tiny.network("transformer", seed=4))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(CannotWrite, match="is there already and holds no model"):
        save_folder(tmp_path / "mine", **parts())
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CannotWrite, match="is there already and holds no model"):
        save_folder(tmp_path / "file", **parts())
    assert (tmp_path / "mine" / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    save_folder(tmp_path / "empty", **parts())
    assert (tmp_path / "empty" / "model_index.json").is_file()


def words(root: Path) -> Recipe:
    folder = tiny.folder(root / "words-model")
    return Recipe(device="cpu", text_encoder=str(folder), text_encoder_2=str(folder))


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["write", "_json"])
def test_a_full_disk_leaves_the_old_model_and_no_half(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.folder(tmp_path / "m")
    before, around = digest(folder), sorted(path.name for path in tmp_path.iterdir())
    real: Callable[..., None] = getattr(save, name)
    calls: list[Path] = []

    def at_the_third(path: Path, *rest: object) -> None:
        calls.append(path)
        (full if len(calls) == 3 else real)(path, *rest)

    monkeypatch.setattr(save, name, at_the_third)
    with pytest.raises(CannotWrite, match="No space left on device; make room on the disk"):
        save_folder(folder, **parts())
    assert len(calls) == 3
    assert digest(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == around


def test_a_failure_at_the_last_step_brings_the_old_model_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.folder(tmp_path / "m")
    before = digest(folder)
    real = Path.rename
    moves: list[Path] = []

    def rename(self: Path, target: Path) -> Path:
        moves.append(target)
        if len(moves) == 2:
            full()
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(CannotWrite):
        save_folder(folder, **parts())
    monkeypatch.undo()
    assert moves[1:] == [folder, folder], "there, and back"
    assert digest(folder) == before
    assert not list(tmp_path.glob("*.part"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot be saved"):
        save_folder(tmp_path / "file" / "m", **parts())
    with pytest.raises(CannotWrite, match="cannot be saved"):
        save_file(tmp_path / "no" / "m.safetensors", {"a": torch.ones(1)}, metadata={})


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="the tokenizer_2 to save, is no folder"):
        save_folder(tmp_path / "m", **parts() | {"tokenizers": {"tokenizer_2": tmp_path / "nothing"}})
    assert not list(tmp_path.iterdir())


def test_one_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.safetensors"
    save_file(file, {"a": torch.ones(2)}, metadata={})
    before = file.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="No space left"):
        save_file(file, {"a": torch.zeros(2000)}, metadata={})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_network_that_the_layout_cannot_say_is_refused(tmp_path: Path) -> None:
    odd: nn.Module = Flux(replace(tiny.FLUX, mlp_ratio=3.0))
    with pytest.raises(BadWeights, match=r"mlp_ratio 3\.0"):
        save_folder(tmp_path / "m", **parts() | {"transformer": odd})
    assert not list(tmp_path.iterdir())
    with pytest.raises(BadWeights, match="safetensors has no such type"):
        save_file(tmp_path / "m.safetensors", {"a": torch.ones(2, dtype=torch.complex64)}, metadata={})
    assert not list(tmp_path.iterdir())
