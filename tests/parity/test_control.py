"""Models with a control picture (canny, depth) against diffusers' FluxControlPipeline: pixels within 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import FluxControlImg2ImgPipeline, FluxControlInpaintPipeline, FluxControlPipeline

from fluxone import FluxPipeline
from fluxone.conditions.control import canny
from fluxone.errors import BadRequest
from parity.conftest import TINIES, build
from parity.test_pipeline import arguments, assert_close, start

Get = Callable[[str], tuple[FluxControlPipeline, Path]]


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Get:
    made: dict[str, tuple[FluxControlPipeline, Path]] = {}

    def get(name: str) -> tuple[FluxControlPipeline, Path]:
        if name not in made:
            folder = tmp_path_factory.mktemp(f"control-{name}")
            pipe = build(TINIES[name], in_channels=8 * TINIES[name].latent, kind=FluxControlPipeline)
            pipe.save_pretrained(folder)
            made[name] = pipe, folder
        return made[name]

    return get


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one": ("dev", {"guidance_scale": 10.0}),
    "two-level autoencoder, two of one": ("fixed", {"num_images_per_prompt": 2}),
    "unguided": ("schnell", {}),
    "two prompts, two each, one map": ("odd", {"prompt": ["the fox", "a dog"], "num_images_per_prompt": 2}),
    "two maps": ("dev", {"prompt": ["the fox", "a dog"], "control_image": [start(40, 60), start(70, 30, 1)]}),
    "an array": ("dev", {"control_image": np.asarray(start(48, 64), dtype=np.float32)[None] / 255}),
    "given latents": ("dev", {"latents": torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(4))}),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_diffusers(control: Get, case: str) -> None:
    tiny, more = CASES[case]
    theirs, folder = control(tiny)
    ours = FluxPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, device="cpu", variant="canny")
    kwargs = arguments(tiny, 4, 3, {"control_image": start(50, 37)} | more)
    assert_close(*(pipe(**kwargs, generator=torch.Generator().manual_seed(3)).images for pipe in (theirs, ours)))


STARTED: dict[str, tuple[str, type, dict[str, Any]]] = {
    "from a picture": ("dev", FluxControlImg2ImgPipeline, {}),
    "a part of one": ("dev", FluxControlInpaintPipeline, {"mask_image": start(9, 7, 2).convert("L")}),
    "parts of one, twice": (
        "fixed", FluxControlInpaintPipeline, {"mask_image": start(9, 7, 2).convert("L"), "num_images_per_prompt": 2}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STARTED)
def test_beside_a_picture_to_start_from(control: Get, case: str) -> None:
    tiny, kind, more = STARTED[case]
    base, folder = control(tiny)
    theirs = kind.from_pipe(base)
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, device="cpu")
    given = {"control_image": start(50, 37), "image": start(30, 40, 1), "strength": 0.7}
    kwargs = arguments(tiny, 4, 3, given | more)
    assert_close(*(pipe(**kwargs, generator=torch.Generator().manual_seed(3)).images for pipe in (theirs, ours)))


def test_the_map_matters_and_is_needed(control: Get) -> None:
    pipe = FluxPipeline.from_pretrained(str(control("dev")[1]))
    kwargs = arguments("dev", 4, 3, {"seed": 1})
    one, other = (pipe(**kwargs, control_image=start(48, 64, seed)).images for seed in (0, 1))
    assert np.abs(one - other).max() > 0.01
    with pytest.raises(BadRequest, match="depth cannot draw without a control picture"):
        pipe(**kwargs)


def test_edges_are_those_of_the_reference_implementation() -> None:
    """Source: black-forest-labs/flux, `CannyImageEncoder`: thresholds 50 and 200, three equal channels."""
    picture = start(96, 64)
    edges = np.asarray(canny(picture))
    assert edges.shape == (64, 96, 3) and set(np.unique(edges)) == {0, 255}
    assert all(np.array_equal(edges[..., i], cv2.Canny(np.asarray(picture), 50, 200)) for i in range(3))
