"""Repainting with a model that takes no masks, against diffusers' FluxInpaintPipeline: pixels within 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxInpaintPipeline

from fluxone import FluxPipeline
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
