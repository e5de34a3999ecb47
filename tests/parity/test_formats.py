"""Folders written by diffusers load here, folders written here load in diffusers, with the same numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from fluxbfl import model as bfl_model
from fluxbfl.modules import autoencoder as bfl_autoencoder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.recipe import Recipe
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.variants import DEV
from fluxone.weights import configs, sizes
from fluxone.weights.fill import load_module
from fluxone.weights.formats import FORMATS
from fluxone.weights.identify import shape_of
from fluxone.weights.load import load_bundle
from fluxone.weights.parts import file_parts
from fluxone.weights.save import in_format, save_folder

SHAPES = {
    "wide": {"num_layers": 2, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
             "axes_dims_rope": (4, 6, 6), "guidance_embeds": True},
    "odd": {"num_layers": 1, "num_single_layers": 3, "attention_head_dim": 10, "num_attention_heads": 3,
            "axes_dims_rope": (2, 2, 6), "guidance_embeds": False},
}  # fmt: skip
VAES = {
    "wide": {"block_out_channels": (8, 16, 24), "layers_per_block": 2, "norm_num_groups": 4},
    "odd": {"block_out_channels": (6, 12), "layers_per_block": 1, "norm_num_groups": 3},
}


def tokenizer() -> Any:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "fox": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def diffusers_model(kind: str, seed: int = 0) -> FluxPipeline:
    torch.manual_seed(seed)
    levels = len(VAES[kind]["block_out_channels"])
    model = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.4, max_shift=1.3),
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=4,
            scaling_factor=0.7,
            shift_factor=0.2,
            use_quant_conv=False,
            use_post_quant_conv=False,
            **VAES[kind],
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=40, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
                bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        ),
        tokenizer=tokenizer(),
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=50, d_model=14, d_kv=3, d_ff=22, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
                relative_attention_num_buckets=8,
            )
        ),
        tokenizer_2=tokenizer(),
        transformer=FluxTransformer2DModel(
            in_channels=16, joint_attention_dim=14, pooled_projection_dim=12, **SHAPES[kind]
        ),
    )  # fmt: skip
    for part in (model.transformer, model.vae, model.text_encoder, model.text_encoder_2):
        part.eval()
    return model


@pytest.fixture(scope="module", params=sorted(SHAPES))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FluxPipeline, Path]:
    model, folder = diffusers_model(request.param), tmp_path_factory.mktemp("model") / request.param
    model.save_pretrained(folder)
    return model, folder


def equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def same_as_ours(model: FluxPipeline, bundle: Any) -> None:
    diffusers_flux = FORMATS["diffusers transformer"]
    equal(in_format(bundle.transformer.state_dict(), diffusers_flux), dict(model.transformer.state_dict()))
    equal(in_format(bundle.autoencoder.state_dict(), FORMATS["diffusers autoencoder"]), dict(model.vae.state_dict()))
    t5 = dict(model.text_encoder_2.state_dict())
    t5.pop("encoder.embed_tokens.weight")
    equal(bundle.t5.state_dict(), t5)
    clip = in_format(bundle.clip.state_dict(), FORMATS["clip of transformers 5"])
    equal(clip, dict(model.text_encoder.state_dict()))


def test_a_folder_of_diffusers_loads(saved: tuple[FluxPipeline, Path]) -> None:
    model, folder = saved
    bundle = load_bundle(str(folder), recipe=Recipe(device="cpu"))
    same_as_ours(model, bundle)
    config = model.transformer.config
    assert bundle.variant.shape == FluxShape(
        in_channels=16,
        out_channels=16,
        hidden=config.attention_head_dim * config.num_attention_heads,
        heads=config.num_attention_heads,
        axes=tuple(config.axes_dims_rope),
        double_blocks=config.num_layers,
        single_blocks=config.num_single_layers,
        text_dim=14,
        vec_dim=12,
        guided=config.guidance_embeds,
    )
    assert (bundle.variant.shifted, bundle.variant.base_shift, bundle.variant.max_shift) == (True, 0.4, 1.3)
    assert (bundle.autoencoder.shape.scale, bundle.autoencoder.shape.shift) == (0.7, 0.2)
    assert bundle.clip is not None
    assert bundle.clip.shape.eos == 1
    assert bundle.t5_tokenizer == folder / "tokenizer_2"
    assert bundle.clip_tokenizer == folder / "tokenizer"
    assert bundle.hashes.keys() == {"transformer", "autoencoder", "t5", "clip"}
    for module in (bundle.transformer, bundle.autoencoder, bundle.t5, bundle.clip):
        assert module is not None
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_networks_compute_the_same(saved: tuple[FluxPipeline, Path]) -> None:
    model, folder = saved
    bundle = load_bundle(str(folder), recipe=Recipe(device="cpu"))
    ids = torch.tensor([[3, 4, 5, 1, 1]])
    assert bundle.t5 is not None
    assert bundle.clip is not None
    with torch.no_grad():
        torch.testing.assert_close(bundle.t5(ids), model.text_encoder_2(ids).last_hidden_state)
        torch.testing.assert_close(bundle.clip(ids)[1], model.text_encoder(ids).pooler_output)
        pixels = torch.randn(1, 3, 16, 16)
        torch.testing.assert_close(bundle.autoencoder.moments(pixels)[0], model.vae.encode(pixels).latent_dist.mean)
        z = torch.randn(1, 4, 4, 4)
        torch.testing.assert_close(bundle.autoencoder.decode_raw(z), model.vae.decode(z).sample)
        x, txt, pooled = torch.randn(1, 6, 16), torch.randn(1, 5, 14), torch.randn(1, 12)
        ids, text_ids = torch.randint(0, 9, (6, 3)).float(), torch.zeros(5, 3)
        sigma = torch.tensor([0.37])
        guidance = torch.tensor([3.5]) if bundle.variant.guided else None
        theirs = model.transformer(
            hidden_states=x, encoder_hidden_states=txt, pooled_projections=pooled, timestep=sigma, img_ids=ids,
            txt_ids=text_ids, guidance=guidance, return_dict=False,
        )[0]  # fmt: skip
        ours = bundle.transformer(x, ids, txt, text_ids, sigma, pooled, guidance)
        torch.testing.assert_close(ours, theirs)


def test_shards_load(saved: tuple[FluxPipeline, Path], tmp_path: Path) -> None:
    model, _ = saved
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert (tmp_path / "sharded" / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    same_as_ours(model, load_bundle(str(tmp_path / "sharded"), recipe=Recipe(device="cpu")))


def test_a_precision_suffix_loads_where_it_is_all_there_is(saved: tuple[FluxPipeline, Path], tmp_path: Path) -> None:
    model, _ = saved
    model.save_pretrained(tmp_path / "half", variant="fp16")
    same_as_ours(model, load_bundle(str(tmp_path / "half"), recipe=Recipe(device="cpu")))


def ours(guided: bool) -> dict[str, Any]:
    torch.manual_seed(1)
    return {
        "variant": replace(DEV, max_shift=1.4, shifted=guided, shift=1.0 if guided else 2.5),
        "transformer": Flux(
            FluxShape(in_channels=16, out_channels=16, hidden=32, heads=2, axes=(4, 6, 6), double_blocks=1,
                      single_blocks=2, text_dim=14, vec_dim=12, guided=guided)
        ),
        "autoencoder": AutoEncoder(AutoEncoderShape(channels=(8, 16, 24), latent=4, groups=4)),
        "t5": T5Encoder(T5Shape(vocab=50, hidden=14, layers=2, heads=4, head_dim=3, mlp=22, buckets=8)),
        "clip": ClipTextEncoder(ClipShape(vocab=40, hidden=12, layers=2, heads=2, mlp=20, eos=1)),
    }  # fmt: skip


@pytest.mark.parametrize("guided", [True, False])
def test_a_folder_of_ours_loads_in_diffusers(guided: bool, tmp_path: Path) -> None:
    parts = ours(guided)
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer().save_pretrained(tmp_path / name)
    words = {name: tmp_path / name for name in ("tokenizer", "tokenizer_2")}
    save_folder(tmp_path / "model", **parts, tokenizers=words, dtype=torch.float32)
    model = FluxPipeline.from_pretrained(tmp_path / "model", tokenizer=tokenizer(), tokenizer_2=tokenizer())
    bundle = load_bundle(str(tmp_path / "model"), recipe=Recipe(device="cpu"))
    same_as_ours(model, bundle)
    for name in ("transformer", "autoencoder", "t5", "clip"):
        equal(getattr(bundle, name).state_dict(), parts[name].state_dict())
        assert getattr(bundle, name).shape == parts[name].shape
    assert model.transformer.config.guidance_embeds is guided
    assert model.scheduler.config.use_dynamic_shifting is guided
    assert model.scheduler.config.max_shift == 1.4
    assert bundle.variant.max_shift == 1.4
    assert bundle.variant.shift == (1.0 if guided else 2.5)
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "FluxPipeline"


def test_files_of_the_reference_implementation_load(tmp_path: Path) -> None:
    torch.manual_seed(2)
    shape = FluxShape(in_channels=16, out_channels=16, hidden=48, heads=3, axes=(4, 6, 6), double_blocks=2,
                      single_blocks=1, text_dim=14, vec_dim=12)  # fmt: skip
    flux = bfl_model.Flux(
        bfl_model.FluxParams(
            in_channels=16, out_channels=16, vec_in_dim=12, context_in_dim=14, hidden_size=48, mlp_ratio=4.0,
            num_heads=3, depth=2, depth_single_blocks=1, axes_dim=[4, 6, 6], theta=10000, qkv_bias=True,
            guidance_embed=True,
        )
    )  # fmt: skip
    vae_shape = AutoEncoderShape(channels=(32, 64), latent=4)
    autoencoder = bfl_autoencoder.AutoEncoder(
        bfl_autoencoder.AutoEncoderParams(
            resolution=64, in_channels=3, ch=32, out_ch=3, ch_mult=[1, 2], num_res_blocks=2, z_channels=4,
            scale_factor=0.3611, shift_factor=0.1159,
        )
    )  # fmt: skip
    safetensors.torch.save_file(flux.state_dict(), tmp_path / "flux1-dev.safetensors")
    safetensors.torch.save_file(autoencoder.state_dict(), tmp_path / "ae.safetensors")
    part = file_parts(tmp_path / "flux1-dev.safetensors")["transformer"]
    assert shape_of(part, configs.read_flux, sizes.flux) == shape
    equal(load_module(lambda: Flux(shape), part).state_dict(), flux.state_dict())
    part = file_parts(tmp_path / "ae.safetensors")["autoencoder"]
    assert shape_of(part, configs.read_autoencoder, sizes.autoencoder) == vae_shape
    equal(load_module(lambda: AutoEncoder(vae_shape), part).state_dict(), autoencoder.state_dict())
