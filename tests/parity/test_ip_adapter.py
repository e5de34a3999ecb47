"""IP-Adapters beside tiny models: XLabs' against diffusers' own, InstantX's against hooks that do as its facts say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from fluxone import FluxPipeline
from fluxone.errors import BadRequest, MissingParts
from fluxone.steering.pictures import clip_pixels
from parity.conftest import TINIES, Oracle, build
from parity.equal import scatter
from parity.test_pipeline import arguments, assert_close, start

Get = Callable[[str], Oracle]
TINY = TINIES["dev"]
WIDTH = TINY.heads * sum(TINY.axes)
IMAGE = 12  # numbers that the picture encoder makes of a picture
SIZE = 28  # px


def random(source: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=source) / shape[-1] ** 0.5


def xlabs(folder: Path, seed: int) -> Path:
    """An adapter in XLabs' names; diffusers takes all but one size for one of four tokens."""
    source = torch.Generator().manual_seed(seed)
    state = {
        "ip_adapter_proj_model.proj.weight": random(source, 4 * TINY.text, IMAGE),
        "ip_adapter_proj_model.proj.bias": random(source, 4 * TINY.text),
        "ip_adapter_proj_model.norm.weight": 1 + random(source, TINY.text),
        "ip_adapter_proj_model.norm.bias": random(source, TINY.text),
    }
    for i in range(TINY.doubles):
        for kind in "kv":
            name = f"double_blocks.{i}.processor.ip_adapter_double_stream_{kind}_proj"
            state |= {f"{name}.weight": 2 * random(source, WIDTH, TINY.text), f"{name}.bias": random(source, WIDTH)}
    save_file(state, folder / f"ip_adapter_{seed}.safetensors")
    return folder / f"ip_adapter_{seed}.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters, and the encoder where diffusers' repositories have it."""
    folder = tmp_path_factory.mktemp("xlabs")
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            image_size=SIZE,
            patch_size=7,
            projection_dim=IMAGE,
        )
    )
    scatter(encoder)
    encoder.save_pretrained(folder / "image_encoder")
    for seed in (0, 1):
        xlabs(folder, seed)
    return folder


def theirs(place: Path, *seeds: int) -> Any:
    pipe = build(TINY)
    pipe.load_ip_adapter(
        str(place),
        weight_name=[f"ip_adapter_{seed}.safetensors" for seed in seeds],
        image_encoder_pretrained_model_name_or_path=str(place),
        image_encoder_subfolder="image_encoder",
        image_encoder_dtype=torch.float32,
    )
    return pipe


# name -> seeds of the adapters, scale, other arguments
CASES: dict[str, tuple[tuple[int, ...], Any, dict[str, Any]]] = {
    "one": ((0,), 1.0, {"ip_adapter_image": start(50, 37)}),
    "weaker, one block": ((0,), [[0.4]], {"ip_adapter_image": start(30, 64)}),
    "two pictures for one": ((0,), 0.7, {"ip_adapter_image": [[start(50, 37), start(40, 40, 1)]]}),
    "two adapters": ((0, 1), [0.7, 0.3], {"ip_adapter_image": [start(50, 37), start(40, 40, 1)]}),
    "true cfg, black on the other side": (
        (0,),
        0.8,
        {"ip_adapter_image": start(50, 37), "negative_prompt": "blur", "true_cfg_scale": 3.0},
    ),
    "true cfg, another picture": (
        (0,),
        0.8,
        {
            "ip_adapter_image": start(50, 37),
            "negative_ip_adapter_image": start(50, 37, 2),
            "negative_prompt": "blur",
            "true_cfg_scale": 3.0,
        },
    ),
    "two prompts, two each": (
        (0,),
        0.8,
        {"ip_adapter_image": start(50, 37), "prompt": ["the fox", "a dog"], "num_images_per_prompt": 2},
    ),
    "vectors": ((0,), 0.8, {"ip_adapter_image_embeds": [torch.linspace(-1, 1, 2 * IMAGE).reshape(1, 2, IMAGE)]}),
}


