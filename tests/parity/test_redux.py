"""SigLIP against transformers, Redux against diffusers' FluxPriorReduxPipeline before its FluxPipeline."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPriorReduxPipeline
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors.torch import load_file, save_file
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from fluxone import FluxPipeline
from fluxone.errors import BadRequest
from fluxone.nn.siglip import SiglipEncoder
from fluxone.shapes import SiglipShape
from parity.conftest import TINIES, Oracle
from parity.equal import agree, scatter
from parity.test_pipeline import arguments, assert_close, start

Get = Callable[[str], Oracle]
Load = Callable[[str], FluxPipeline]
NUMBERS = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 3}
SIDE = {"image_size": 44, "patch_size": 14}  # three patches each way, and 2 px that none sees


def vision(**more: Any) -> SiglipVisionModel:
    model = SiglipVisionModel(SiglipVisionConfig(**(NUMBERS | SIDE | more))).eval()
    scatter(model)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("more", [{}, {"hidden_act": "gelu", "layer_norm_eps": 1e-3, "image_size": 28}])
def test_siglip(dtype: torch.dtype, more: dict[str, Any]) -> None:
    theirs = vision(**more).to(dtype)
    config = theirs.config
    shape = SiglipShape(
        hidden=48, layers=2, heads=3, mlp=80, size=config.image_size, patch=14, activation=config.hidden_act,
        eps=config.layer_norm_eps,
    )  # fmt: skip
    ours = SiglipEncoder(shape).to(dtype)
    state = {f"vision_model.{k}": v for k, v in theirs.state_dict().items() if not k.startswith("head.")}
    ours.load_state_dict(state)
    pixels = torch.randn(2, 3, config.image_size, config.image_size, dtype=dtype, generator=torch.manual_seed(1))
    with torch.no_grad():
        agree(ours(pixels), theirs(pixels).last_hidden_state)


def test_siglip_of_the_published_size_has_the_published_names() -> None:
    """Redux's encoder is so400m-patch14-384: every name and shape, on no memory, and 729 tokens."""
    with torch.device("meta"):
        ours = SiglipEncoder(SiglipShape())
        theirs = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16,
                image_size=384, patch_size=14, vision_use_head=False,
            )
        )  # fmt: skip
    assert SiglipShape().tokens == 729
    wanted = {f"vision_model.{name}": value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == wanted


@dataclass(frozen=True)
class Prior:
    """A tiny Redux as diffusers has it, with the base model's text encoders, and its folder without them."""

    pipe: FluxPriorReduxPipeline
    folder: Path


@pytest.fixture(scope="module")
def prior(oracle: Get, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Prior]:
    made: dict[str, Prior] = {}

    def get(name: str) -> Prior:
        if name not in made:
            torch.manual_seed(5)
            embedder = ReduxImageEncoder(redux_dim=48, txt_in_features=TINIES[name].text).eval()
            scatter(embedder)
            side = {"height": SIDE["image_size"], "width": SIDE["image_size"]}
            parts = {
                "image_encoder": vision(),
                "feature_extractor": SiglipImageProcessor(size=side),
                "image_embedder": embedder,
            }
            folder = tmp_path_factory.mktemp(f"redux-{name}")
            FluxPriorReduxPipeline(**parts).save_pretrained(folder)
            base = oracle(name).pipe
            names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
            words = {part: getattr(base, part) for part in names}
            made[name] = Prior(FluxPriorReduxPipeline(**parts, **words), folder)
        return made[name]

    return get


# name -> tiny model, arguments of the prior and of ours, arguments of both pipelines
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "one": ("dev", {}, {}),
    "scales": ("dev", {"prompt_embeds_scale": 0.7, "pooled_prompt_embeds_scale": 1.3}, {}),
    "two, weighted": (
        "dev",
        {
            "image": [start(50, 37), start(20, 60, 1)],
            "prompt_embeds_scale": [0.8, -0.3],
            "pooled_prompt_embeds_scale": [0.5, 0.4],
        },
        {},
    ),
    "two, just added": ("odd", {"image": [start(50, 37), start(20, 60, 1)]}, {}),
    "two of one": ("schnell", {}, {"num_images_per_prompt": 2, "guidance_scale": 0.0}),
    "true cfg": ("dev", {}, {"negative_prompt": "blur", "true_cfg_scale": 3.0}),
}


@pytest.fixture(scope="module")
def load(oracle: Get, prior: Callable[[str], Prior]) -> Callable[[str], FluxPipeline]:
    made: dict[str, FluxPipeline] = {}

    def get(tiny: str) -> FluxPipeline:
        if tiny not in made:
            folder, redux = str(oracle(tiny).folder), str(prior(tiny).folder)
            made[tiny] = FluxPipeline.from_pretrained(folder, redux=redux, torch_dtype=torch.float32, device="cpu")
        return made[tiny]

    return get


def theirs_of(oracle: Get, prior: Prior, tiny: str, given: dict[str, Any], kwargs: dict[str, Any]) -> Any:
    """Diffusers' two pipelines; the prior's own length of text is fixed at 512."""
    out = prior.pipe(**given)
    rest = {key: value for key, value in kwargs.items() if key != "prompt"}
    return oracle(tiny).pipe(
        **rest,
        prompt_embeds=out.prompt_embeds,
        pooled_prompt_embeds=out.pooled_prompt_embeds,
        generator=torch.Generator().manual_seed(3),
    ).images


