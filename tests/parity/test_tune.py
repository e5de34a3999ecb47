"""Adapters trained here draw the same in diffusers; those of PEFT go on learning here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fluxone import FluxPipeline
from fluxone.assembly import assemble
from fluxone.lora.load import load_lora
from fluxone.recipe import Recipe
from fluxone.tune import folder as folders
from fluxone.tune.beside import Beside, fresh, taken
from fluxone.tune.cache import Cache
from fluxone.tune.kinds import Size
from fluxone.tune.learner import Learner
from fluxone.tune.material import Material
from fluxone.tune.settings import Settings
from fluxone.tune.trainer import Trainer
from fluxone.tune.write import write
from parity.conftest import Oracle, build

pytest.importorskip("peft")

Get = Callable[[str], Oracle]
CHOSEN = {"rank": 3, "alpha": 6.0, "batch": 2, "rate": 0.03, "steps": 4, "warmup": 1, "drop": 0.0}


def trained(model: Path, place: Path, start: str | None = None) -> Trainer:
    """Four steps on two pictures."""
    pictures = place / "pictures"
    pictures.mkdir(exist_ok=True)
    for i, colour in enumerate(("red", "blue")):
        Image.linear_gradient("L").resize((48, 48)).convert("RGB").rotate(90 * i).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"the fox {colour}", encoding="utf-8")
    pipeline = assemble(str(model), Recipe(device="cpu", dtype="float32"))
    settings = Settings(size=3 * pipeline.token, **CHOSEN)  # type: ignore[arg-type]
    deltas = taken(load_lora(start)) if start else fresh(
        pipeline.transformer, "lora", ("blocks", "modulation"), Size(rank=3, alpha=6.0), 0
    )  # fmt: skip
    beside = Beside(pipeline.transformer, deltas)
    material = Material(pipeline, Cache(pipeline, place / "cache"), settings, folders.read(pictures))
    run = Trainer(Learner(pipeline, beside, material, settings), settings, place / "state", data="")
    for _ in range(4):
        run.advance()
    return run


def drawn(pipe: Any, size: int) -> np.ndarray:
    call = {"prompt": "the fox", "height": size, "width": size, "num_inference_steps": 2, "max_sequence_length": 16}
    return np.asarray(pipe(**call, output_type="np", generator=torch.Generator().manual_seed(1)).images)


def test_what_is_trained_here_draws_the_same_in_diffusers(oracle: Get, tmp_path: Path) -> None:
    found = oracle("dev")
    size = 3 * 2 * found.tiny.factor
    run = trained(found.folder, tmp_path)
    files = write(run.learner.beside.lora(), tmp_path, "fox", {}, dtype=torch.float32)
    theirs, ours = build(found.tiny), FluxPipeline.from_pretrained(str(found.folder), torch_dtype=torch.float32)
    plain = drawn(ours, size)
    theirs.load_lora_weights(str(files[0].path))
    made = drawn(theirs, size)
    assert np.abs(made - plain).max() > 0.01
    for file in files:  # both key styles
        ours.load_lora_weights(str(file.path), adapter_name="a")
        assert np.abs(drawn(ours, size) - made).max() < 1e-4
        ours.unload_lora_weights()


def test_an_adapter_of_peft_goes_on_learning_here(oracle: Get, tmp_path: Path) -> None:
    from diffusers import FluxPipeline as Theirs
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    found = oracle("dev")
    size = 3 * 2 * found.tiny.factor
    theirs = build(found.tiny)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["to_q", "to_k", "to_v", "linear"])
    theirs.transformer.add_adapter(config)
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in theirs.transformer.named_parameters():
            if "lora_" in name:
                p.copy_(0.2 * torch.randn(p.shape, generator=source))
    made = drawn(theirs, size)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(theirs.transformer))
    told = _collate_lora_metadata({"transformer": theirs.transformer})["transformer_lora_adapter_metadata"]
    Theirs.save_lora_weights(
        str(tmp_path / "peft"), transformer_lora_layers=layers, transformer_lora_adapter_metadata=told
    )
    file = tmp_path / "peft" / "pytorch_lora_weights.safetensors"
    ours = FluxPipeline.from_pretrained(str(found.folder), torch_dtype=torch.float32)
    ours.load_lora_weights(str(file), adapter_name="a")
    assert np.abs(drawn(ours, size) - made).max() < 1e-4
    ours.unload_lora_weights()
    run = trained(found.folder, tmp_path, start=str(file))
    after = write(run.learner.beside.lora(), tmp_path, "on", {}, dtype=torch.float32)
    learnt, before = load_lora(after[0].path), load_lora(file)
    assert {d.target.name for d in learnt.deltas} == {d.target.name for d in before.deltas}
    ours.load_lora_weights(str(after[0].path), adapter_name="b")
    other = build(found.tiny)
    other.load_lora_weights(str(after[0].path))
    assert np.abs(drawn(ours, size) - drawn(other, size)).max() < 1e-4
    assert np.abs(drawn(ours, size) - made).max() > 1e-3


def test_the_first_step_starts_from_what_peft_had(oracle: Get, tmp_path: Path) -> None:
    """The adapter as it is taken up computes what it computed."""
    found = oracle("dev")
    run = trained(found.folder, tmp_path)
    (file, _) = write(run.learner.beside.lora(), tmp_path, "fox", {}, dtype=torch.float32)
    batch = run.learner.material.batch(9, slice(0, 2))
    with torch.no_grad():
        velocity = run.learner.velocity(batch)
        run.learner.beside.leave()
        again = Beside(run.learner.network, taken(load_lora(file.path)))
        torch.testing.assert_close(run.learner.velocity(batch), velocity, rtol=1e-4, atol=1e-5)
        again.leave()
