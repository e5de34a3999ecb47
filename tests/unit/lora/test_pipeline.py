"""Adapters of a whole pipeline: courses over the steps, text encoders, control LoRAs, offloading, the door's names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fluxone import FluxPipeline
from fluxone.errors import BadRequest, BadWeights, UnknownName, UserError
from fluxone.lora.course import share_at
from fluxone.lora.load import read_lora
from fluxone.lora.strength import Strength, read_scale, read_strength
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from fluxone.variants import Kind
from unit import tiny as small

Draw = Callable[..., Tensor]
REQUEST = Request(prompt="a red fox", steps=3, seed=4)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return small.pipeline(tmp_path / "words")


def latents(pipeline: Pipeline, **fields: object) -> Tensor:
    return [step.x for step in pipeline.steps(replace(REQUEST, **fields))][-1]


def adapter(pipeline: Pipeline, parts: tuple[str, ...] = ("transformer",), seed: int = 0) -> dict[str, Tensor]:
    """A random LoRA of every linear layer of the parts in ComfyUI's names."""
    source = torch.Generator().manual_seed(seed)
    prefixes = {
        "transformer": "diffusion_model.",
        "clip": "text_encoders.clip_l.transformer.",
        "t5": "text_encoders.t5xxl.transformer.",
    }
    tensors = {}
    for part in parts:
        for name, layer in pipeline.adapters.modules[part].named_modules():
            if isinstance(layer, torch.nn.Linear):
                for ending, shape in (("A", (2, layer.in_features)), ("B", (layer.out_features, 2))):
                    key = f"{prefixes[part]}{name}.lora_{ending}.weight"
                    tensors[key] = 0.3 * torch.randn(shape, generator=source)
    return tensors


def test_a_course_is_strength_step_by_step(pipeline: Pipeline) -> None:
    pipeline.adapters.load(read_lora(adapter(pipeline)), "a")
    plain = [step.x.clone() for step in pipeline.steps(REQUEST)]
    pipeline.adapters.use({"a": Strength()})
    whole = [step.x.clone() for step in pipeline.steps(REQUEST)]
    pipeline.adapters.use({"a": Strength(course=(0.0, 1.0))})
    course = [step.x.clone() for step in pipeline.steps(REQUEST)]
    assert torch.equal(course[0], plain[0]) and not torch.allclose(course[-1], plain[-1], atol=1e-3)
    pipeline.adapters.use({"a": Strength(course=(1.0, 1.0))})
    assert torch.allclose(torch.stack([s.x for s in pipeline.steps(REQUEST)]), torch.stack(whole), atol=1e-5)
    pipeline.adapters.use({"a": Strength(course=(1.0, 0.0, 0.0))})
    first = next(iter(pipeline.steps(REQUEST)))
    assert torch.allclose(first.x, whole[0], atol=1e-5)
    pipeline.adapters.clear()
    assert torch.equal(latents(pipeline), plain[-1])


def test_shares_of_a_walk() -> None:
    sigmas = [1.0, 0.8, 0.5, 0.2, 0.0]
    shares = [share_at(sigmas, level) for level in (1.0, 0.8, 0.5, 0.2, 0.65)]
    assert shares == pytest.approx([0, 1 / 3, 2 / 3, 1, 1 / 2])
    assert share_at([0.7, 0.0], 0.7) == 0


def test_text_encoders_are_adapted_and_prompts_encoded_anew(pipeline: Pipeline) -> None:
    plain = latents(pipeline)
    pipeline.adapters.load(read_lora(adapter(pipeline, ("clip", "t5"))), "a")
    assert torch.equal(latents(pipeline), plain)
    pipeline.adapters.use({"a": Strength()})
    adapted = latents(pipeline)
    assert (adapted - plain).abs().max() > 1e-3
    pipeline.adapters.use({"a": Strength(scale=0.5)})
    assert (latents(pipeline) - adapted).abs().max() > 1e-3, "another strength asks for other texts"
    pipeline.adapters.use({"a": Strength(blocks={"text_encoder": 0.0, "text_encoder_2": 0.0})})
    assert torch.equal(latents(pipeline), plain)
    pipeline.adapters.use({"a": Strength()})
    assert torch.equal(latents(pipeline), adapted)
    pipeline.adapters.clear()
    assert torch.equal(latents(pipeline), plain)


@pytest.mark.parametrize("mode", ["model", "block"])
def test_adapters_travel_with_their_layers(tmp_path: Path, mode: str) -> None:
    drawn = []
    for offload in ("none", mode):
        pipe = small.pipeline(tmp_path / offload, offload=offload)
        pipe.adapters.load(read_lora(adapter(pipe, ("transformer", "clip", "t5"))), "a")
        pipe.adapters.use({"a": Strength(scale=0.5)})
        drawn.append(latents(pipe))
        pipe.adapters.fuse()
        drawn.append(latents(pipe))
    assert torch.equal(drawn[0], drawn[2]) and torch.equal(drawn[1], drawn[3])
    assert torch.allclose(drawn[0], drawn[1], atol=1e-4)


