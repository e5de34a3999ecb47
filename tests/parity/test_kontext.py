"""Kontext against diffusers' FluxKontextPipeline: pixels within 1e-4, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers.pipelines.flux.pipeline_flux_kontext as theirs_module
import numpy as np
import pytest
import torch
from diffusers import FluxKontextInpaintPipeline, FluxKontextPipeline

from fluxone import FluxPipeline
from fluxone.geometry import KONTEXT_SIZES
from parity.conftest import TINIES, Oracle
from parity.test_pipeline import arguments, assert_close, start

Get = Callable[[str], Oracle]

# name -> tiny model, height and width in tokens, other arguments
CASES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "one": ("dev", 4, 3, {}),
    "another size than the reference's": ("dev", 2, 5, {"guidance_scale": 2.5}),
    "two-level autoencoder": ("fixed", 5, 7, {}),
    "two of one": ("odd", 3, 4, {"num_images_per_prompt": 2}),
    "two prompts": ("schnell", 3, 4, {"prompt": ["the fox", "a dog"], "guidance_scale": 0.0}),
    "two prompts, two references": (
        "dev", 3, 4, {"prompt": ["the fox", "a dog"], "image": [start(50, 37), start(50, 37, 1)]}
    ),
    "true cfg": ("dev", 3, 3, {"negative_prompt": "blur", "true_cfg_scale": 3.0}),
    "an array": ("dev", 3, 3, {"image": np.asarray(start(40, 64), dtype=np.float32)[None] / 255}),
}  # fmt: skip


def both(oracle: Oracle, **kwargs: Any) -> tuple[Any, Any]:
    """The same call; diffusers brings every size to an area of its own, and is told the one that was asked for."""
    theirs = FluxKontextPipeline.from_pipe(oracle.pipe)
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(str(oracle.folder), torch_dtype=torch.float32, device="cpu", variant="kontext")
    area = kwargs["height"] * kwargs["width"]
    resize = kwargs.pop("auto_resize", False)
    source = torch.Generator().manual_seed
    expected = theirs(**kwargs, max_area=area, _auto_resize=resize, generator=source(3)).images
    return expected, ours(**kwargs, auto_resize=resize, generator=source(3)).images


@pytest.mark.parametrize("case", CASES)
def test_references_at_their_own_size(oracle: Get, case: str) -> None:
    tiny, rows, columns, more = CASES[case]
    assert_close(*both(oracle(tiny), **arguments(tiny, rows, columns, {"image": start(50, 37)} | more)))


def test_the_reference_matters(oracle: Get) -> None:
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder), variant="kontext")
    kwargs = arguments("dev", 4, 3, {"seed": 1})
    images = (start(48, 64), start(48, 64, 1), None)
    one, other, none = (pipe(**kwargs, image=image, auto_resize=False).images for image in images)
    assert np.abs(one - other).max() > 0.01 and np.abs(one - none).max() > 0.01


def test_without_a_reference_it_is_text_to_image(oracle: Get) -> None:
    kwargs = arguments("dev", 4, 3, {})
    theirs = FluxKontextPipeline.from_pipe(oracle("dev").pipe)
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), variant="kontext")
    source = torch.Generator().manual_seed
    expected = theirs(**kwargs, max_area=kwargs["height"] * kwargs["width"], generator=source(3)).images
    assert_close(expected, ours(**kwargs, generator=source(3)).images)


@pytest.mark.parametrize(("width", "height"), [(50, 37), (20, 90)])
def test_references_are_brought_to_the_sizes_it_was_trained_on(
    oracle: Get, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    """This autoencoder has 2 px a cell: the model's own area is 256 x 256, and so is that of its references."""
    token, size = 2 * TINIES["fixed"].factor, 1024 * TINIES["fixed"].factor // 8
    assert tuple(theirs_module.PREFERRED_KONTEXT_RESOLUTIONS) == KONTEXT_SIZES
    scaled = [tuple(token * round(side * size / 1024 / token) for side in pair) for pair in KONTEXT_SIZES]
    monkeypatch.setattr(theirs_module, "PREFERRED_KONTEXT_RESOLUTIONS", scaled)
    kwargs = arguments("fixed", 5, 7, {"image": start(width, height), "num_inference_steps": 1, "auto_resize": True})
    assert_close(*both(oracle("fixed"), **kwargs))


# name -> other arguments, those of diffusers alone, those of ours alone
REPAINTED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "all of it": ({"strength": 1.0}, {}, {}),
    "in part": ({"strength": 0.7, "num_inference_steps": 4}, {}, {}),
    "after a reference": (
        {"strength": 0.7}, {"image_reference": start(30, 66, 5)}, {"reference_images": [start(30, 66, 5)]}
    ),
    "by diffusers' name": ({}, {"image_reference": start(30, 66, 5)}, {"image_reference": start(30, 66, 5)}),
}  # fmt: skip


@pytest.mark.parametrize("case", REPAINTED)
def test_repainting(oracle: Get, case: str) -> None:
    """The picture to repaint is encoded to its mean here, as references are; elsewhere diffusers takes a sample."""
    more, for_theirs, for_ours = REPAINTED[case]
    theirs = FluxKontextInpaintPipeline.from_pipe(oracle("dev").pipe)
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, variant="kontext")
    mask = start(48, 64, 2).convert("L").point(lambda grey: 255 * (grey > 128))
    kwargs = arguments("dev", 4, 3, {"image": start(48, 64), "mask_image": mask} | more)
    area, source = kwargs["height"] * kwargs["width"], torch.Generator().manual_seed
    expected = theirs(**kwargs, **for_theirs, max_area=area, _auto_resize=False, generator=source(3)).images
    assert_close(expected, ours(**kwargs, **for_ours, auto_resize=False, generator=source(3)).images)
