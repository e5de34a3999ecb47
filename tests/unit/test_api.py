"""The Python door: what it takes, what it refuses, where it runs. Its pictures are compared in tests/parity."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fluxone import FluxPipeline, Recipe, assemble
from fluxone.api import FluxPipelineOutput
from fluxone.call import Call
from fluxone.errors import BadFile, BadRequest, BrokenModel, UnknownName, UserError
from fluxone.geometry import Resolution
from fluxone.request import Region, Request
from fluxone.text.wildcards import drawn
from fluxone.variants import VARIANTS
from fluxone.weights.save import save_folder
from unit.tiny import TINY, bundle, pipeline

ASKED = {"prompt": "a red car", "height": 32, "width": 48, "num_inference_steps": 2, "seed": 1, "output_type": "np"}
INTERFACE = """
    prompt prompt_2 negative_prompt true_cfg_scale height width num_inference_steps sigmas guidance_scale
    num_images_per_prompt seed generator latents max_sequence_length image strength mask_image control_image
    reference_images image_prompts image_prompt_strength sampler output_type callback_on_step_end auto_resize
    return_dict prompt_embeds pooled_prompt_embeds
"""
LOADING = """
    torch_dtype device quant offload compile attention variant vae text_encoder text_encoder_2 token
"""


@pytest.fixture
def pipe(tmp_path: Path) -> FluxPipeline:
    return FluxPipeline(pipeline(tmp_path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in a diffusers folder."""
    parts = bundle(tmp_path_factory.mktemp("words"))
    place = tmp_path_factory.mktemp("tiny") / "model"
    words = {"tokenizer": parts.clip_tokenizer, "tokenizer_2": parts.t5_tokenizer}
    save_folder(
        place,
        variant=TINY,
        transformer=parts.transformer,
        autoencoder=parts.autoencoder,
        t5=parts.t5,
        clip=parts.clip,
        tokenizers=words,
    )
    return place


def test_the_signatures_are_those_of_the_interface() -> None:
    call = inspect.signature(FluxPipeline.__call__).parameters
    assert set(INTERFACE.split()) <= set(call)
    assert call["num_images_per_prompt"].default == 1 and call["output_type"].default == "pil"
    assert call["prompt"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    load = inspect.signature(FluxPipeline.from_pretrained).parameters
    assert set(LOADING.split()) <= set(load)
    assert all(load[name].default in (None, False) for name in LOADING.split())


def test_every_argument_of_the_call_is_checked() -> None:
    assert set(inspect.signature(FluxPipeline.__call__).parameters) - {"self"} == {field.name for field in fields(Call)}


def test_a_folder_is_loaded_and_draws(folder: Path) -> None:
    pipe = FluxPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, device="cpu")
    out = pipe(**ASKED)
    assert isinstance(out, FluxPipelineOutput) and out.images.shape == (1, 32, 48, 3)
    (same,) = FluxPipeline.from_pretrained(str(folder), torch_dtype="float32")(**ASKED, return_dict=False)
    assert np.array_equal(same, out.images)
    lower = assemble(str(folder), Recipe(dtype="float32", device="cpu"))
    assert lower.dtype == torch.float32 and lower.bundle.hashes.keys() == {"transformer", "autoencoder", "t5", "clip"}


