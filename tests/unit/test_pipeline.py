"""A picture depends on (model, request, seed) alone; steps, previews, cancelling, and what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fluxone.errors import BadRequest, BrokenModel, MissingParts, UnknownName
from fluxone.geometry import Resolution
from fluxone.pipeline import Pipeline
from fluxone.request import MAX_SEED, Request
from fluxone.sampling.guidance import EXACT, Rounding, tabulate, velocity
from fluxone.sampling.samplers import SAMPLERS, Step
from fluxone.sampling.schedule import SCHEDULES
from unit.tiny import TINY, bundle, pipeline

SIZE = Resolution(height=48, width=32)
ASKED = Request(prompt="a red car", resolution=SIZE, steps=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("tiny"))


def last(pipe: Pipeline, request: Request) -> Tensor:
    return list(pipe.steps(request))[-1].x


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def start(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def test_a_request_becomes_pictures(tiny: Pipeline) -> None:
    result = tiny(replace(ASKED, count=2, seed=7))
    assert [image.size for image in result.images] == [(32, 48)] * 2
    assert result.seeds == [7, 8]
    assert result.request.steps == 3 and result.request.guidance == 3.5 and result.request.schedule == "shifted"
    assert set(result.seconds) == {"text", "steps", "decode"}
    assert array(result.images[0]).std() > 10
    assert not np.array_equal(array(result.images[0]), array(result.images[1]))


def test_defaults_come_from_the_row(tiny: Pipeline) -> None:
    asked = tiny.resolve(Request())
    assert (asked.resolution, asked.steps, asked.text_tokens) == (Resolution(height=32, width=32), 3, 8)
    plain = pipeline_of(tiny, variant=replace(TINY, shifted=False))
    assert plain.resolve(Request()).schedule == "linear"
    assert pipeline_of(tiny, variant=replace(TINY, shifted=False, shift=3.0)).resolve(Request()).schedule == "fixed"


def pipeline_of(tiny: Pipeline, **changes: Any) -> Pipeline:
    return Pipeline(replace(tiny.bundle, **changes), tiny.recipe, tiny.text, tiny.on_device)


def test_a_seed_gives_the_same_picture_to_the_last_bit_in_any_count_and_order(tiny: Pipeline) -> None:
    four = tiny(replace(ASKED, seed=5, count=4)).images
    for i in (3, 0, 2):
        (alone,) = tiny(replace(ASKED, seed=5 + i)).images
        assert np.array_equal(array(alone), array(four[i]))


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_batches_change_nothing_but_rounding(tiny: Pipeline, sampler: str, cfg: float) -> None:
    asked = replace(ASKED, sampler=sampler, cfg=cfg, negative="blur")
    together = last(tiny, replace(asked, seed=5, count=3))
    for i in range(3):
        alone = last(tiny, replace(asked, seed=5 + i))
        close = 1e-5 * max(1.0, float(alone.abs().max()))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=close)
        one, other = (tiny.decode(x, (3, 2)) / 2 for x in (together[i : i + 1], alone))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    pictures = tiny(replace(asked, count=3), batch=2).images
    for one, other in zip(pictures, tiny(replace(asked, count=3)).images, strict=True):
        assert np.abs(array(one).astype(int) - array(other).astype(int)).max() <= 1


@pytest.mark.parametrize("mode", ["lean", "model", "block", "disk"])
@pytest.mark.parametrize("init", [False, True])
def test_offload_changes_not_one_bit(tiny: Pipeline, tmp_path: Path, mode: str, init: bool) -> None:
    asked = replace(ASKED, cfg=2.0, negative="blur", seed=3, init=start() if init else None)
    other = pipeline(tmp_path, offload=mode)
    assert torch.equal(last(other, asked), last(tiny, asked))
    assert np.array_equal(array(other(asked).images[0]), array(tiny(asked).images[0]))
    assert all(other.on_device.moves[name] > 0 for name, modules in other.on_device.parts.items() if modules)


def test_the_prompt_guidance_negative_and_interval_all_matter(tiny: Pipeline) -> None:
    base = last(tiny, ASKED)
    for change in (
        {"prompt": "the fox in snow"},
        {"clip_prompt": "house"},
        {"guidance": 1.0},
        {"cfg": 2.0},
        {"steps": 4},
        {"seed": 1},
        {"schedule": "linear"},
        {"sampler": "heun"},
        {"text_tokens": 9},
        {"sigmas": (1.0, 0.4)},
    ):
        assert not torch.allclose(last(tiny, replace(ASKED, **change)), base, atol=1e-3), change
    assert torch.equal(last(tiny, replace(ASKED, negative="blur")), base)  # without cfg
    guided = replace(ASKED, cfg=3.0, negative="blur")
    assert torch.equal(last(tiny, replace(guided, cfg_interval=(0.0, 0.0))), base)
    ends = [last(tiny, replace(guided, cfg_interval=pair)) for pair in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0))]
    assert len({tuple(x.flatten()[:4].tolist()) for x in [*ends, base]}) == 4


def test_cfg_works_in_its_interval_of_the_schedule_only(tiny: Pipeline) -> None:
    asked = replace(ASKED, steps=4, cfg=3.0, negative="blur")
    plain = list(tiny.steps(replace(asked, cfg=1.0)))
    late = list(tiny.steps(replace(asked, cfg_interval=(0.5, 1.0))))
    same = [torch.equal(a.x, b.x) for a, b in zip(plain, late, strict=True)]
    assert same == [True, True, False, False]
    early = list(tiny.steps(replace(asked, cfg_interval=(0.0, 0.5))))
    whole = list(tiny.steps(asked))
    assert [torch.equal(a.x, b.x) for a, b in zip(early, whole, strict=True)] == [True, True, False, False]


@pytest.mark.parametrize(
    "rounding", [EXACT, Rounding(dtype=torch.bfloat16), Rounding(dtype=torch.bfloat16, thousandths=True)]
)
def test_modulation_for_a_whole_schedule_equals_step_by_step(tiny: Pipeline, rounding: Rounding) -> None:
    job = tiny.prepare(tiny.resolve(replace(ASKED, count=2)))
    inputs = tiny._inputs(job, job.text)
    whole = velocity(tiny.transformer, inputs, tabulate(tiny.transformer, inputs, job.sigmas[:-1], rounding=rounding))
    for sigma in job.sigmas[:-1]:
        alone = velocity(tiny.transformer, inputs, tabulate(tiny.transformer, inputs, [sigma], rounding=rounding))
        torch.testing.assert_close(whole(job.x, sigma), alone(job.x, sigma), rtol=0, atol=1e-5)


def test_modulation_equals_the_networks_own_forward(tiny: Pipeline) -> None:
    job = tiny.prepare(tiny.resolve(replace(ASKED, count=2)))
    inputs = tiny._inputs(job, job.text)
    bound = velocity(tiny.transformer, inputs, tabulate(tiny.transformer, inputs, [0.7]))
    txt_ids = torch.zeros(inputs.txt.shape[1], 3)
    sigma = torch.full((2,), 0.7)
    out = tiny.transformer(job.x, inputs.ids, inputs.txt, txt_ids, sigma, inputs.pooled, inputs.guidance)
    torch.testing.assert_close(bound(job.x, 0.7), out, rtol=0, atol=1e-5)


def test_modulators_may_leave_before_the_walk(tmp_path: Path) -> None:
    pipe = pipeline(tmp_path)
    steps = pipe.steps(ASKED)
    first = next(steps).x
    for module in pipe.transformer.modulators():
        for parameter in module.parameters():
            parameter.data = torch.full_like(parameter, float("nan"))
    rest = [step.x for step in steps]
    assert len(rest) == 2 and torch.isfinite(first).all() and all(torch.isfinite(x).all() for x in rest)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_draws(tiny: Pipeline, name: str) -> None:
    assert torch.isfinite(last(tiny, replace(ASKED, schedule=name))).all()


def test_steps_tell_where_they_are_and_the_caller_may_change_them(tiny: Pipeline) -> None:
    seen = []
    for step in tiny.steps(ASKED):
        assert not torch.is_inference_mode_enabled()  # nothing leaks into the consumer
        seen.append((step.index, step.sigma))
        step.x = step.x * 0
    assert [index for index, _ in seen] == [0, 1, 2] and seen[-1][1] == 0
    assert torch.equal(step.x, torch.zeros_like(step.x))
    (grey,) = tiny(ASKED, on_step=lambda step: setattr(step, "x", step.x * 0)).images
    assert not np.array_equal(array(grey), array(tiny(ASKED).images[0]))


def test_steps_outside_of_inference_mode_can_be_trained_on(tiny: Pipeline) -> None:
    weight = torch.ones((), requires_grad=True)
    (weight * last(tiny, ASKED)).sum().backward()
    assert weight.grad is not None


def test_a_walk_can_be_left(tmp_path: Path) -> None:
    pipe = pipeline(tmp_path, offload="block")
    steps = pipe.steps(ASKED)
    next(steps)
    steps.close()
    blocks = [*pipe.transformer.double_blocks, *pipe.transformer.single_blocks]
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in blocks)

    class Enough(Exception):
        pass

    def stop(step: Step) -> None:
        raise Enough

    with pytest.raises(Enough):
        pipe(ASKED, on_step=stop)
    assert len(pipe(ASKED).images) == 1


def test_strength_goes_from_the_picture_to_forgetting_it(tiny: Pipeline) -> None:
    asked = replace(ASKED, init=start(), steps=10)
    kept = tiny.encode_pixels(torch.rand(1, 3, 48, 32), None, posterior=False)
    assert kept.shape == (1, 4, 6, 4)
    assert list(tiny.steps(replace(asked, strength=0.0))) == []
    walked = [step.sigma for step in tiny.steps(replace(asked, strength=0.35))]
    assert len(walked) == 4 and walked == tiny.sigmas(tiny.resolve(replace(asked, strength=0.35)))[1:]
    assert torch.equal(last(tiny, replace(asked, strength=1.0)), last(tiny, replace(asked, init=None)))
    untouched = tiny(replace(asked, strength=0.0)).images[0]
    little, much = (tiny(replace(asked, strength=s)).images[0] for s in (0.1, 0.9))
    near, far = (np.abs(array(x).astype(int) - array(untouched)).mean() for x in (little, much))
    assert 0 < near < far


def test_a_picture_alone_gives_its_aspect(tiny: Pipeline) -> None:
    asked = tiny.resolve(Request(init=Image.new("RGB", (80, 20))))
    assert asked.resolution == Resolution(width=64, height=16)


def test_sizes_round_down_to_whole_tokens_with_one_notice(tiny: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fluxone"):
        result = tiny(replace(ASKED, resolution=Resolution(height=50, width=47)))
        assert result.images[0].size == (32, 48)
        assert result.request.resolution == SIZE
        assert [record.getMessage() for record in caplog.records] == [
            "47x50 is no multiple of 16 px each way: making 32x48"
        ]
    with pytest.raises(BadRequest, match="less than one token"):
        tiny(replace(ASKED, resolution=Resolution(height=15, width=64)))


def test_long_prompts_are_cut_with_a_notice(tiny: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fluxone"):
        assert torch.isfinite(last(tiny, replace(ASKED, prompt="fox " * 2500))).all()
    assert "the prompt is 2493 tokens too long for 8" in caplog.text


def test_an_empty_prompt_draws(tiny: Pipeline) -> None:
    assert torch.isfinite(last(tiny, replace(ASKED, prompt=""))).all()


def test_prompts_are_encoded_once(tmp_path: Path) -> None:
    pipe = pipeline(tmp_path)
    first = last(pipe, ASKED)
    visits = pipe.on_device.moves["text"]
    assert torch.equal(last(pipe, ASKED), first)
    assert pipe.on_device.moves["text"] == visits
    last(pipe, replace(ASKED, text_tokens=12))
    assert pipe.on_device.moves["text"] == visits + 1
    pipe.forget()
    last(pipe, ASKED)
    assert pipe.on_device.moves["text"] == visits + 2


def test_unknown_names_are_said(tiny: Pipeline) -> None:
    with pytest.raises(UnknownName, match="did you mean 'euler'"):
        tiny(replace(ASKED, sampler="eular"))
    with pytest.raises(UnknownName, match="no schedule is called 'lineal'"):
        tiny(replace(ASKED, schedule="lineal"))


def test_the_last_seed_has_a_successor(tiny: Pipeline) -> None:
    result = tiny(replace(ASKED, seed=MAX_SEED, count=2, steps=1))
    assert result.seeds == [MAX_SEED, 0]
    assert np.array_equal(array(result.images[1]), array(tiny(replace(ASKED, seed=0, steps=1)).images[0]))


@pytest.mark.parametrize(
    ("part", "name"),
    [("transformer", "single_blocks.0.linear1.weight"), ("transformer", "time_in.in_layer.bias"),
     ("autoencoder", "decoder.conv_in.bias"), ("t5", "encoder.final_layer_norm.weight"),
     ("clip", "text_model.final_layer_norm.bias")],
)  # fmt: skip
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_make_no_picture_and_are_named(tmp_path: Path, part: str, name: str, value: float) -> None:
    parts = bundle(tmp_path)
    getattr(parts, part).get_parameter(name).data[0] = value
    pipe = Pipeline(parts, *rest(pipeline(tmp_path), parts))
    with pytest.raises(BrokenModel, match=name.replace(".", r"\.")):
        pipe(ASKED)


def rest(pipe: Pipeline, parts: Any) -> tuple[Any, ...]:
    from fluxone.assembly import connect

    own = connect(parts, pipe.recipe)
    return own.recipe, own.text, own.on_device


def test_a_model_without_text_encoders_says_so(tmp_path: Path) -> None:
    from fluxone.assembly import connect

    pipe = connect(replace(bundle(tmp_path), t5=None), pipeline(tmp_path).recipe)
    with pytest.raises(MissingParts, match="no text encoders"):
        pipe(ASKED)


def test_half_precision_draws_the_same_picture_roughly(tiny: Pipeline, tmp_path: Path) -> None:
    half = pipeline(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    x = last(half, ASKED)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, last(tiny, ASKED), rtol=0, atol=0.3)


def test_tiles_change_little(tiny: Pipeline, tmp_path: Path) -> None:
    tiled = pipeline(tmp_path, tiled=True)
    big = replace(ASKED, resolution=Resolution(height=64, width=544), steps=1)
    one, other = (array(pipe(big).images[0]).astype(int) for pipe in (tiny, tiled))
    assert np.abs(one - other).mean() < 2