@pytest.mark.parametrize("case", CASES)
def test_equal_to_diffusers(oracle: Get, prior: Callable[[str], Prior], load: Load, case: str) -> None:
    tiny, more, both = CASES[case]
    image = more.get("image", start(50, 37))
    scales = {key: value for key, value in more.items() if key != "image"}
    prompt = "the fox reads"
    kwargs = arguments(tiny, 2, 3, {"max_sequence_length": 512, "prompt": prompt, "num_inference_steps": 1} | both)
    words = [prompt] * len(image) if isinstance(image, list) else prompt
    expected = theirs_of(oracle, prior(tiny), tiny, {"image": image, "prompt": words} | scales, kwargs)
    ours = load(tiny)
    generator = torch.Generator().manual_seed(3)
    assert_close(expected, ours(**kwargs, **scales, image_prompts=image, generator=generator).images)


def test_without_words_it_speaks_after_zeros(oracle: Get, prior: Callable[[str], Prior], load: Load) -> None:
    """As diffusers' prior without text encoders, whose zeros have the real model's widths."""
    kwargs = arguments("dev", 3, 3, {"max_sequence_length": 40})
    del kwargs["prompt"]
    kept = prior("dev").pipe
    pixels = kept.feature_extractor.preprocess(images=start(50, 37), return_tensors="pt").pixel_values
    with torch.no_grad():
        seen = kept.image_embedder(kept.image_encoder(pixels).last_hidden_state).image_embeds
    zeros = torch.zeros(1, 40, TINIES["dev"].text)
    expected = oracle("dev").pipe(
        **kwargs,
        prompt_embeds=torch.cat((zeros, seen), dim=1),
        pooled_prompt_embeds=torch.zeros(1, TINIES["dev"].pooled),
        generator=torch.Generator().manual_seed(3),
    ).images
    generator = torch.Generator().manual_seed(3)
    assert_close(expected, load("dev")(**kwargs, image_prompts=[start(50, 37)], generator=generator).images)


def test_a_file_of_its_own_with_its_encoder_near(
    oracle: Get, prior: Callable[[str], Prior], load: Load, tmp_path: Path
) -> None:
    """Black Forest Labs' file holds the embedder alone; ComfyUI keeps the encoder in clip_vision/, with its prefix."""
    folder = prior("dev").folder
    tensors = load_file(folder / "image_embedder" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "style_models").mkdir()
    (tmp_path / "clip_vision").mkdir()
    save_file(tensors, tmp_path / "style_models" / "flux1-redux-dev.safetensors")
    seeing = load_file(folder / "image_encoder" / "model.safetensors")
    prefixed = {f"vision_model.{name}": value for name, value in seeing.items()}
    save_file(prefixed, tmp_path / "clip_vision" / "sigclip_vision.safetensors")
    kwargs = arguments("dev", 3, 3, {"image_prompts": [start(50, 37)], "seed": 1})
    whole = load("dev")(**kwargs).images
    (tmp_path / "clip_vision" / "config.json").write_text((folder / "image_encoder" / "config.json").read_text())
    file = str(tmp_path / "style_models" / "flux1-redux-dev.safetensors")
    apart = FluxPipeline.from_pretrained(str(oracle("dev").folder), redux=file, torch_dtype=torch.float32, device="cpu")
    assert np.array_equal(apart(**kwargs).images, whole)


def test_it_is_found_where_it_lies_and_loaded_when_a_picture_speaks(
    oracle: Get, prior: Callable[[str], Prior], load: Load, tmp_path: Path
) -> None:
    kwargs = arguments("dev", 3, 3, {"seed": 1})
    spoken = kwargs | {"image_prompts": [start(50, 37)]}
    plain, whole = load("dev")(**kwargs).images, load("dev")(**spoken).images
    model, redux = oracle("dev").folder, prior("dev").folder
    beside, inside, below = (tmp_path / name for name in ("beside", "inside", "below"))
    for folder in (beside / "model", inside, below):
        folder.parent.mkdir(exist_ok=True)
        shutil.copytree(model, folder)
    (beside / "a-file-of-no-use.safetensors").touch()
    (beside / "broken-redux").mkdir()
    (beside / "broken-redux" / "model_index.json").write_text("{")
    shutil.copytree(redux, beside / "redux")
    shutil.copytree(redux, below / "redux")
    for part in ("image_embedder", "image_encoder", "feature_extractor"):
        shutil.copytree(redux / part, inside / part)
    for place in (beside / "model", beside / "redux", inside, below):
        pipe = FluxPipeline.from_pretrained(place, torch_dtype=torch.float32, device="cpu")
        alone = pipe(**kwargs).images
        if place != beside / "redux":  # whose own row has other defaults for what is not said
            assert np.array_equal(alone, plain) and pipe.pipeline.prompting.redux is None
        assert np.array_equal(pipe(**spoken).images, whole)
        assert {"redux", "image encoder"} <= pipe.pipeline.hashes.keys()
        pipe.enable_sequential_cpu_offload()
        assert np.array_equal(pipe(**spoken).images, whole)


def test_a_redux_for_another_model_is_not_found(oracle: Get, prior: Callable[[str], Prior], tmp_path: Path) -> None:
    widths = {name: TINIES[name].text for name in TINIES}
    other = next(name for name in widths if widths[name] != widths["dev"])
    shutil.copytree(oracle(other).folder, tmp_path / "model")
    shutil.copytree(prior("dev").folder, tmp_path / "redux")
    pipe = FluxPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32, device="cpu")
    with pytest.raises(BadRequest, match="takes no image prompt"):
        pipe("a fox", image_prompts=[start(50, 37)])