def test_the_row_that_is_named_gives_the_defaults(folder: Path) -> None:
    plain, named = (FluxPipeline.from_pretrained(str(folder), variant=name).pipeline for name in (None, "mini"))
    assert plain.variant.steps == VARIANTS["dev"].steps
    assert named.variant.steps == VARIANTS["mini"].steps and named.variant.shape == TINY.shape


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"torch_dtype": torch.int8}, UnknownName, "no dtype is called 'int8'"),
        ({"torch_dtype": "bfloat"}, UnknownName, "did you mean 'bfloat16'"),
        ({"device": "tpu"}, BadRequest, "device is 'tpu'"),
        ({"quant": "nf5"}, UnknownName, "did you mean 'nf4'"),
        ({"offload": "disc"}, UnknownName, "no offload is called 'disc'"),
        ({"attention": "flash9"}, UnknownName, "no attention backend"),
        ({"variant": "devv"}, UnknownName, "did you mean 'dev'"),
        ({"compat": "a1111"}, UnknownName, "no compat profile"),
        ({"vae": 5}, BadRequest, "a part is given as int"),
        ({"compile": True, "offload": "block"}, BadRequest, "compile and offload block"),
    ],
)
def test_loading_refuses_what_it_cannot(folder: Path, arguments: Any, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        FluxPipeline.from_pretrained(str(folder), **arguments)


def test_a_device_that_is_not_there_is_said(folder: Path, pipe: FluxPipeline) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(BadRequest, match="no cuda"):
        FluxPipeline.from_pretrained(str(folder), device="cuda")
    with pytest.raises(BadRequest, match="cuda"):
        pipe.to("cuda")
    with pytest.raises(BadRequest, match="cuda:x cannot be used"):
        pipe.to("cuda:x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"generator": torch.Generator()}, "seed and generator"),
        ({"strength": 0.5}, "without an image"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"height": 0}, "height is 0"),
        ({"width": 10**6}, "width is 1000000"),
        ({"height": 8}, "less than one token"),
        ({"num_inference_steps": 0}, "steps is 0"),
        ({"guidance_scale": float("nan")}, "guidance is nan"),
        ({"max_sequence_length": 0}, "max_sequence_length is 0"),
        ({"sigmas": [0.5, 0.9]}, "sigmas must fall"),
        ({"sampler": "eular"}, "did you mean 'euler'"),
        ({"schedule": "karras"}, "no schedule"),
        ({"output_type": "jpg"}, "no output type"),
        ({"latents": torch.zeros(1, 5, 16)}, r"\(1, 6, 16\) or \(1, 4, 4, 6\) fit"),
        ({"prompt": ["a", 5]}, "prompt is"),
        ({"prompt": []}, "prompt is"),
        ({"prompt": "a" * 32_001}, "32001 characters"),
        ({"prompt_2": ["a", "b"]}, "1 of prompt, but 2 of prompt_2"),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 3, 5), "pooled_prompt_embeds": torch.zeros(1, 16)},
            "do not fit",
        ),
        ({"negative_prompt": ["a", "b", "c"], "true_cfg_scale": 2.0, "prompt": ["a", "b"]}, "3 negative prompts for 2"),
        ({"image": "a.png"}, "picture is a str"),
        ({"image": []}, "no picture"),
        ({"image": np.full((8, 8, 3), 200.0)}, "values run from 200"),
        ({"image": torch.zeros(8, 8)}, "three colours"),
        ({"image": [Image.new("RGB", (9, 9))] * 2}, "2 images for 1 pictures"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "cannot read noise"),
        ({"callback_on_step_end_tensor_inputs": "latents"}, "cannot read latents; give a list of latents and prompt"),
        ({"callback_on_step_end_tensor_inputs": None}, "cannot read None"),
        ({"wildcards": 3}, "wildcards is 3; give a folder"),
        ({"regions": [Region(prompt="fox", mask="left")]}, "the region 'fox' has a str as its mask"),  # type: ignore[arg-type]
        ({"num_images_per_prompt": 10**9}, "use a whole number from 1 to 256"),
        ({"num_images_per_prompt": 1.5}, "num_images_per_prompt is 1.5; use a whole number"),
        ({"num_images_per_prompt": None}, "num_images_per_prompt is None"),
        ({"max_sequence_length": "64"}, "max_sequence_length is '64'; use a whole number from 1 to 512"),
        ({"seed": None, "generator": 3}, r"generator is 3; give a torch\.Generator"),
        ({"seed": None, "generator": ["a"]}, "generator is 'a'"),
        ({"seed": None, "generator": []}, "0 generators for 1 pictures"),
        ({"latents": np.zeros((1, 6, 16))}, "latents is ndarray; give a torch tensor"),
        ({"prompt": None, "prompt_embeds": "a", "pooled_prompt_embeds": 3}, "prompt_embeds is str"),
        ({"pooled_prompt_embeds": torch.zeros(1, 16)}, "pooled_prompt_embeds is given without prompt_embeds"),
        ({"sigmas": 0.5}, "sigmas is 0.5; give falling numbers"),
        ({"sigmas": [1.0, "x"]}, "sigmas is"),
        ({"sigmas": "abc"}, "sigmas is 'abc'"),
        ({"callback_on_step_end": 3}, "callback_on_step_end is 3; give a function"),
        ({"callback_on_step_end": lambda *_: 3}, "a callback gave back 3"),
        ({"callback_on_step_end": lambda *_: {"latents": "x"}}, "gave back latents 'x'"),
        ({"callback_on_step_end": lambda *_: {"latents": torch.zeros(1)}}, r"their shape is \(1, 6, 16\)"),
        ({"joint_attention_kwargs": {"a": 1}}, "joint_attention_kwargs holds a, of which nothing is known"),
        ({"joint_attention_kwargs": {"scale": "x"}}, "scale of joint_attention_kwargs is 'x'"),
        ({"joint_attention_kwargs": 3}, "joint_attention_kwargs is 3"),
        ({"cfg_interval": 3}, "cfg_interval is 3; give two numbers"),
        ({"cfg_interval": (0.9, 0.1)}, "cfg interval is 0.9 to 0.1"),
        ({"nag_scale": 0.5}, r"nag is 0\.5"),
        ({"regions": "left"}, "regions is 'left'; give a list of fluxone"),
        ({"ultra": "tilde"}, "did you mean 'tiled'"),
        ({"ultra": "tiled", "height": 64, "sigmas": [1.0]}, "ultra is given with noise levels of its own"),
        ({"ultra": "tiled", "image": torch.ones(3, 8, 8), "mask_image": torch.ones(8, 8)}, "ultra is given with mask"),
        ({"controlnet_conditioning_scale": 1.0}, "controlnet_conditioning_scale is given without a control picture"),
        ({"control_mode": "depth"}, "control_mode is given without a control picture"),
    ],
)
def test_arguments_that_cannot_be_are_said(pipe: FluxPipeline, arguments: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pipe(**(ASKED | arguments))


def test_numbers_of_numpy_are_numbers(pipe: FluxPipeline) -> None:
    asked = ASKED | {"height": np.int64(32), "num_inference_steps": np.int32(2), "seed": np.int64(1)}
    expected = pipe(**ASKED, guidance_scale=2.5).images
    assert np.array_equal(pipe(**asked, guidance_scale=np.float32(2.5)).images, expected)


def test_an_argument_that_nobody_knows_is_an_error(pipe: FluxPipeline) -> None:
    with pytest.raises(TypeError, match="num_inference_stepz"):
        pipe("a red car", num_inference_stepz=4)


def test_nothing_is_drawn_when_a_weight_is_broken(tmp_path: Path) -> None:
    pipe = FluxPipeline(pipeline(tmp_path))
    pipe.pipeline.autoencoder.decoder.conv_out.bias.data[0] = float("nan")
    with pytest.raises(BrokenModel, match=r"decoder\.conv_out\.bias"):
        pipe(**ASKED)


def test_latents_that_are_not_finite_make_no_picture(pipe: FluxPipeline) -> None:
    with pytest.raises(BrokenModel, match="not finite"):
        pipe(**(ASKED | {"latents": torch.full((1, 6, 16), float("nan"))}))


def test_moving_and_offloading_change_not_one_bit(pipe: FluxPipeline) -> None:
    expected = pipe(**ASKED).images
    changes: list[Any] = [
        pipe.enable_model_cpu_offload,
        pipe.enable_sequential_cpu_offload,
        lambda: pipe.to("cpu"),
        lambda: pipe.to(torch.device("cpu"), torch.float32),
        pipe.enable_vae_slicing,
        pipe.disable_vae_slicing,
        pipe.enable_vae_tiling,
        pipe.disable_vae_tiling,
        pipe.vae.enable_tiling,
        pipe.vae.enable_slicing,
        pipe.vae.disable_slicing,
        pipe.vae.disable_tiling,
        pipe.set_progress_bar_config,
    ]
    for change in changes:
        change()
        assert np.array_equal(pipe(**ASKED).images, expected)
    assert pipe.to("cpu") is pipe


def test_channels_last_is_harmless(pipe: FluxPipeline) -> None:
    expected = pipe(**ASKED).images
    pipe.transformer.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    assert np.abs(pipe(**ASKED).images - expected).max() < 1e-5


def test_offload_modes_can_be_chosen_when_loading(folder: Path) -> None:
    for mode in ("none", "model", "block"):
        pipe = FluxPipeline.from_pretrained(str(folder), offload=mode, device="cpu")
        assert pipe.pipeline.on_device.mode == mode


def test_every_block_is_compiled_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That they are told to; torch's compiler itself takes a minute and does not go with checked shapes."""
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block: compiled.append(block))
    FluxPipeline.from_pretrained(str(folder), device="cpu")
    assert not compiled
    pipe = FluxPipeline.from_pretrained(str(folder), device="cpu", compile=True)
    assert compiled == [*pipe.transformer.double_blocks, *pipe.transformer.single_blocks]
    compiled.clear()
    pipe.transformer = torch.compile(pipe.transformer)
    assert compiled == [*pipe.transformer.double_blocks, *pipe.transformer.single_blocks]
    assert pipe.transformer is pipe.pipeline.transformer
    with pytest.raises(BadRequest, match="cannot be replaced by a Linear"):
        pipe.transformer = torch.nn.Linear(1, 1)


