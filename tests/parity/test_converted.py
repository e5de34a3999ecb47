"""What `models convert` writes is read by diffusers as what it was made from."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FluxPipeline

from fluxone.weights.convert import convert
from fluxone.weights.layouts import wanted
from unit.weights import tiny


def test_diffusers_reads_a_folder_that_was_a_single_file(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    convert(str(folder), tmp_path / "all.safetensors", wanted("comfy"))
    convert(str(tmp_path / "all.safetensors"), tmp_path / "again", wanted("diffusers"))
    first, second = (
        FluxPipeline.from_pretrained(path, tokenizer=None, tokenizer_2=None, local_files_only=True)
        for path in (folder, tmp_path / "again")
    )
    assert first.transformer.config.axes_dims_rope == second.transformer.config.axes_dims_rope
    assert first.vae.config.scaling_factor == second.vae.config.scaling_factor
    assert first.text_encoder.config.eos_token_id == second.text_encoder.config.eos_token_id
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        wanted_state, found = (getattr(model, name).state_dict() for model in (first, second))
        assert found.keys() == wanted_state.keys()
        for key, tensor in wanted_state.items():
            assert torch.equal(found[key], tensor), key
