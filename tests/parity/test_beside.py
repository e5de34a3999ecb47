"""Networks that work beside a model, each alone against diffusers' or transformers', loaded from files it has saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, FluxControlNetModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from fluxone.errors import BadWeights
from fluxone.nn.rope import rotation
from fluxone.shapes import FluxShape
from fluxone.weights.beside import load_controlnet, load_tiny
from fluxone.weights.formats.beside import BESIDE
from fluxone.weights.save import in_format
from fluxone.weights.vision import load_clip_vision, load_siglip_pooled
from parity.equal import agree, scatter

BASE = FluxShape(
    in_channels=16, out_channels=16, hidden=32, heads=2, axes=(4, 6, 6), text_dim=24, vec_dim=20, guided=True
)
# name -> blocks, guidance, modes, channels of XLabs' encoder
CONTROLNETS: dict[str, tuple[int, int, bool, int | None, int | None]] = {
    "plain": (2, 3, True, None, None),
    "union": (2, 1, False, 5, None),
    "no single blocks": (3, 0, True, None, None),
    "xlabs": (2, 0, True, None, 4),
}


def controlnet(name: str, folder: Path) -> FluxControlNetModel:
    """Diffusers' model with random weights, saved to the folder."""
    doubles, singles, guided, modes, hint = CONTROLNETS[name]
    model = FluxControlNetModel(
        patch_size=1 if hint is None else 2,
        in_channels=16,
        num_layers=doubles,
        num_single_layers=singles,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=20,
        guidance_embeds=guided,
        axes_dims_rope=[4, 6, 6],
        num_mode=modes,
        conditioning_embedding_channels=hint,
    ).eval()
    scatter(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CONTROLNETS)
@torch.no_grad()
def test_controlnet(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = controlnet(name, tmp_path).to(dtype)
    ours = load_controlnet(tmp_path, BASE, torch.float32).to(dtype)
    source = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source).to(dtype)

    _, _, guided, modes, hint = CONTROLNETS[name]
    x, txt, pooled = draw(2, 12, 16), draw(2, 5, 24), draw(2, 20)
    picture = draw(2, 12, 16) if hint is None else draw(2, 3, 64, 48)
    sigma, guidance = torch.tensor([0.7, 0.2]), torch.tensor([3.5, 1.0]) if guided else None
    mode = None if modes is None else 3
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(3.0))
    double, single = theirs(
        hidden_states=x,
        controlnet_cond=picture,
        controlnet_mode=None if mode is None else torch.full((2, 1), mode),
        conditioning_scale=0.6,
        encoder_hidden_states=txt,
        pooled_projections=pooled,
        timestep=sigma.to(dtype),
        guidance=None if guidance is None else guidance.to(dtype),
        img_ids=ids,
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )
    words = ours.words(txt, mode)
    pe = rotation(torch.cat((torch.zeros(words.shape[1], 3), ids)), ours.shape.flux.axes, 10000.0)
    modulation = ours.modulation(ours.vector(sigma, guidance, pooled, rounding=dtype))
    found = ours(x, ours.hint(picture), words, pe, modulation, 0.6)
    assert (len(found.double), len(found.single)) == CONTROLNETS[name][:2]
    assert found.cycle == (hint is not None)
    for own, other in zip((*found.double, *found.single), (*double, *(single or ())), strict=True):
        if dtype == torch.float64:  # diffusers rotates in float32
            assert ((own - other).norm() / other.norm()).item() < 1e-6
        else:
            agree(own, other)


@pytest.mark.parametrize("name", CONTROLNETS)
def test_controlnet_in_xlabs_names_and_without_config(name: str, tmp_path: Path) -> None:
    """The names of XLabs' files, which ComfyUI uses for all; the shape is told by the tensors."""
    controlnet(name, tmp_path)
    ours = load_controlnet(tmp_path, BASE, torch.float32)
    file = tmp_path / "alone" / "flux-canny-controlnet.safetensors"
    file.parent.mkdir()
    save_file({key: value.contiguous() for key, value in ours.state_dict().items()}, file)
    again = load_controlnet(file, BASE, torch.float32)
    assert again.shape.flux.axes == ours.shape.flux.axes
    assert (again.shape.modes, again.shape.hint) == (ours.shape.modes, ours.shape.hint)
    for key, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    back = in_format(ours.state_dict(), BESIDE["diffusers controlnet"])
    theirs = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert back.keys() == theirs.keys() and all(torch.equal(back[key], theirs[key]) for key in theirs)