def test_another_dtype_needs_another_loading(pipe: FluxPipeline) -> None:
    with pytest.raises(BadRequest, match=r"load it with torch_dtype=torch\.float16"):
        pipe.to(torch.float16)


def test_the_parts_are_where_scripts_look_for_them(pipe: FluxPipeline) -> None:
    assert isinstance(pipe.transformer, torch.nn.Module) and isinstance(pipe.vae, torch.nn.Module)
    assert pipe.text_encoder is pipe.bundle.clip and pipe.text_encoder_2 is pipe.bundle.t5
    assert pipe.tokenizer is not None and pipe.tokenizer_2 is not None
    assert (pipe.vae_scale_factor, pipe.device, pipe.dtype) == (8, torch.device("cpu"), torch.float32)


def test_a_callback_may_replace_latents(pipe: FluxPipeline) -> None:
    def answer(**tensors: torch.Tensor) -> Any:
        return lambda pipe, step, timestep, told: told | tensors

    expected = pipe(**ASKED).images
    assert np.array_equal(pipe(**ASKED, callback_on_step_end=answer()).images, expected)
    assert np.array_equal(pipe(**ASKED, callback_on_step_end=lambda *_: None).images, expected)
    grey = pipe(**ASKED, callback_on_step_end=answer(latents=torch.zeros(1, 6, 16))).images
    assert not np.allclose(grey, expected, atol=1e-2)
    with pytest.raises(BadRequest, match="gave back pooled, which cannot be replaced"):
        pipe(**ASKED, callback_on_step_end=answer(pooled=torch.zeros(1, 16)))
    with pytest.raises(BadRequest, match=r"their shape is \(1, 8, 24\)"):
        pipe(**ASKED, callback_on_step_end=answer(prompt_embeds=torch.zeros(1, 7, 24)))


