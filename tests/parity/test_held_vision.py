"""Picture encoders, what brings pictures to them, and Redux's embedder, given in memory in place of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPriorReduxPipeline
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from fluxone import FluxPipeline
from fluxone.errors import BadRequest, BadWeights, MissingParts
from parity.conftest import Oracle, build
from parity.equal import scatter
from parity.test_ip_adapter import IMAGE, SIZE, TINY, instantx, xlabs
from parity.test_pipeline import arguments, assert_close, start
from parity.test_redux import SIDE, theirs_of, vision

Get = Callable[[str], Oracle]
OTHER = {"image_mean": [0.3, 0.4, 0.6], "image_std": [0.2, 0.3, 0.25]}  # colours as no usual encoder wants them
ENCODER = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}


@pytest.fixture(scope="module")
def clip() -> CLIPVisionModelWithProjection:
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**ENCODER, image_size=SIZE, patch_size=7, projection_dim=IMAGE)
    ).eval()
    scatter(encoder)
    return encoder


@pytest.fixture(scope="module")
def embedder() -> ReduxImageEncoder:
    made = ReduxImageEncoder(redux_dim=48, txt_in_features=TINY.text).eval()
    scatter(made)
    return made


@pytest.fixture(scope="module")
def siglip() -> SiglipVisionModel:
    return vision()


def redux_extractor(**more: Any) -> SiglipImageProcessor:
    return SiglipImageProcessor(size={"height": SIDE["image_size"], "width": SIDE["image_size"]}, **more)


def opened(oracle: Get, **more: Any) -> FluxPipeline:
    return FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, device="cpu", **more)


@pytest.mark.parametrize("when", ["with the model", "with the adapter"])
def test_an_ip_adapter_sees_with_them_as_in_diffusers(
    oracle: Get, clip: CLIPVisionModelWithProjection, tmp_path: Path, when: str
) -> None:
    file = xlabs(tmp_path, 0)
    given = {
        "image_encoder": clip,
        "feature_extractor": CLIPImageProcessor(size=SIZE + 4, crop_size=SIZE, **OTHER),
    }
    theirs = build(TINY)
    theirs.register_modules(**given)
    theirs.load_ip_adapter(str(tmp_path), file.name, image_encoder_pretrained_model_name_or_path=None)
    early, late = (given, {}) if when == "with the model" else ({}, given)
    ours = opened(oracle, **early)
    ours.load_ip_adapter(file, **late)
    kwargs = arguments("dev", 4, 3, {"ip_adapter_image": start(50, 37)})
    expected = theirs(**kwargs, generator=torch.Generator().manual_seed(3)).images
    assert_close(expected, ours(**kwargs, generator=torch.Generator().manual_seed(3)).images)
    usual = opened(oracle, image_encoder=clip)
    usual.load_ip_adapter(file)
    plain = usual(**kwargs, generator=torch.Generator().manual_seed(3)).images
    assert np.abs(plain - expected).max() > 1e-3  # the extractor was heard
    held = ours.pipeline.steering.adapters["ip_adapter_0"].encoder
    assert held is not None
    assert next(held.network.parameters()).data_ptr() == next(clip.parameters()).data_ptr()


def test_an_encoder_said_with_the_adapter_goes_before_that_of_the_model(
    oracle: Get, clip: CLIPVisionModelWithProjection, tmp_path: Path
) -> None:
    file = xlabs(tmp_path, 0)
    clip.save_pretrained(tmp_path / "encoders" / "clip")
    other = CLIPVisionModelWithProjection(clip.config).eval()
    pipe = opened(oracle, image_encoder=other, feature_extractor=CLIPImageProcessor(size=SIZE, crop_size=SIZE, **OTHER))
    pipe.load_ip_adapter(file, None, "", str(tmp_path / "encoders"), "clip", torch.float32)
    (look,) = pipe.pipeline.steering.looks([[start(50, 37)]], 1)
    pixels = CLIPImageProcessor(size=SIZE, crop_size=SIZE)(start(50, 37), return_tensors="pt").pixel_values
    with torch.no_grad():
        assert (look.vectors[0] - clip(pixels).image_embeds).abs().max() < 1e-5


def test_instantx_sees_with_siglip_and_its_head(oracle: Get, tmp_path: Path) -> None:
    instantx(tmp_path / "ip-adapter.safetensors")
    numbers = ENCODER | {"hidden_size": IMAGE}
    siglip = SiglipVisionModel(SiglipVisionConfig(**numbers, image_size=SIZE, patch_size=7)).eval()
    scatter(siglip)
    processor = SiglipImageProcessor(size={"height": SIZE, "width": SIZE}, **OTHER)
    ours = opened(oracle)
    ours.load_ip_adapter(tmp_path / "ip-adapter.safetensors", image_encoder=siglip, feature_extractor=processor)
    with torch.no_grad():
        vectors = siglip(processor(start(50, 37), return_tensors="pt").pixel_values).pooler_output
    (look,) = ours.pipeline.steering.looks([[start(50, 37)]], 1)
    assert (look.vectors[0] - vectors).abs().max() < 1e-5


def test_redux_of_parts_in_memory(oracle: Get, embedder: ReduxImageEncoder, siglip: SiglipVisionModel) -> None:
    parts = {"image_encoder": siglip, "image_embedder": embedder, "feature_extractor": redux_extractor(**OTHER)}
    names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    prior: Any = FluxPriorReduxPipeline(**parts, **{name: getattr(oracle("dev").pipe, name) for name in names})
    asked = {"max_sequence_length": 512, "prompt": "the fox reads", "num_inference_steps": 1}
    kwargs = arguments("dev", 2, 3, asked)
    given = {"image": start(50, 37), "prompt": "the fox reads"}
    expected = theirs_of(oracle, type("Prior", (), {"pipe": prior})(), "dev", given, kwargs)
    ours = opened(oracle, **parts)
    generator = torch.Generator().manual_seed(3)
    assert_close(expected, ours(**kwargs, image_prompts=start(50, 37), generator=generator).images)
    assert {"redux", "image encoder"} <= ours.pipeline.hashes.keys()
    array = np.asarray(start(50, 37), dtype=np.float32) / 255
    generator = torch.Generator().manual_seed(3)
    assert_close(expected, ours(**kwargs, image_prompts=array, generator=generator).images)

    redux = ours.bundle.redux
    assert redux is not None
    again = opened(oracle, image_embedder=redux.embedder, image_encoder=redux.encoder)  # our own are shared
    shared = again.bundle.redux
    assert shared is not None and shared.encoder.shape == redux.encoder.shape
    for one, other in ((redux.encoder, shared.encoder), (redux.embedder, shared.embedder)):
        assert next(one.parameters()).data_ptr() == next(other.parameters()).data_ptr()


def test_redux_of_a_folder_takes_another_encoder(
    oracle: Get, embedder: ReduxImageEncoder, siglip: SiglipVisionModel, tmp_path: Path
) -> None:
    embedder.save_pretrained(tmp_path / "image_embedder")
    with pytest.raises(MissingParts, match="without its picture encoder"):
        opened(oracle, image_embedder=tmp_path / "image_embedder")
    pipe = opened(oracle, image_embedder=tmp_path / "image_embedder", image_encoder=siglip)
    same = opened(oracle, redux=str(tmp_path), image_encoder=siglip, feature_extractor=redux_extractor())
    kwargs = arguments("dev", 2, 3, {"seed": 1, "image_prompts": [start(50, 37)], "num_inference_steps": 1})
    assert_close(pipe(**kwargs).images, same(**kwargs).images)


def test_what_does_not_fit_is_refused(
    oracle: Get, clip: CLIPVisionModelWithProjection, embedder: ReduxImageEncoder, siglip: SiglipVisionModel,
    tmp_path: Path,
) -> None:  # fmt: skip
    file, pipe = xlabs(tmp_path, 0), opened(oracle)
    wide = CLIPVisionModelWithProjection(CLIPVisionConfig(**ENCODER, image_size=SIZE, patch_size=7, projection_dim=9))
    large = CLIPImageProcessor(size=40, crop_size=40)
    for given, kind, said in (
        ({"image_encoder": wide}, BadWeights, "the given CLIPVisionModelWithProjection makes 9 numbers of a picture"),
        ({"image_encoder": siglip}, BadWeights, "a SiglipVisionModel is given as picture encoder"),
        ({"image_encoder": str(tmp_path)}, BadRequest, "image_encoder is a str"),
        ({"image_encoder": clip, "feature_extractor": large}, BadRequest, r"makes \(1, 3, 40, 40\) of a picture"),
        ({"image_encoder": clip, "feature_extractor": "clip"}, BadRequest, "feature_extractor is a str"),
        ({"image_encoder": clip, "feature_extractor": pipe.tokenizer}, BadRequest, "feature_extractor is a "),
        (
            {"image_encoder": clip, "image_encoder_pretrained_model_name_or_path": tmp_path},
            BadRequest,
            "two image encoders",
        ),
    ):
        with pytest.raises(kind, match=said):
            pipe.load_ip_adapter(file, **given)  # type: ignore[arg-type]
        assert not pipe.pipeline.steering.adapters
    other = ReduxImageEncoder(redux_dim=48, txt_in_features=TINY.text + 8)
    narrow = SiglipVisionModel(SiglipVisionConfig(**ENCODER, image_size=SIZE, patch_size=7))
    for parts, kind, said in (
        ({"image_embedder": other, "image_encoder": siglip}, BadWeights, "ReduxImageEncoder gives 32 text channels"),
        ({"image_embedder": embedder, "image_encoder": narrow}, BadWeights, "SiglipVisionModel gives 24 channels"),
        ({"image_embedder": siglip, "image_encoder": siglip}, BadWeights, "a SiglipVisionModel is given as Redux"),
        ({"image_embedder": embedder}, MissingParts, "without its picture encoder"),
        ({"image_embedder": embedder, "redux": "redux"}, BadRequest, "both given"),
        ({"image_embedder": 3}, BadRequest, "a part is given as int"),
        (
            {"image_embedder": embedder, "image_encoder": siglip, "feature_extractor": large},
            BadRequest,
            "pictures are 44 px each way",
        ),
    ):
        with pytest.raises(kind) as error:
            opened(oracle, **parts)  # type: ignore[arg-type]
        assert said in str(error.value)
