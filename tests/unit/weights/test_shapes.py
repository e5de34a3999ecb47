"""Shapes from configs and shapes from tensors: the same numbers, and whatever does not fit is refused by name."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxone.errors import BadFile, BadWeights
from fluxone.nn import activations
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.sampling.schedule import SPACINGS
from fluxone.shapes import ACTIVATIONS, AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.variants import DEV, MINI, VARIANTS
from fluxone.weights import configs, fingerprint, sizes
from fluxone.weights.safetensors import read_header
from fluxone.weights.save import save_file
from unit.weights import tiny

FLUXES = [FluxShape(), tiny.FLUX, replace(tiny.FLUX, guided=False, in_channels=32, heads=4, axes=(2, 2, 4))]
VAES = [
    AutoEncoderShape(),
    tiny.VAE,
    AutoEncoderShape(channels=(6,), blocks=3, latent=2, groups=3, scale=1.0, shift=0.0),
    AutoEncoderShape(attention=False, quant=True),
    AutoEncoderShape(post_quant=True),
]
T5S = [T5Shape(), tiny.T5, replace(tiny.T5, activation="relu", gated=False)]
CLIPS = [ClipShape(), tiny.CLIP, *(replace(tiny.CLIP, activation=name, eps=1e-6) for name in ACTIVATIONS)]


def through_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(fields))
    return found


def test_configs_say_all_that_shapes_hold() -> None:
    for flux in FLUXES:
        assert configs.read_flux(through_json(configs.write_flux(flux)), "f") == flux
    for vae in VAES:
        assert configs.read_autoencoder(through_json(configs.write_autoencoder(vae, 128)), "f") == vae
    for t5 in T5S:
        assert configs.read_t5(through_json(configs.write_t5(t5)), "f") == t5
    for clip in CLIPS:
        assert configs.read_clip(through_json(configs.write_clip(clip)), "f") == clip
    asking = [
        replace(DEV, spacing="karras", terminal=0.02),
        replace(DEV, linear_shift=True),
        replace(DEV, spacing="exponential"),
    ]
    for row in (*VARIANTS.values(), *asking):
        assert configs.read_scheduler(through_json(configs.write_scheduler(row)), row, "f") == row


def test_spacings_are_those_of_the_schedules() -> None:
    assert list(configs.SPACINGS) == list(SPACINGS)


def test_activations_have_functions_and_words() -> None:
    assert tuple(activations.ACTIVATIONS) == ACTIVATIONS
    for gated, name in ((gated, name) for name in ACTIVATIONS for gated in (True, False)):
        shape = replace(tiny.T5, activation=name, gated=gated)
        if gated and name == "gelu":  # `gated-gelu` means the approximation
            with pytest.raises(BadWeights, match="exact GELU"):
                configs.write_t5(shape)
        else:
            assert configs.read_t5(through_json(configs.write_t5(shape)), "f") == shape


def test_any_token_may_be_clips_end() -> None:
    assert configs.read_clip(configs.write_clip(tiny.CLIP) | {"eos_token_id": 0}, "f").eos == 0


def test_a_clip_inside_a_whole_clip_is_read() -> None:
    assert configs.read_clip({"model_type": "clip", "text_config": configs.write_clip(tiny.CLIP)}, "f") == tiny.CLIP


FLUX_CONFIG = configs.write_flux(tiny.FLUX)
VAE_CONFIG = configs.write_autoencoder(tiny.VAE, 64)
T5_CONFIG = configs.write_t5(tiny.T5)
CLIP_CONFIG = configs.write_clip(tiny.CLIP)
PLAN = configs.write_scheduler(DEV)

Read = Callable[[Mapping[str, Any], object], object]
REFUSED: list[tuple[Read, dict[str, Any], dict[str, Any], str]] = [
    (configs.read_flux, FLUX_CONFIG, {"_class_name": "SD3Transformer2DModel"}, "describes a SD3Transformer2DModel"),
    (configs.read_flux, FLUX_CONFIG, {"patch_size": 2}, "patch_size is 2; only 1 can be run"),
    (configs.read_flux, FLUX_CONFIG, {"axes_dims_rope": [4, 6, 8]}, r"axes_dims_rope is \[4, 6, 8\]"),
    (configs.read_flux, FLUX_CONFIG, {"axes_dims_rope": [5, 5, 6]}, r"axes_dims_rope is \[5, 5, 6\]"),
    (configs.read_flux, FLUX_CONFIG, {"axes_dims_rope": 16}, "axes_dims_rope is 16; a list"),
    (configs.read_flux, FLUX_CONFIG, {"num_layers": "two"}, "num_layers is 'two'"),
    (configs.read_flux, FLUX_CONFIG, {"num_layers": True}, "num_layers is True"),
    (configs.read_flux, FLUX_CONFIG, {"num_attention_heads": 0}, "num_attention_heads is 0"),
    (configs.read_flux, FLUX_CONFIG, {"num_attention_heads": 10**9}, "num_attention_heads is 1000000000"),
    (configs.read_flux, FLUX_CONFIG, {"quantization_config": {"bits": 4}}, "quantization_config is"),
    (configs.read_autoencoder, VAE_CONFIG, {"use_quant_conv": "yes"}, "use_quant_conv is 'yes'; true or false"),
    (configs.read_autoencoder, VAE_CONFIG, {"norm_num_groups": 3}, "block_out_channels is .*groups of 3 must divide"),
    (configs.read_autoencoder, VAE_CONFIG, {"latents_mean": [0.0]}, "latents_mean is"),
    (configs.read_autoencoder, VAE_CONFIG, {"act_fn": "relu"}, "act_fn is 'relu'"),
    (configs.read_autoencoder, VAE_CONFIG, {"down_block_types": ["AttnDownEncoderBlock2D"]}, "down_block_types is"),
    (configs.read_autoencoder, VAE_CONFIG, {"up_block_types": 1.5}, "up_block_types is 1.5"),
    (configs.read_autoencoder, VAE_CONFIG, {"scaling_factor": "big"}, "scaling_factor is 'big'"),
    (configs.read_autoencoder, VAE_CONFIG, {"scaling_factor": float("nan")}, "scaling_factor is nan"),
    (configs.read_autoencoder, VAE_CONFIG, {"_class_name": "AutoencoderKLFlux2"}, "describes a AutoencoderKLFlux2"),
    (configs.read_t5, T5_CONFIG, {"feed_forward_proj": "xielu"}, "feed_forward_proj is 'xielu'; known"),
    (configs.read_t5, T5_CONFIG, {"feed_forward_proj": "gated-"}, "feed_forward_proj is 'gated-'"),
    (configs.read_t5, T5_CONFIG, {"feed_forward_proj": 5}, "feed_forward_proj is 5"),
    (configs.read_t5, T5_CONFIG, {"model_type": "umt5"}, "model_type is 'umt5'"),
    (configs.read_clip, CLIP_CONFIG, {"hidden_act": "mish"}, "hidden_act is 'mish'"),
    (configs.read_clip, CLIP_CONFIG, {"num_attention_heads": 3}, "hidden_size is 64; num_attention_heads, 3, must"),
    (configs.read_clip, CLIP_CONFIG, {"eos_token_id": None}, "eos_token_id is None"),
    (configs.read_clip, CLIP_CONFIG, {"model_type": "bert"}, "model_type is 'bert'"),
    (
        lambda c, p: configs.read_scheduler(c, DEV, p),
        PLAN,
        {"use_karras_sigmas": True, "use_beta_sigmas": True},
        "by karras and beta",
    ),
    (lambda c, p: configs.read_scheduler(c, DEV, p), PLAN, {"use_karras_sigmas": 1}, "use_karras_sigmas is 1; true or"),
    (lambda c, p: configs.read_scheduler(c, DEV, p), PLAN, {"invert_sigmas": True}, "invert_sigmas is True"),
    (lambda c, p: configs.read_scheduler(c, DEV, p), PLAN, {"stochastic_sampling": True}, "stochastic_sampling is"),
    (
        lambda c, p: configs.read_scheduler(c, DEV, p),
        PLAN,
        {"use_dynamic_shifting": False, "shift": 0},
        "shift is 0; a number above 0",
    ),
    (lambda c, p: configs.read_scheduler(c, DEV, p), PLAN, {"shift": 10**400, "use_dynamic_shifting": False}, "shift"),
    (lambda c, p: configs.read_scheduler(c, DEV, p), PLAN, {"base_shift": 1e7}, "base_shift is 10000000.0"),
    (lambda c, p: configs.read_scheduler(c, DEV, p), PLAN, {"shift_terminal": 1.5}, "shift_terminal is 1.5"),
    (
        lambda c, p: configs.read_scheduler(c, DEV, p),
        PLAN,
        {"time_shift_type": "cubic"},
        "time_shift_type is 'cubic'; exponential or linear",
    ),
    (lambda c, p: configs.read_scheduler(c, DEV, p), PLAN, {"max_image_seq_len": 256}, "are both 256"),
    (
        lambda c, p: configs.read_scheduler(c, DEV, p),
        PLAN,
        {"_class_name": "DDIMScheduler"},
        "describes a DDIMScheduler",
    ),
]


@pytest.mark.parametrize(("read", "config", "change", "words"), REFUSED, ids=[str(row[2]) for row in REFUSED])
def test_what_the_network_has_not_is_refused(
    read: Read, config: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    read(config, "here/config.json")
    with pytest.raises(BadFile, match=words) as caught:
        read(config | change, "here/config.json")
    assert "here/config.json" in str(caught.value)
    assert caught.value.hint


def test_a_fixed_shift_is_kept_and_a_counted_one_needs_none() -> None:
    fixed = configs.read_scheduler({"shift": 3.0, "use_dynamic_shifting": False}, DEV, "f")
    assert (fixed.shifted, fixed.shift) == (False, 3.0)
    counted = configs.read_scheduler({"shift": 3.0, "use_dynamic_shifting": True, "max_shift": 1.3,
                                      "base_image_seq_len": 100, "max_image_seq_len": 1000}, DEV, "f")  # fmt: skip
    assert (counted.shifted, counted.shift, counted.max_shift) == (True, 1.0, 1.3)
    assert (counted.base_tokens, counted.max_tokens) == (100, 1000)


def shapes(build: Callable[[], torch.nn.Module]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


@pytest.mark.parametrize("row", list(VARIANTS.values()), ids=list(VARIANTS))
def test_the_table_is_told_from_its_tensors(row: Any) -> None:
    assert sizes.flux(shapes(lambda: Flux(row.shape)), "f") == row.shape


def test_other_parts_are_told_from_their_tensors() -> None:
    odd = AutoEncoderShape(channels=(32, 64, 64), blocks=1, latent=3, attention=False, quant=True)
    for vae in (AutoEncoderShape(), tiny.VAE, odd, replace(odd, post_quant=True)):
        assert sizes.autoencoder(shapes(lambda vae=vae: AutoEncoder(vae)), "f") == vae  # type: ignore[misc]
    for t5 in T5S:
        assert sizes.t5(shapes(lambda t5=t5: T5Encoder(t5)), "f") == t5  # type: ignore[misc]
    for clip in (ClipShape(), tiny.CLIP):
        assert sizes.clip(shapes(lambda clip=clip: ClipTextEncoder(clip)), "f") == clip  # type: ignore[misc]


@pytest.mark.parametrize(("heads", "axes", "told"), [(1, (16, 56, 56), False), (2, (8, 28, 28), True),
                                                     (4, (4, 14, 14), True), (8, (4, 6, 6), True)])  # fmt: skip
def test_axes_are_guessed_in_proportion_and_it_is_said(
    heads: int, axes: tuple[int, ...], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    shape = FluxShape(hidden=128, heads=heads, axes=axes, double_blocks=1, single_blocks=1, text_dim=8, vec_dim=8)
    with caplog.at_level(logging.WARNING, logger="fluxone"):
        assert sizes.flux(shapes(lambda: Flux(shape)), "here.safetensors") == shape
    assert ("here.safetensors has heads" in caplog.text) is told


def test_axes_of_a_known_row_are_its_own_whatever_the_channels() -> None:
    for change in ({"in_channels": 384}, {"guided": False}):
        found = sizes.flux(shapes(lambda change=change: Flux(replace(MINI.shape, **change))), "f")  # type: ignore[misc]
        assert found.axes == MINI.shape.axes


def test_a_network_without_double_or_single_blocks_is_told() -> None:
    for change in ({"double_blocks": 0}, {"single_blocks": 0}):
        shape = replace(tiny.FLUX, mlp_ratio=2.0, **change)
        assert sizes.flux(shapes(lambda shape=shape: Flux(shape)), "f") == shape  # type: ignore[misc]


def test_what_tensors_do_not_tell_is_asked_for() -> None:
    flux = shapes(lambda: Flux(tiny.FLUX))
    for name, wrong, words in (
        ("double_blocks.0.img_attn.norm.query_norm.scale", (15,), "heads of 15 do not divide a width of 32"),
        ("double_blocks.0.img_attn.norm.query_norm.scale", (1,), "heads of 1 tell nothing"),
        ("img_in.weight", (32,), "img_in.weight has shape"),
        ("img_in.weight", (0, 16), "img_in.weight has shape"),
    ):
        with pytest.raises(BadWeights, match=words):
            sizes.flux(flux | {name: wrong}, "f")
    del flux["vector_in.in_layer.weight"]
    with pytest.raises(BadWeights, match=r"f lacks vector_in.in_layer.weight"):
        sizes.flux(flux, "f")
    with pytest.raises(BadWeights, match="CLIP's width is 65"):
        sizes.clip({"text_model.embeddings.token_embedding.weight": (9, 65)}, "f")
    with pytest.raises(BadWeights, match=r"\(48,\) channels are not groups of 32"):
        sizes.autoencoder({"encoder.down.0.block.0.conv1.weight": (48, 48, 3, 3)}, "f")


def test_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(*files: str) -> str:
        return fingerprint.fingerprint([read_header(tmp_path / file) for file in files])

    for file, fill in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        save_file(tmp_path / file, {"w": torch.full((100_000,), fill)}, metadata={})
    assert name("a") == name("b") != name("c")
    assert name("a").startswith("sha256:")
    assert len({name("a", "c"), name("c", "a"), name("a"), name("c")}) == 4
    exact = name("a")
    monkeypatch.setattr(fingerprint, "EXACT", 1000)
    monkeypatch.setattr(fingerprint, "BLOCK", 64)
    assert name("a").startswith("sampled:")
    assert name("a") == name("b") != name("c")
    assert name("a").split(":")[1] != exact.split(":")[1]
    content = bytearray((tmp_path / "a").read_bytes())
    content[-1] ^= 1
    (tmp_path / "b").write_bytes(content)
    assert name("a") != name("b"), "the last byte is sampled"