def test_a_callback_may_change_the_words_in_place(pipe: FluxPipeline) -> None:
    def louder(pipe: FluxPipeline, step: int, timestep: torch.Tensor, told: dict[str, torch.Tensor]) -> None:
        told["prompt_embeds"] *= 3

    inputs = ["prompt_embeds"]
    expected = pipe(**ASKED).images
    changed = pipe(**ASKED, callback_on_step_end=louder, callback_on_step_end_tensor_inputs=inputs).images
    assert np.abs(changed - expected).max() > 1e-3
    assert np.array_equal(pipe(**ASKED).images, expected), "what is kept of the prompt is what it was"


def test_interrupting_ends_the_walk(pipe: FluxPipeline) -> None:
    seen = []

    def stop(pipe: FluxPipeline, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
        seen.append((step, float(timestep)))
        pipe._interrupt = True

    assert not pipe.interrupt
    pipe(**ASKED, callback_on_step_end=stop)
    assert seen == [(0, 1000.0)] and pipe.interrupt
    assert pipe(**ASKED).images is not None and not pipe.interrupt


ALIKE: list[dict[str, Any]] = [
    {"negative_prompt": "blur", "nag_scale": 4.0, "nag_tau": 3.0, "nag_alpha": 0.5},
    {"negative_prompt": "blur", "true_cfg_scale": 3.0, "cfg_interval": (0.0, 0.5)},
    {"negative_prompt": "blur", "nag_scale": 4.0, "true_cfg_scale": 3.0, "cfg_interval": [0.2, 1.0]},
    {"nag_scale": 4.0},
    {"regions": [Region(prompt="fox", mask=Image.new("L", (8, 8), 255))]},
    {"ultra": "tiled", "ultra_strength": 0.6, "height": 64, "width": 64, "num_inference_steps": 4},
    {"ultra": "whole", "height": 70, "width": 96, "nag_scale": 3.0, "negative_prompt": "blur"},
    {"prompt": "a {red|blur} {car|fox|house}", "wildcards": "", "seed": 5},
    {"prompt": "a red car", "negative_prompt": "{blur|snow|fox}", "wildcards": "", "true_cfg_scale": 3.0, "seed": 2},
    {"ultra": "tiled", "regions": Region(prompt="fox", mask=Image.new("L", (8, 8), 255)), "height": 64, "width": 64},
]
NAMES = {
    "true_cfg_scale": "cfg",
    "num_inference_steps": "steps",
    "nag_scale": "nag",
    "negative_prompt": "negative",
}


@pytest.mark.parametrize("more", ALIKE, ids=lambda more: " ".join(more))
def test_the_call_draws_what_the_request_does(pipe: FluxPipeline, more: dict[str, Any]) -> None:
    asked = ASKED | more
    size = Resolution(height=asked.pop("height"), width=asked.pop("width"))
    asked.pop("output_type")
    named: dict[str, Any] = {NAMES.get(name, name): value for name, value in asked.items()}
    for name in ("regions", "cfg_interval"):
        if name in named:
            named[name] = tuple(named[name]) if isinstance(named[name], list | tuple) else (named[name],)
    request = Request(**named, resolution=size, emphasis="off", count=2)
    expected = pipe.pipeline(request, batch=2).images
    images = pipe(**(ASKED | more | {"output_type": "pil", "num_images_per_prompt": 2})).images
    for one, other in zip(images, expected, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    plain = pipe(**(ASKED | {"output_type": "pil"})).images[0]
    assert images[0].size != plain.size or not np.array_equal(np.asarray(images[0]), np.asarray(plain))


def test_choices_are_drawn_by_the_seed_of_each_picture(pipe: FluxPipeline, tmp_path: Path) -> None:
    (tmp_path / "thing.txt").write_text("car\nfox\nhouse\nsnow\n")
    asked = ASKED | {"prompt": ["a {red|blur} __thing__", "the __thing__"], "wildcards": tmp_path, "seed": 5}
    asked |= {"num_images_per_prompt": 3, "num_inference_steps": 1}
    out = pipe(**asked)
    assert out.prompts == [drawn(asked["prompt"][i // 3], 5 + i, str(tmp_path)) for i in range(6)]
    assert len(set(out.prompts)) > 3
    del asked["seed"]
    for source in (torch.Generator().manual_seed(5), [torch.Generator().manual_seed(5 + i) for i in range(6)]):
        assert pipe(**asked, generator=source).prompts == out.prompts
    torch.manual_seed(1)
    one, other = pipe(**asked).prompts, pipe(**asked).prompts
    torch.manual_seed(1)
    assert pipe(**asked).prompts == one != other
    with pytest.raises(BadFile, match=r"there is no file .*nothing\.txt"):
        pipe(**(asked | {"prompt": "__nothing__"}))
    assert pipe(**ASKED).prompts == ["a red car"]


def test_ultra_goes_on_with_the_generator_that_is_given(pipe: FluxPipeline) -> None:
    asked = {name: value for name, value in ASKED.items() if name != "seed"} | {"height": 64, "width": 64}
    asked |= {"ultra": "tiled", "num_inference_steps": 4}
    one, same = (pipe(**asked, generator=torch.Generator().manual_seed(5)).images for _ in range(2))
    assert one.shape == (1, 64, 64, 3) and np.array_equal(one, same)
    assert not np.array_equal(one, pipe(**asked, seed=6).images)
    asked |= {"height": None, "width": None}
    assert pipe(**asked, seed=6).images.shape == (1, 64, 64, 3), "twice the model's own size"


def test_a_callback_is_told_where_each_walk_is(pipe: FluxPipeline) -> None:
    told: list[tuple[int, float, int, int]] = []

    def note(pipe: FluxPipeline, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
        assert pipe.current_timestep == timestep
        told.append((step, round(float(timestep)), tensors["latents"].shape[1], pipe.num_timesteps))

    asked = ASKED | {"height": 64, "width": 64, "num_inference_steps": 4, "schedule": "linear"}
    pipe(**asked, ultra="tiled", ultra_strength=0.5, callback_on_step_end=note)
    first = [(0, 1000, 4, 4), (1, 750, 4, 4), (2, 500, 4, 4), (3, 250, 4, 4)]
    assert told == [*first, (0, 500, 16, 2), (1, 250, 16, 2)]


def test_what_scripts_ask_a_pipeline(pipe: FluxPipeline) -> None:
    assert pipe.guidance_scale is None and pipe.current_timestep is None and pipe.num_timesteps == 0
    txt, pooled, ids = pipe.encode_prompt(["a red car", "a fox"], num_images_per_prompt=2, max_sequence_length=5)
    assert txt.shape == (4, 5, 24) and pooled.shape == (4, 16) and ids.shape == (5, 3) and not ids.any()
    given = {"prompt": None, "prompt_embeds": txt[:1], "pooled_prompt_embeds": pooled[:1]}
    out = pipe(**(ASKED | given), guidance_scale=2.0, joint_attention_kwargs={})
    assert np.array_equal(out.images, pipe(**ASKED, guidance_scale=2.0, max_sequence_length=5)[0])
    assert out["images"] is out.images is out.to_tuple()[0]
    assert (pipe.guidance_scale, pipe.num_timesteps, pipe.joint_attention_kwargs) == (2.0, 2, None)
    assert pipe.to(device="cpu", dtype=torch.float32) is pipe
    assert not hasattr(pipe, "scheduler")
    with pytest.raises(BadRequest, match="say sampler= and schedule="):
        pipe.scheduler = object()