def test_a_control_lora_makes_the_model_take_a_control_picture(pipeline: Pipeline) -> None:
    from PIL import Image

    tensors = adapter(pipeline)
    key = "diffusion_model.img_in.lora_A.weight"
    tensors[key] = torch.cat((tensors[key], torch.ones(2, 16)), 1)
    plain = latents(pipeline)
    pipeline.adapters.load(read_lora(tensors), "depth")
    pipeline.adapters.use({"depth": Strength(scale=0.85)})
    assert pipeline.variant.takes == (Kind.CONTROL,)
    with pytest.raises(BadRequest, match="cannot draw without a control picture"):
        latents(pipeline)
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("white", "black")]
    first, second = (latents(pipeline, control=picture) for picture in pictures)
    assert (first - second).abs().max() > 1e-3
    pipeline.adapters.fuse()
    assert torch.allclose(latents(pipeline, control=pictures[0]), first, atol=1e-4)
    pipeline.adapters.unfuse()
    pipeline.adapters.clear()
    assert pipeline.variant.takes == () and torch.equal(latents(pipeline), plain)


def test_the_door_in_diffusers_names(pipeline: Pipeline, tmp_path: Path) -> None:
    pipe, file = FluxPipeline(pipeline), tmp_path / "a.safetensors"

    def drawn() -> np.ndarray:
        return np.asarray(pipe("a fox", num_inference_steps=2, seed=1, output_type="np").images)

    plain = drawn()
    save_file(adapter(pipeline, ("transformer", "clip")), file, metadata={"modelspec.trigger_phrase": "zorp"})
    pipe.load_lora_weights(str(file), adapter_name="a")
    pipe.load_lora_weights(adapter(pipeline, seed=2))
    assert pipe.get_active_adapters() == ["a", "default_0"]
    assert pipe.get_list_adapters() == {"transformer": ["a", "default_0"], "text_encoder": ["a"]}
    assert pipe.adapter("a") == {"modelspec.trigger_phrase": "zorp"}
    both = drawn()
    pipe.set_adapters("a", 0.5)
    half = drawn()
    pipe.set_adapters(["a"], [{"transformer": 0.5, "text_encoder": 0.5}])
    assert np.abs(drawn() - half).max() < 1e-5
    pipe.set_adapters(["a", "default_0"])
    assert np.array_equal(drawn(), both)
    pipe.delete_adapters("default_0")
    one = drawn()
    pipe.enable_lora()  # nothing rests
    assert np.array_equal(drawn(), one)
    for stop in (pipe.disable_lora, pipe.disable_lora, pipe.enable_lora, pipe.disable_lora):
        stop()
        assert np.array_equal(drawn(), one if stop == pipe.enable_lora else plain)
    with pytest.raises(UnknownName, match="no adapter is called 'b'"):
        pipe.set_adapters("b")
    with pytest.raises(BadRequest, match="there is an adapter 'a' already"):
        pipe.load_lora_weights(str(file), adapter_name="a")
    with pytest.raises(BadRequest, match="2 weights for 1 adapters"):
        pipe.set_adapters(["a"], [1.0, 2.0])
    pipe.set_adapters("a", 0.5)
    pipe.fuse_lora()
    with pytest.raises(BadRequest, match="'a' is fused"):
        pipe.set_adapters("a", 1.0)
    assert np.abs(drawn() - half).max() < 1e-4
    pipe.unload_lora_weights()
    assert np.abs(drawn() - half).max() < 1e-4


def test_an_adapter_that_does_not_fit_changes_nothing(pipeline: Pipeline) -> None:
    pipe = FluxPipeline(pipeline)
    wrong = {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 3072),
             "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": torch.ones(3072, 2)}  # fmt: skip
    with pytest.raises(BadWeights, match="made for a network 3072 wide, this model is 32 wide"):
        pipe.load_lora_weights(wrong)
    assert pipe.get_active_adapters() == [] and pipeline.adapters.names == []


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("fox.safetensors", ("fox.safetensors", 1.0)),
        ("fox.safetensors:0.8", ("fox.safetensors", 0.8)),
        ("org/name:-1", ("org/name", -1.0)),
        ("civitai:123", ("civitai:123", 1.0)),
        ("civitai:123:0.5", ("civitai:123", 0.5)),
        ("C:/x.safetensors", ("C:/x.safetensors", 1.0)),
    ],
)
def test_scales_are_read_after_the_last_colon(text: str, read: tuple[str, float]) -> None:
    assert read_scale(text) == read


STRENGTHS = {
    "0.8": Strength(scale=0.8),
    "0.8,single_blocks=0.5,double_blocks.1*=0": Strength(
        scale=0.8, blocks={"single_blocks": 0.5, "double_blocks.1*": 0.0}
    ),
    "1,1..0.5..0": Strength(course=(1.0, 0.5, 0.0)),
    "-2,text_encoder=0,0..1": Strength(scale=-2.0, blocks={"text_encoder": 0.0}, course=(0.0, 1.0)),
}