@pytest.mark.parametrize("case", CASES)
def test_xlabs(oracle: Get, place: Path, case: str) -> None:
    seeds, scale, more = CASES[case]
    reference = theirs(place, *seeds)
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, device="cpu")
    ours.load_ip_adapter(str(place), weight_name=[f"ip_adapter_{seed}.safetensors" for seed in seeds])
    for pipe in (reference, ours):
        pipe.set_ip_adapter_scale(scale)
    kwargs = arguments("dev", 4, 3, more)
    assert_close(*(pipe(**kwargs, generator=torch.Generator().manual_seed(3)).images for pipe in (reference, ours)))


@pytest.mark.parametrize("size", [(50, 37), (28, 28), (300, 31), (9, 200)])
def test_pictures_are_cut_as_transformers_does(size: tuple[int, int]) -> None:
    picture = start(*size)
    wanted = CLIPImageProcessor(size=SIZE, crop_size=SIZE)(picture, return_tensors="pt").pixel_values
    assert (clip_pixels(picture, SIZE) - wanted).abs().max() < 1e-5
    array = np.asarray(picture, dtype=np.float32) / 255
    assert torch.equal(clip_pixels(array, SIZE), clip_pixels(picture, SIZE))
    assert torch.equal(clip_pixels(torch.from_numpy(array).movedim(-1, 0), SIZE), clip_pixels(picture, SIZE))


def test_it_leaves_nothing_behind(oracle: Get, place: Path) -> None:
    kwargs = arguments("dev", 4, 3, {"seed": 1})
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    plain = pipe(**kwargs).images
    pipe.load_ip_adapter(place / "ip_adapter_0.safetensors")
    assert np.array_equal(pipe(**kwargs).images, plain)  # no picture, no change
    one = pipe(**kwargs, ip_adapter_image=start(50, 37)).images
    assert np.abs(one - plain).max() > 0.01
    pipe.set_ip_adapter_scale(0.0)
    assert np.array_equal(pipe(**kwargs, ip_adapter_image=start(50, 37)).images, plain)
    pipe.unload_ip_adapter()
    assert np.array_equal(pipe(**kwargs).images, plain)
    hooks = (module._forward_hooks or module._forward_pre_hooks for module in pipe.transformer.modules())
    assert not any(hooks)
    with pytest.raises(BadRequest, match="none is loaded"):
        pipe(**kwargs, ip_adapter_image=start(50, 37))


def test_an_adapter_without_encoder_takes_vectors_only(oracle: Get, tmp_path: Path) -> None:
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    pipe.load_ip_adapter(xlabs(tmp_path, 0))
    kwargs = arguments("dev", 4, 3, {"seed": 1})
    with pytest.raises(MissingParts, match="no encoder for its pictures"):
        pipe(**kwargs, ip_adapter_image=start(50, 37))
    with pytest.raises(BadRequest, match="are of shape"):
        pipe(**kwargs, ip_adapter_image_embeds=torch.ones(1, 3))
    with pytest.raises(BadRequest, match="2 pictures for 1 IP-Adapters"):
        pipe(**kwargs, ip_adapter_image_embeds=[torch.ones(1, IMAGE)] * 2)
    with pytest.raises(BadRequest, match="2 scales for"):
        pipe.set_ip_adapter_scale([0.1, 0.2])


def instantx(file: Path) -> dict[str, torch.Tensor]:
    """An adapter in InstantX's names: a deep projection to six tokens, keys and values of every block."""
    source = torch.Generator().manual_seed(5)
    state = {
        "image_proj.proj.0.weight": random(source, 2 * IMAGE, IMAGE),
        "image_proj.proj.0.bias": random(source, 2 * IMAGE),
        "image_proj.proj.2.weight": random(source, 6 * TINY.text, 2 * IMAGE),
        "image_proj.proj.2.bias": random(source, 6 * TINY.text),
        "image_proj.norm.weight": 1 + random(source, TINY.text),
        "image_proj.norm.bias": random(source, TINY.text),
    }
    for i in range(TINY.doubles + TINY.singles):
        for kind in "kv":
            state[f"ip_adapter.{i}.to_{kind}_ip.weight"] = 2 * random(source, WIDTH, TINY.text)
    save_file(state, file)
    return state


