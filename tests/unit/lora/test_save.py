"""Adapters written in another style change the network as before, or are refused; what is broken is never written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fluxone.errors import BadWeights, UnknownName
from fluxone.lora.adapters import Adapters, Strength
from fluxone.lora.load import Lora, load_lora, read_lora
from fluxone.lora.save import STYLES, convert_lora, difference, in_style
from unit.lora.by_hand import STYLED, H, apart, network, run

# Magnitudes over the columns of a whole fused weight and of its pieces are not the same thing.
IMPOSSIBLE = {
    ("onetrainer dora in", "kohya"),
    ("onetrainer dora in", "comfy"),
    ("comfy dora in", "diffusers"),
}


def velocity(lora: Lora, strength: float = 0.7) -> torch.Tensor:
    model = network()
    own = Adapters({"transformer": model}, width=H, dtype=torch.float64)
    own.load(lora, "a")
    own.use({"a": Strength(scale=strength)})
    return run(model, own.in_channels or 8)


@pytest.mark.parametrize("target", STYLES)
@pytest.mark.parametrize("style", STYLED)
def test_the_picture_stays(style: str, target: str) -> None:
    lora = read_lora(STYLED[style]().tensors)
    if (style, target) in IMPOSSIBLE:
        with pytest.raises(BadWeights, match="DoRA's magnitude"):
            in_style(lora, target)
        return
    tensors = in_style(lora, target)
    again = read_lora(tensors)
    assert again.format == target
    assert difference(lora, again) < 1e-6
    assert apart(velocity(again), velocity(lora)) < 1e-5


def test_what_was_cut_and_joined_is_as_small_as_before() -> None:
    tensors = STYLED["kohya"]().tensors
    there = in_style(read_lora(tensors), "diffusers")
    back = in_style(read_lora(there), "kohya")
    assert {name: tensor.shape for name, tensor in back.items()} == {name: t.shape for name, t in tensors.items()}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_blocks_of_a_diagonal_become_pieces_of_their_own_rank() -> None:
    whole = in_style(read_lora(STYLED["diffusers"]().tensors), "kohya")
    assert whole["lora_unet_single_blocks_1_linear1.lora_down.weight"].shape == (12, H)
    back = in_style(read_lora(whole), "diffusers")
    assert back["transformer.single_transformer_blocks.1.attn.to_k.lora_A.weight"].shape == (3, H)


def test_a_file_is_converted_whole_with_its_metadata(tmp_path: Path) -> None:
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(STYLED["onetrainer"]().tensors, source, metadata={"ss_output_name": "fox", "lora_adapter_metadata": "{}"})
    assert convert_lora(load_lora(source), out, "comfy") < 1e-6
    again = load_lora(out)
    assert again.format == "comfy"
    assert again.metadata == {"ss_output_name": "fox", "format": "pt"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_smaller_type_is_allowed_its_rounding(tmp_path: Path) -> None:
    lora = read_lora(STYLED["kohya"]().tensors)
    assert convert_lora(lora, tmp_path / "b.safetensors", "diffusers", dtype=torch.bfloat16) < 0.02
    assert load_lora(tmp_path / "b.safetensors").deltas[0].factor.tensors()["down"].dtype == torch.bfloat16


def test_bundled_embeddings_go_along() -> None:
    tensors = STYLED["kohya"]().tensors | {"bundle_emb.fox.clip_l": torch.ones(2, 16)}
    assert torch.equal(in_style(read_lora(tensors), "diffusers")["bundle_emb.fox.clip_l"], torch.ones(2, 16))


def test_no_style_of_that_name() -> None:
    with pytest.raises(UnknownName, match="no LoRA style is called 'kohia'"):
        in_style(read_lora(STYLED["kohya"]().tensors), "kohia")
