"""Pictures that are given as latents, and Kontext's own arguments, against diffusers: pixels within 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxKontextPipeline
from torch import Tensor

from fluxone import FluxPipeline
from fluxone.errors import BadRequest
from parity.conftest import Oracle
from parity.test_fill import spot
from parity.test_pipeline import arguments, assert_close, both, start

Get = Callable[[str], Oracle]


def latents(rows: int, columns: int, *, batch: int = 1, channels: int = 16, seed: int = 5) -> Tensor:
    return torch.randn(batch, channels, 2 * rows, 2 * columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("image", ["one", "each", "listed"])
def test_image_to_image(oracle: Get, image: str) -> None:
    given: Any = {"one": latents(4, 3), "each": latents(4, 3, batch=2), "listed": list(latents(4, 3, batch=2))}[image]
    more = {"prompt": ["the fox", "a dog"], "image": given, "strength": 0.7, "num_inference_steps": 4}
    assert_close(*both(oracle("dev"), FluxImg2ImgPipeline, **arguments("dev", 4, 3, more)))


def test_repainting(oracle: Get) -> None:
    """diffusers masks the latents, which it cannot, unless it is told what is left of them; it does not use that."""
    given = latents(4, 3)
    kwargs = arguments("dev", 4, 3, {"image": given, "mask_image": spot(48, 64), "strength": 0.9})
    theirs = FluxInpaintPipeline.from_pipe(oracle("dev").pipe)
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, device="cpu")
    source = torch.Generator().manual_seed
    expected = theirs(**kwargs, masked_image_latents=given, generator=source(3)).images
    assert_close(expected, ours(**kwargs, generator=source(3)).images)


def test_a_reference_of_its_own_size(oracle: Get) -> None:
    theirs = FluxKontextPipeline.from_pipe(oracle("dev").pipe)
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, variant="kontext")
    kwargs = arguments("dev", 4, 3, {"image": latents(2, 5)})
    area, source = kwargs["height"] * kwargs["width"], torch.Generator().manual_seed
    expected = theirs(**kwargs, max_area=area, generator=source(3)).images
    assert_close(expected, ours(**kwargs, max_area=area, generator=source(3)).images)


@pytest.mark.parametrize(("height", "width", "area"), [(96, 64, 48 * 48), (30, 100, 80 * 80), (64, 64, 50 * 50)])
def test_sizes_are_brought_to_an_area(oracle: Get, height: int, width: int, area: int) -> None:
    theirs = FluxKontextPipeline.from_pipe(oracle("dev").pipe)
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, variant="kontext")
    asked = {"height": height, "width": width, "max_area": area, "image": start(50, 37), "_auto_resize": False}
    kwargs, source = arguments("dev", 1, 1, asked), torch.Generator().manual_seed
    expected = theirs(**kwargs, generator=source(3)).images
    assert_close(expected, ours(**kwargs, generator=source(3)).images)


def test_the_size_is_that_of_the_latents_or_of_what_is_repainted(oracle: Get) -> None:
    folder, asked = str(oracle("dev").folder), arguments("dev", 1, 1, {"num_inference_steps": 1, "seed": 1})
    open_ = {name: value for name, value in asked.items() if name not in ("height", "width")}
    plain, kontext = (FluxPipeline.from_pretrained(folder, variant=row) for row in (None, "kontext"))
    assert plain(**open_, image=latents(3, 2), strength=0.9).images.shape == (1, 48, 32, 3)
    repainted = {"image": start(50, 37), "mask_image": spot(50, 37), "auto_resize": False}
    assert kontext(**open_, **repainted).images.shape == (1, 32, 48, 3)


def test_a_walk_goes_on_from_the_latents_of_another(oracle: Get) -> None:
    """The picture's own latents start the same walk as the picture, where it is encoded to its mean."""
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32)
    kwargs = arguments("dev", 3, 2, {"seed": 1, "strength": 0.6})
    picture = start(32, 48)
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    encoded = pipe.pipeline.encode_pixels(pixels, None, posterior=False)
    assert_close(pipe(**kwargs, image=picture).images, pipe(**kwargs, image=encoded).images)


def test_latents_that_do_not_fit_are_refused(oracle: Get) -> None:
    folder = str(oracle("dev").folder)
    plain, kontext = (FluxPipeline.from_pretrained(folder, variant=row) for row in (None, "kontext"))
    kwargs = arguments("dev", 3, 2, {"seed": 1})
    several = {"reference_images": [latents(2, 2), start(20, 20)], "reference_layout": "stitched"}
    wrong: list[tuple[FluxPipeline, dict[str, Any], str]] = [
        (plain, {"image": latents(3, 3)}, "image is latents of 48x48 px, and 32x48 is drawn"),
        (plain, {"image": latents(3, 2)[..., :3]}, "latents of 3x6 cells"),
        (plain, {"image": [latents(3, 2), latents(2, 2)]}, "latents of 4x4 and 4x6 cells"),
        (plain, {"image": latents(3, 2, channels=8)}, r"shape \(1, 8, 6, 4\)"),
        (kontext, several, "latents are to be stitched"),
        (kontext, {"image": start(20, 20), "max_area": 0}, "max_area is 0"),
    ]
    for pipe, more, said in wrong:
        with pytest.raises(BadRequest, match=said):
            pipe(**kwargs, **more)
