"""Repainting with a model that takes no masks, against diffusers' FluxInpaintPipeline: pixels within 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxInpaintPipeline
from PIL import Image

from fluxone import FluxPipeline
from fluxone.errors import BadRequest
from fluxone.nn.tokens import pack
from parity.conftest import TINIES, Oracle
from parity.test_fill import spot
from parity.test_pipeline import arguments, assert_close, both, start

Get = Callable[[str], Oracle]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "most of it": ("dev", {"strength": 0.8, "num_inference_steps": 5}),
    "all of it": ("schnell", {"strength": 1.0, "guidance_scale": 0.0}),
    "two of one": ("odd", {"strength": 0.6, "num_inference_steps": 5, "num_images_per_prompt": 2}),
    "two prompts": ("fixed", {"strength": 0.7, "prompt": ["the fox", "a dog"]}),
    "true cfg": ("dev", {"strength": 0.9, "negative_prompt": "blur", "true_cfg_scale": 3.0}),
    "two pictures, one mask": (
        "dev",
        {"strength": 0.9, "prompt": ["the fox", "a dog"], "image": [start(50, 37), start(50, 37, 1)]},
    ),
    "an array": ("dev", {"strength": 0.9, "mask_image": np.asarray(spot(48, 64), dtype=np.float32) / 255}),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_diffusers(oracle: Get, case: str) -> None:
    tiny, more = CASES[case]
    given = {"image": start(50, 37), "mask_image": spot(44, 44)}
    assert_close(*both(oracle(tiny), FluxInpaintPipeline, **arguments(tiny, 4, 3, given | more)))


def test_given_latents(oracle: Get) -> None:
    """They are where the walk starts, and the noise that the rest is drowned in."""
    cells = torch.randn(1, 16, 8, 6, generator=torch.Generator().manual_seed(4))
    given = {"image": start(50, 37), "mask_image": spot(44, 44), "strength": 0.9, "num_inference_steps": 4}
    kwargs = arguments("dev", 4, 3, given)
    theirs = FluxInpaintPipeline.from_pipe(oracle("dev").pipe)
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, device="cpu")
    source = torch.Generator().manual_seed
    expected = theirs(**kwargs, latents=cells, generator=source(3)).images
    for latents in (cells, pack(cells)):
        assert_close(expected, ours(**kwargs, latents=latents, generator=source(3)).images)


def test_what_the_mask_leaves_stays_in_the_latent(oracle: Get) -> None:
    token = 2 * TINIES["dev"].factor
    mask = np.zeros((4 * token, 3 * token), dtype=np.float32)
    mask[token : 2 * token] = 1
    kwargs = arguments("dev", 4, 3, {"image": start(48, 64), "seed": 1, "output_type": "latent"})
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    one, other = (pipe(**(kwargs | {"prompt": p}), mask_image=mask, strength=1.0).images for p in ("the fox", "a dog"))
    repainted = torch.zeros(12, dtype=torch.bool)
    repainted[3:6] = True
    assert torch.equal(one[:, ~repainted], other[:, ~repainted])
    assert (one[:, repainted] - other[:, repainted]).abs().max() > 0.01


def patch(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, box)
    return mask


CROPS: dict[str, tuple[tuple[int, int], tuple[int, int, int, int], int]] = {
    "in the middle": ((150, 130), (60, 50, 80, 71), 10),
    "at a corner, no margin": ((150, 130), (131, 0, 150, 30), 0),
    "at the bottom, wide": ((90, 120), (5, 100, 80, 119), 7),
    "in a strip that has no room for the aspect": ((200, 30), (20, 2, 60, 28), 4),
    "more margin than picture": ((60, 70), (10, 10, 30, 30), 500),
}


@pytest.mark.parametrize("case", CROPS)
def test_a_small_part_is_cut_out_and_put_back(oracle: Get, case: str) -> None:
    (width, height), box, margin = CROPS[case]
    picture, mask = start(width, height), patch(width, height, box)
    more = {"image": picture, "mask_image": mask, "padding_mask_crop": margin, "strength": 0.9, "output_type": "pil"}
    theirs, ours = both(oracle("dev"), FluxInpaintPipeline, **arguments("dev", 4, 3, more | {"num_inference_steps": 2}))
    one, other = np.asarray(theirs[0], dtype=int), np.asarray(ours[0], dtype=int)
    assert one.shape == other.shape == (height, width, 3) and np.abs(one - other).max() <= 1
    outside = np.asarray(mask) == 0
    assert np.array_equal(other[outside], np.asarray(picture)[outside]) and not np.array_equal(other, picture)


def test_what_cannot_be_cut_out_is_said(oracle: Get) -> None:
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    given = {"image": start(48, 64), "mask_image": spot(48, 64), "padding_mask_crop": 4, "output_type": "pil"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"mask_image": None}, "without a picture and its mask"),
        ({"mask_image": spot(44, 44)}, "PIL images of one size"),
        ({"image": np.zeros((64, 48, 3), dtype=np.float32)}, "PIL images of one size"),
        ({"output_type": "np"}, "use pil"),
        ({"padding_mask_crop": -1}, "padding_mask_crop is -1"),
        ({"mask_image": patch(48, 64, (0, 0, 0, 0))}, "the mask is black"),
    ]
    for more, said in wrong:
        with pytest.raises(BadRequest, match=said):
            pipe(**arguments("dev", 4, 3, given | more))
