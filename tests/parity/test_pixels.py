"""Pictures and masks as diffusers' image processor reads them, of every kind that it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from fluxone import pixels as px
from fluxone.errors import BadRequest
from fluxone.geometry import Resolution

SIZE = Resolution(height=32, width=48)
RNG = np.random.default_rng(0)
COLOURS = RNG.random((20, 30, 3), dtype=np.float32)
CHANNELS = torch.from_numpy(COLOURS).permute(2, 0, 1)
PIL = Image.fromarray((COLOURS * 255).astype(np.uint8))
PICTURES: dict[str, Any] = {
    "pil": PIL,
    "several pil": [PIL, PIL.rotate(90)],
    "array": COLOURS,
    "arrays": np.stack([COLOURS, COLOURS[::-1]]),
    "list of arrays": [COLOURS, COLOURS[::-1]],
    "tensor": CHANNELS[None],
    "list of tensors": [CHANNELS, CHANNELS.flip(1)],
    "signed": CHANNELS[None] * 2 - 1,
    "signed, one of them bright": torch.stack([CHANNELS * 2 - 1, CHANNELS.clamp(min=0.5)]),
    "signed, one of a list bright": [CHANNELS * 2 - 1, CHANNELS.clamp(min=0.5)],
    "signed array": COLOURS * 2 - 1,
}
MASKS: dict[str, Any] = {
    "pil": PIL.convert("L"),
    "black and white": PIL.convert("1"),
    "colours": PIL,
    "tensor": CHANNELS[:1],
    "tensors": CHANNELS[:1][None],
    "array": COLOURS[..., 0][None],
    "array with a channel": COLOURS[..., :1],
}


@pytest.mark.filterwarnings("ignore:Passing `image` as torch tensor:FutureWarning")
@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(kind: str) -> None:
    theirs = VaeImageProcessor(vae_scale_factor=16).preprocess(PICTURES[kind], SIZE.height, SIZE.width)
    assert torch.equal(px.from_images(PICTURES[kind], SIZE), theirs)


@pytest.mark.parametrize("kind", MASKS)
def test_masks(kind: str) -> None:
    processor = VaeImageProcessor(vae_scale_factor=16, do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    theirs = processor.preprocess(MASKS[kind], SIZE.height, SIZE.width)
    assert torch.equal((px.masks(MASKS[kind], SIZE) >= 0.5).float(), theirs)


WRONG: list[tuple[Any, str]] = [
    ((COLOURS * 255).astype(np.uint8), "values run from 0 to 25.; arrays and tensors are of 0 to 1: divide"),
    (CHANNELS * 3 - 1.5, "values run from -1"),
    (CHANNELS * float("nan"), "values run from nan"),
    (COLOURS[..., 0], r"shape \(20, 30\); three colours"),
    (torch.rand(4, 8, 8), "three colours"),
    (torch.rand(1, 3, 0, 8), "three colours"),
    (np.array([["a"]]), "picture is a ndarray"),
    (torch.zeros(3, 8, 8, dtype=torch.complex64), "picture is a Tensor"),
    ([PIL, "b.png"], "picture is a str"),
    (None, "picture is a NoneType"),
]


@pytest.mark.parametrize(("picture", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_picture_is_said(picture: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        px.from_images(picture, SIZE)


@pytest.mark.parametrize("mask", [COLOURS, COLOURS[..., :1] * -1, "a.png", torch.zeros(0, 8), CHANNELS[None]])
def test_what_is_no_mask_is_said(mask: Any) -> None:
    with pytest.raises(BadRequest, match="mask"):
        px.masks(mask, SIZE)