def test_a_controlnet_of_another_network_is_refused(tmp_path: Path) -> None:
    controlnet("plain", tmp_path)
    with pytest.raises(BadWeights, match="32 wide, this model is 48"):
        load_controlnet(tmp_path, FluxShape(hidden=48, heads=3, axes=(4, 6, 6)), torch.float32)
    with pytest.raises(BadWeights, match="no IP-Adapter: it is a controlnet"):
        from fluxone.weights.beside import load_ip_adapter

        load_ip_adapter(tmp_path, BASE, torch.float32)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"stranger.weight": torch.zeros(2)}, file)
    with pytest.raises(BadWeights, match="1 unknown: stranger"):
        load_controlnet(tmp_path, BASE, torch.float32)
    del tensors["controlnet_blocks.1.weight"]
    save_file(tensors, file)
    with pytest.raises(BadWeights, match=r"1 missing: controlnet_blocks\.1\.weight"):
        load_controlnet(tmp_path, BASE, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@torch.no_grad()
def test_clip_vision(dtype: torch.dtype, tmp_path: Path) -> None:
    config = CLIPVisionConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=28, patch_size=7,
        projection_dim=12, hidden_act="gelu",
    )  # fmt: skip
    theirs = CLIPVisionModelWithProjection(config).eval()
    scatter(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_clip_vision(tmp_path, torch.float32)
    assert (ours.shape.size, ours.shape.activation) == (28, "gelu")
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)).to(dtype)
    agree(ours.to(dtype)(pixels), theirs.to(dtype)(pixels).image_embeds)


def test_clip_vision_out_of_a_whole_clip(tmp_path: Path) -> None:
    """As in openai/clip-vit-large-patch14's one file: the text half is left out, the shape told by the tensors."""
    config = CLIPVisionConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=40)
    model = CLIPVisionModelWithProjection(config)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    state |= {"text_model.final_layer_norm.weight": torch.ones(8), "logit_scale": torch.ones(1)}
    state |= {
        "vision_model.embeddings.position_ids": torch.arange(50)[None],
        "text_projection.weight": torch.ones(8, 8),
    }
    save_file(state, tmp_path / "model.safetensors")
    ours = load_clip_vision(tmp_path / "model.safetensors", torch.float32)
    shape = ours.shape
    assert (shape.size, shape.patch, shape.heads, shape.out, shape.layers) == (224, 32, 1, 512, 1)
    assert torch.equal(ours.visual_projection.weight, model.visual_projection.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@torch.no_grad()
def test_siglip_with_its_head(dtype: torch.dtype, tmp_path: Path) -> None:
    config = SiglipVisionConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=28, patch_size=7
    )
    theirs = SiglipVisionModel(config).eval()
    scatter(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_siglip_pooled(tmp_path, torch.float32)
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)).to(dtype)
    agree(ours.to(dtype)(pixels), theirs.to(dtype)(pixels).pooler_output)
    state = load_file(tmp_path / "model.safetensors")
    save_file({key: value for key, value in state.items() if "head." not in key}, tmp_path / "model.safetensors")
    with pytest.raises(BadWeights, match="no SigLIP picture encoder with its head: it is a SigLIP picture encoder"):
        load_siglip_pooled(tmp_path, torch.float32)


def tiny(**more: Any) -> AutoencoderTiny:
    model = AutoencoderTiny(
        latent_channels=16,
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_decoder_blocks=(2, 1, 3, 1),
        **more,
    ).eval()
    scatter(model)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@torch.no_grad()
def test_taef1(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = tiny(scaling_factor=1.5, shift_factor=0.1)
    theirs.save_pretrained(tmp_path)
    ours = load_tiny(tmp_path).to(dtype)
    assert ours.shape.factor == 8 and ours.shape.decoder == (2, 1, 3, 1)
    latent = 2 * torch.randn(2, 16, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    agree(ours.decode(latent), theirs.to(dtype).decode(latent / 1.5 + 0.1).sample)


@pytest.mark.parametrize("form", ["taesd tiny decoder", "comfy tiny decoder"])
def test_taef1_in_its_authors_names(form: str, tmp_path: Path) -> None:
    """In the author's files layer 0 bends the latent, so every number is one larger than diffusers'."""
    theirs = tiny()
    decoder = {key: value for key, value in theirs.state_dict().items() if key.startswith("decoder.")}
    state = {key: value.contiguous() for key, value in in_format(decoder, BESIDE[form]).items()}
    if form.startswith("comfy"):
        state |= {"vae_scale": torch.ones(()), "taesd_encoder.0.weight": torch.ones(2)}
    assert any(key.endswith("3.conv.4.bias") for key in state)
    save_file(state, tmp_path / "taef1_decoder.safetensors")
    ours = load_tiny(tmp_path / "taef1_decoder.safetensors")
    latent = torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    agree(ours.decode(latent), theirs.decode(latent).sample.detach())


def test_taef1s_own_shape_is_the_default() -> None:
    theirs = AutoencoderTiny(latent_channels=16)
    assert isinstance(theirs, nn.Module)
    from fluxone.nn.taef1 import TinyDecoder
    from fluxone.shapes import TinyShape

    with torch.device("meta"):
        ours = TinyDecoder(TinyShape())
    wanted = {key: value.shape for key, value in theirs.state_dict().items() if key.startswith("decoder.")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == wanted
    assert json.loads(theirs.to_json_string())["scaling_factor"] == TinyShape().scale
