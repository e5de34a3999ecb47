"""The linear map from latents to colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fluxone.geometry import Resolution
from fluxone.preview import Palette
from fluxone.request import Request
from unit.tiny import pipeline


class Linear:
    """An autoencoder whose latent is an invertible mix of the mean colour of a cell: the map can be found exactly."""

    class Autoencoder:
        class shape:
            factor = 8

    autoencoder = Autoencoder()

    def __init__(self) -> None:
        self.mix = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))

    def encode_pixels(self, pixels: torch.Tensor, sources: Any, *, posterior: bool) -> torch.Tensor:
        assert not posterior
        return torch.einsum("oc,bchw->bohw", self.mix, torch.nn.functional.avg_pool2d(pixels, 8)) + 0.3


def test_the_map_finds_the_colours_again() -> None:
    model = Linear()
    palette = Palette(model)  # type: ignore[arg-type]
    wanted = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]], [[0.4, 0.6]]])
    pixels = torch.nn.functional.interpolate(wanted[None] * 2 - 1, scale_factor=8)
    picture = palette.picture(model.encode_pixels(pixels, None, posterior=False)[0])
    assert picture.size == (2, 1)
    for x in range(2):
        found = torch.tensor(picture.getpixel((x, 0))) / 255
        assert torch.allclose(found, wanted[:, 0, x], atol=0.03)


def test_steps_of_any_model_can_be_shown(tmp_path: Path) -> None:
    pipe = pipeline(tmp_path)
    palette = Palette(pipe)
    request = pipe.resolve(Request(prompt="a red car", resolution=Resolution(height=48, width=32)))
    shown = [palette.picture(pipe.latent(step.clean, pipe.grid(request))[0]) for step in pipe.steps(request)]
    assert [picture.size for picture in shown] == [(4, 6)] * 3
    assert shown[0].tobytes() != shown[-1].tobytes()