def hooked(pipe: Any, state: dict[str, torch.Tensor], vectors: torch.Tensor, scale: float) -> None:
    """Let diffusers' blocks attend as InstantX's do: keys normalised, the sum before the attention is projected."""
    wide = F.gelu(F.linear(vectors, state["image_proj.proj.0.weight"], state["image_proj.proj.0.bias"]))
    tokens = F.linear(wide, state["image_proj.proj.2.weight"], state["image_proj.proj.2.bias"])
    tokens = tokens.reshape(1, -1, TINY.text)
    tokens = F.layer_norm(tokens, (TINY.text,), state["image_proj.norm.weight"], state["image_proj.norm.bias"])

    def heads(rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(-1, (TINY.heads, -1)).transpose(1, 2)

    def found(i: int, attn: Any, x: torch.Tensor) -> torch.Tensor:
        queries = attn.norm_q(attn.to_q(x).unflatten(-1, (TINY.heads, -1))).transpose(1, 2)
        keys = heads(F.linear(tokens, state[f"ip_adapter.{i}.to_k_ip.weight"]))
        keys = keys * torch.rsqrt(keys.pow(2).mean(-1, keepdim=True) + 1e-5)
        values = heads(F.linear(tokens, state[f"ip_adapter.{i}.to_v_ip.weight"]))
        weights = (queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5).softmax(-1)
        return scale * (weights @ values).transpose(1, 2).flatten(2)

    held: dict[int, torch.Tensor] = {}
    network = pipe.transformer
    for i, block in enumerate((*network.transformer_blocks, *network.single_transformer_blocks)):

        def before(attn: Any, args: Any, kwargs: Any, i: int = i) -> None:
            held[i] = found(i, attn, kwargs["hidden_states"])

        block.attn.register_forward_pre_hook(before, with_kwargs=True)
        if hasattr(block.attn, "to_out"):
            block.attn.to_out[0].register_forward_pre_hook(lambda layer, args, i=i: (args[0] + held[i],))
        else:
            block.attn.register_forward_hook(lambda attn, args, result, i=i: result + held[i])


def test_instantx(oracle: Get, tmp_path: Path) -> None:
    state = instantx(tmp_path / "ip-adapter.safetensors")
    vectors = torch.linspace(-1, 1, IMAGE)[None]
    reference = build(TINY)
    hooked(reference, state, vectors, 0.7)
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, device="cpu")
    ours.load_ip_adapter(tmp_path / "ip-adapter.safetensors")
    ours.set_ip_adapter_scale(0.7)
    kwargs = arguments("dev", 4, 3, {})
    expected = reference(**kwargs, generator=torch.Generator().manual_seed(3)).images
    found = ours(**kwargs, ip_adapter_image_embeds=vectors, generator=torch.Generator().manual_seed(3)).images
    assert_close(expected, found)
    plain = oracle("dev").pipe(**kwargs, generator=torch.Generator().manual_seed(3)).images
    assert np.abs(expected - plain).max() > 0.01


def test_instantx_looks_with_siglip(oracle: Get, tmp_path: Path) -> None:
    instantx(tmp_path / "ip-adapter.safetensors")
    siglip = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=IMAGE,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            image_size=SIZE,
            patch_size=7,
        )
    ).eval()
    scatter(siglip)
    siglip.save_pretrained(tmp_path / "image_encoder")
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, device="cpu")
    ours.load_ip_adapter(tmp_path / "ip-adapter.safetensors")
    pictures = [start(50, 37), start(20, 90, 1)]
    processor = SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    with torch.no_grad():
        vectors = siglip(processor(pictures, return_tensors="pt").pixel_values).pooler_output
    (look,) = ours.pipeline.steering.looks([pictures], 1)
    assert (look.vectors[0] - vectors).abs().max() < 1e-5
    kwargs = arguments("dev", 4, 3, {"seed": 1})
    made = ours(**kwargs, ip_adapter_image=[pictures]).images
    assert np.abs(made - ours(**kwargs, ip_adapter_image_embeds=vectors).images).max() < 1e-4
    assert np.abs(made - ours(**kwargs).images).max() > 0.01