@pytest.mark.parametrize("text", STRENGTHS)
def test_a_recipe_says_strengths_by_block_and_step(text: str) -> None:
    assert read_strength(f"org/name:{text}") == ("org/name", STRENGTHS[text])
    assert str(STRENGTHS[text]) == text
    assert read_strength("fox.safetensors:1..0") == ("fox.safetensors", Strength(course=(1.0, 0.0)))


@pytest.mark.parametrize("text", ["0.8,0.5", "0.8,=1", "0.8,single_blocks", "0.8,single_blocks=1..0", "nan", "1e9"])
def test_what_is_no_strength_is_said(text: str) -> None:
    with pytest.raises(BadRequest, match="the strength of"):
        read_strength(f"fox.safetensors:{text}")
    with pytest.raises(BadRequest, match="some blocks or steps"):
        read_scale("fox.safetensors:0.8,single_blocks=0.5")


def test_strengths_that_mean_nothing_are_refused(pipeline: Pipeline) -> None:
    door, adapters, one = FluxPipeline(pipeline), pipeline.adapters, adapter(pipeline)
    door.load_lora_weights(one, adapter_name="a")
    wrong: list[tuple[Any, str]] = [
        ({"nonsense": 0.5}, "'nonsense' fits no block of the model"),
        ({"transformer": {"transformer_blocks": "x"}}, "strength of an adapter is 'x'"),
        (float("nan"), "strength of an adapter is nan"),
        ("x", "strength of an adapter is 'x'"),
        (10**6, "strength of an adapter is 1000000"),
    ]
    for weight, said in wrong:
        with pytest.raises(BadRequest, match=said):
            door.set_adapters("a", weight)
    for names in (None, [], ["a", "a"]):
        with pytest.raises(BadRequest, match="give one name, or several, each once"):
            door.set_adapters(names)  # type: ignore[arg-type]
    door.set_adapters("a", {"transformer": {"transformer_blocks.0": 0.5, "single_transformer_blocks": 2}})
    assert adapters.active["a"].blocks == {"transformer.double_blocks.0": 0.5, "transformer.single_blocks": 2.0}
    door.set_adapters("a", Strength(course=(1.0, 0.0)))
    with pytest.raises(BadRequest, match="runs over the steps"):
        door.fuse_lora()
    with pytest.raises(UnknownName, match="no adapter is called 'b'"):
        door.set_adapters("b")
    door.unload_lora_weights()
    with pytest.raises(UnknownName, match="there is none"):
        door.set_adapters("b")


def test_an_adapter_is_swapped_for_another_of_its_name(pipeline: Pipeline) -> None:
    door, one, other = FluxPipeline(pipeline), adapter(pipeline), adapter(pipeline, seed=1)
    door.load_lora_weights(one, adapter_name="a")
    door.load_lora_weights(other, adapter_name="b")
    door.set_adapters(["a", "b"], [0.5, 1.0])
    door.load_lora_weights(other, adapter_name="a", hotswap=True)
    assert list(pipeline.adapters.loaded) == ["a", "b"] and pipeline.adapters.active["a"].scale == 0.5
    swapped = latents(pipeline)
    with pytest.raises(BadWeights, match="does not fit"):
        wide = {key: torch.zeros(2, 99) if "lora_A" in key else value for key, value in one.items()}
        door.load_lora_weights(wide, adapter_name="a", hotswap=True)
    assert torch.equal(latents(pipeline), swapped)
    door.set_adapters("b", 1.5)
    assert torch.allclose(latents(pipeline), swapped, atol=1e-4)
    with pytest.raises(UnknownName, match="no adapter is called 'c'"):
        door.load_lora_weights(one, adapter_name="c", hotswap=True)
    door.unload_lora_weights()


def test_adapters_are_fused_whole(pipeline: Pipeline) -> None:
    door, one = FluxPipeline(pipeline), adapter(pipeline)
    door.load_lora_weights(one, adapter_name="abc")
    with pytest.raises(BadRequest, match="'abc' changes the transformer as well"):
        door.fuse_lora(components=["text_encoder"])
    beside = latents(pipeline)
    door.fuse_lora(components=["transformer"], adapter_names="abc")
    assert torch.allclose(latents(pipeline), beside, atol=1e-4)
    door.unfuse_lora(components=["transformer"])
    assert torch.equal(latents(pipeline), beside)
    door.unload_lora_weights()


@pytest.mark.parametrize("given", [None, 3, {1: torch.zeros(1)}, {"a": 3}])
def test_what_is_no_adapter_is_said(pipeline: Pipeline, given: Any) -> None:
    with pytest.raises(UserError, match="adapter"):
        FluxPipeline(pipeline).load_lora_weights(given)
    broken = {key: value * float("nan") for key, value in adapter(pipeline).items()}
    with pytest.raises(BadWeights, match="NaN or infinity"):
        FluxPipeline(pipeline).load_lora_weights(broken)
