"""The whole pipeline against diffusers' FluxPipeline and FluxImg2ImgPipeline: pixels within 1e-4, in float32."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline
from PIL import Image

from fluxone import FluxPipeline
from fluxone.errors import BadRequest
from parity.conftest import TINIES, Oracle, build

CLOSE = 1e-4
Get = Callable[[str], Oracle]

# name -> tiny model, height and width in tokens, other arguments
T2I: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "guided, dynamic shift": ("dev", 4, 3, {"guidance_scale": 3.5}),
    "other guidance": ("dev", 2, 5, {"guidance_scale": 1.0, "num_inference_steps": 1}),
    "unguided, no shift": ("schnell", 3, 4, {"guidance_scale": 0.0}),
    "fixed shift, two-level autoencoder": ("fixed", 5, 7, {}),
    "own shift numbers": ("odd", 9, 5, {"num_inference_steps": 6}),
    "one token": ("dev", 1, 1, {}),
    "true cfg": ("dev", 3, 3, {"negative_prompt": "blur", "true_cfg_scale": 4.0}),
    "true cfg, empty negative": ("odd", 3, 2, {"negative_prompt": "", "true_cfg_scale": 2.0}),
    "true cfg, two negatives": (
        "schnell",
        2,
        3,
        {"negative_prompt": "blur", "negative_prompt_2": "haze", "true_cfg_scale": 1.5},
    ),
    "a negative without cfg": ("dev", 2, 2, {"negative_prompt": "blur", "true_cfg_scale": 1.0}),
    "cfg without a negative": ("dev", 2, 2, {"true_cfg_scale": 5.0}),
    "two prompts": ("dev", 3, 4, {"prompt": ["the fox", "a dog reads"]}),
    "two prompts, two negatives": (
        "fixed",
        3,
        4,
        {"prompt": ["the fox", "a dog"], "negative_prompt": ["x", "y z"], "true_cfg_scale": 3.0},
    ),
    "two each": ("odd", 3, 4, {"num_images_per_prompt": 2}),
    "two each of two": ("dev", 2, 3, {"prompt": ["the fox", "a dog"], "num_images_per_prompt": 2}),
    "another prompt for T5": ("dev", 2, 2, {"prompt_2": "a red house in the snow"}),
    "an empty prompt": ("dev", 2, 2, {"prompt": ""}),
    "a long prompt": ("dev", 2, 2, {"prompt": "the fox reads " * 60}),
    "given levels, dynamic shift": ("dev", 3, 3, {"sigmas": [1.0, 0.8, 0.31], "num_inference_steps": 3}),
    "given levels, fixed shift": ("fixed", 3, 3, {"sigmas": [1.0, 0.5], "num_inference_steps": 2}),
    "given levels from below 1": ("schnell", 3, 3, {"sigmas": [0.9, 0.2], "num_inference_steps": 2}),
    **{f"{n} text tokens": ("dev", 2, 2, {"max_sequence_length": n}) for n in (64, 128, 256, 512)},
}


def arguments(tiny: str, rows: int, columns: int, more: dict[str, Any]) -> dict[str, Any]:
    token = 2 * TINIES[tiny].factor
    base = {"prompt": "the fox reads", "num_inference_steps": 3, "guidance_scale": 3.5, "max_sequence_length": 32}
    return base | {"height": rows * token, "width": columns * token, "output_type": "np"} | more


def both(oracle: Oracle, kind: type | None = None, seed: int = 3, **kwargs: Any) -> tuple[Any, Any]:
    """The same call to diffusers and to us, each with its own generator of the same seed."""
    theirs = oracle.pipe if kind is None else kind.from_pipe(oracle.pipe)
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(str(oracle.folder), torch_dtype=torch.float32, device="cpu")
    if "latents" in kwargs:
        return theirs(**kwargs).images, ours(**kwargs).images
    return tuple(pipe(**kwargs, generator=torch.Generator().manual_seed(seed)).images for pipe in (theirs, ours))


def assert_close(theirs: Any, ours: Any, tolerance: float = CLOSE) -> None:
    theirs, ours = np.asarray(theirs), np.asarray(ours)
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() < tolerance
    assert theirs.std() > 0.05  # there is something to compare


@pytest.mark.parametrize("case", T2I)
def test_text_to_image(oracle: Get, case: str) -> None:
    tiny, rows, columns, more = T2I[case]
    assert_close(*both(oracle(tiny), **arguments(tiny, rows, columns, more)))


SCHEDULERS: dict[str, dict[str, Any]] = {
    "karras, by tokens": {"use_karras_sigmas": True, "use_dynamic_shifting": True},
    "exponential, fixed": {"use_exponential_sigmas": True, "shift": 2.0},
    "terminal, linear in tokens": {"shift_terminal": 0.05, "time_shift_type": "linear", "use_dynamic_shifting": True},
}


@pytest.mark.parametrize("case", SCHEDULERS)
def test_what_a_scheduler_asks_for_is_done(case: str, tmp_path: Path) -> None:
    tiny = replace(TINIES["fixed"], scheduler=SCHEDULERS[case])
    pipe = build(tiny)
    pipe.save_pretrained(tmp_path)
    kwargs = arguments("fixed", 3, 4, {"num_inference_steps": 5})
    plain, kept = both(Oracle(tiny, pipe, tmp_path), **kwargs)
    assert_close(plain, kept)
    picture = {"image": start(20, 30), "strength": 0.7}
    assert_close(*both(Oracle(tiny, pipe, tmp_path), FluxImg2ImgPipeline, **kwargs, **picture))


@pytest.mark.parametrize("tiny", TINIES)
def test_odd_sizes_are_rounded_down_as_diffusers_does(oracle: Get, tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    token = 2 * TINIES[tiny].factor
    kwargs = arguments(tiny, 4, 3, {"height": 5 * token - 1, "width": 3 * token + 1})
    with caplog.at_level(logging.WARNING, "fluxone"):
        theirs, ours = both(oracle(tiny), **kwargs)
    assert_close(theirs, ours)
    assert ours.shape[1:3] == (4 * token, 3 * token)
    notices = [record for record in caplog.records if record.name == "fluxone"]
    assert len(notices) == 1 and f"making {3 * token}x{4 * token}" in notices[0].getMessage()


@pytest.mark.parametrize("tiny", TINIES)
def test_given_latents(oracle: Get, tiny: str) -> None:
    numbers = TINIES[tiny]
    kwargs = arguments(tiny, 4, 3, {"prompt": ["the fox", "a dog"]})
    packed = torch.randn(2, 12, 4 * numbers.latent, generator=torch.Generator().manual_seed(1))
    theirs, ours = both(oracle(tiny), latents=packed, **kwargs)
    assert_close(theirs, ours)
    cells = oracle(tiny).pipe._unpack_latents(packed, kwargs["height"], kwargs["width"], numbers.factor)
    pipe = FluxPipeline.from_pretrained(str(oracle(tiny).folder))
    assert np.array_equal(pipe(latents=cells, **kwargs).images, ours)


def test_a_list_of_generators(oracle: Get) -> None:
    kwargs = arguments("dev", 3, 3, {"prompt": ["the fox", "a dog"]})
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    theirs = oracle("dev").pipe(**kwargs, generator=[torch.Generator().manual_seed(s) for s in (5, 6)]).images
    ours = pipe(**kwargs, generator=[torch.Generator().manual_seed(s) for s in (5, 6)]).images
    assert_close(theirs, ours)
    assert np.array_equal(ours, pipe(**kwargs, seed=5).images)  # our own seeds are the same thing


def test_no_generator_is_torchs_global_one(oracle: Get) -> None:
    kwargs = arguments("dev", 3, 3, {})
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    torch.manual_seed(11)
    theirs = oracle("dev").pipe(**kwargs).images
    torch.manual_seed(11)
    assert_close(theirs, pipe(**kwargs).images)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_given_embeddings(oracle: Get, cfg: float) -> None:
    numbers = TINIES["odd"]
    source = torch.Generator().manual_seed(2)
    txt, away = (torch.randn(2, 9, numbers.text, generator=source) for _ in range(2))
    pooled, pooled_away = (torch.randn(2, numbers.pooled, generator=source) for _ in range(2))
    more = {"prompt": None, "prompt_embeds": txt, "pooled_prompt_embeds": pooled, "true_cfg_scale": cfg}
    more |= {"negative_prompt_embeds": away, "negative_pooled_prompt_embeds": pooled_away}
    assert_close(*both(oracle("odd"), **arguments("odd", 3, 4, more)))


def test_prompts_are_encoded_as_there(oracle: Get) -> None:
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, device="cpu")
    asked = {"prompt": ["the fox", "a dog"], "prompt_2": ["x", "y z"], "num_images_per_prompt": 2}
    expected = oracle("dev").pipe.encode_prompt(**asked, max_sequence_length=9)
    for one, other in zip(expected, ours.encode_prompt(**asked, max_sequence_length=9), strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


def test_every_output_type(oracle: Get) -> None:
    kwargs = arguments("dev", 3, 2, {"prompt": ["the fox", "a dog"]})
    for kind in ("np", "pt", "latent"):
        theirs, ours = both(oracle("dev"), **(kwargs | {"output_type": kind}))
        assert type(theirs) is type(ours)
        assert_close(theirs, ours)
    theirs, ours = both(oracle("dev"), **(kwargs | {"output_type": "pil"}))
    assert [image.size for image in ours] == [image.size for image in theirs] == [(32, 48)] * 2
    for one, other in zip(theirs, ours, strict=True):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1
    (plain,) = FluxPipeline.from_pretrained(str(oracle("dev").folder))(**kwargs, return_dict=False, seed=0)
    assert plain.shape == (2, 48, 32, 3)


def start(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


I2I: dict[str, tuple[str, dict[str, Any]]] = {
    "six tenths": ("dev", {"strength": 0.6, "num_inference_steps": 5}),
    "all": ("schnell", {"strength": 1.0}),
    "a little": ("odd", {"strength": 0.21, "num_inference_steps": 10}),
    "two of one": ("dev", {"strength": 0.5, "num_inference_steps": 4, "num_images_per_prompt": 2}),
    "two prompts": ("fixed", {"strength": 0.7, "prompt": ["the fox", "a dog"]}),
    "true cfg": ("dev", {"strength": 0.9, "negative_prompt": "blur", "true_cfg_scale": 3.0}),
    "given levels": ("dev", {"strength": 0.7, "sigmas": [1.0, 0.7, 0.5, 0.2], "num_inference_steps": 4}),
}


@pytest.mark.parametrize("case", I2I)
def test_image_to_image(oracle: Get, case: str) -> None:
    """With a generator the picture is encoded to a sample of its posterior, drawn before the noise, as there."""
    tiny, more = I2I[case]
    kwargs = arguments(tiny, 4, 3, {"image": start(50, 37)} | more)
    assert_close(*both(oracle(tiny), FluxImg2ImgPipeline, **kwargs))


def test_image_to_image_of_tensors_and_arrays(oracle: Get) -> None:
    array = np.asarray(start(40, 64), dtype=np.float32) / 255
    for image in (array[None], torch.from_numpy(array).permute(2, 0, 1)[None], [start(40, 64), start(9, 9, 1)]):
        kwargs = arguments("dev", 3, 4, {"image": image, "strength": 0.6, "prompt": ["the fox", "a dog"]})
        assert_close(*both(oracle("dev"), FluxImg2ImgPipeline, **kwargs))


def test_image_to_image_with_given_latents_starts_from_them(oracle: Get) -> None:
    latents = torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(4))
    kwargs = arguments("dev", 4, 3, {"image": start(48, 64), "strength": 0.6, "num_inference_steps": 5})
    assert_close(*both(oracle("dev"), FluxImg2ImgPipeline, latents=latents, **kwargs))


def test_image_to_image_with_generators(oracle: Get) -> None:
    kwargs = arguments("dev", 4, 3, {"image": [start(48, 64), start(48, 64, 1)], "prompt": ["a", "b"], "strength": 0.6})
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    theirs = FluxImg2ImgPipeline.from_pipe(oracle("dev").pipe)
    pictures = [
        p(**kwargs, generator=[torch.Generator().manual_seed(s) for s in (8, 9)]).images for p in (theirs, pipe)
    ]
    assert_close(*pictures)


def test_callbacks_see_and_change_the_same(oracle: Get) -> None:
    seen: dict[str, list[Any]] = {"theirs": [], "ours": []}

    def watch(name: str) -> Callable[..., dict[str, torch.Tensor]]:
        def on_step(pipe: Any, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Any:
            seen[name].append((step, float(timestep), tensors["latents"].clone(), tensors["prompt_embeds"].shape))
            if step == 2:
                pipe._interrupt = True
            return {"latents": tensors["latents"] * 0.9}

        return on_step

    kwargs = arguments("dev", 3, 3, {"num_inference_steps": 5})
    kwargs |= {"callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    source = torch.Generator().manual_seed
    theirs = oracle("dev").pipe(**kwargs, callback_on_step_end=watch("theirs"), generator=source(1)).images
    ours = pipe(**kwargs, callback_on_step_end=watch("ours"), generator=source(1)).images
    assert_close(theirs, ours)
    assert len(seen["ours"]) == len(seen["theirs"]) == 3
    for one, other in zip(seen["theirs"], seen["ours"], strict=True):
        assert one[0] == other[0] and one[1] == other[1] and one[3] == other[3]
        assert_close(one[2], other[2])


def change_words(pipe: Any, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Any:
    """A callback that says something else from the second step on, and once more from the third."""
    return {"prompt_embeds": tensors["prompt_embeds"].flip(1) * 0.7} if step < 2 else tensors


@pytest.mark.parametrize("more", [{}, {"negative_prompt": "blur", "true_cfg_scale": 3.0, "num_images_per_prompt": 2}])
def test_callbacks_may_change_what_is_said(oracle: Get, more: dict[str, Any]) -> None:
    kwargs = arguments("dev", 3, 3, {"num_inference_steps": 4} | more)
    plain = both(oracle("dev"), **kwargs)[1]
    kwargs |= {"callback_on_step_end": change_words, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    theirs, ours = both(oracle("dev"), **kwargs)
    assert_close(theirs, ours)
    assert np.abs(ours - plain).max() > 0.01


def test_both_refuse_what_cannot_be(oracle: Get) -> None:
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    for kwargs in (
        {"prompt": None},
        {"prompt": 5},
        {"prompt": "a", "prompt_embeds": torch.zeros(1, 4, 24)},
        {"prompt": None, "prompt_embeds": torch.zeros(1, 4, 24)},
        {"prompt": "a", "max_sequence_length": 513},
        {"prompt": "a", "generator": [torch.Generator(), torch.Generator()]},
    ):
        with pytest.raises(ValueError):
            oracle("dev").pipe(**({"height": 32, "width": 32, "num_inference_steps": 1} | kwargs))
        with pytest.raises(BadRequest):
            pipe(**({"height": 32, "width": 32, "num_inference_steps": 1} | kwargs))
