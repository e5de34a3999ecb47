"""What the autoencoder promises besides parity: tiles and slices that change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fluxone.nn import tiling
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.shapes import AutoEncoderShape

SHAPES = {
    "three levels": AutoEncoderShape(channels=(4, 8, 8), blocks=1, groups=2, latent=3),
    "four levels": AutoEncoderShape(channels=(4, 4, 6, 8), blocks=2, groups=2),
}


def build(name: str) -> AutoEncoder:
    torch.manual_seed(0)
    return AutoEncoder(SHAPES[name]).double()


def picture(height: int, width: int) -> Tensor:
    """Dark on one side and bright on the other, so that tiles have statistics of their own."""
    rough = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (rough - 0.5) * 0.5 + torch.linspace(-0.7, 0.7, width, dtype=torch.float64)


def test_published_size() -> None:
    with torch.device("meta"):
        whole = AutoEncoder(AutoEncoderShape())
    assert sum(value.numel() for value in whole.encoder.parameters()) == 34_274_208
    assert sum(value.numel() for value in whole.decoder.parameters()) == 49_545_475


@pytest.mark.parametrize(("height", "width", "tile"), [(96, 200, 64), (136, 72, 80), (64, 256, 100)])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_tiles_are_exact(shape: str, height: int, width: int, tile: int) -> None:
    model = build(shape)
    pixels = picture(height, width)
    latent = model.encode(pixels)
    assert (model.encode(pixels, tile=tile) - latent).abs().max() <= 1e-10 * latent.abs().max()
    decoded = model.decode(latent)
    assert (model.decode(latent, tile=tile) - decoded).abs().max() <= 1e-10 * decoded.abs().max()
    model.tile = tile
    assert torch.equal(model.decode(latent), model.decode(latent, tile=tile))
    model.disable_tiling()
    assert torch.equal(model.decode(latent), decoded)


@torch.no_grad()
def test_a_sample_is_the_mean_and_noise_tiled_or_not() -> None:
    model = build("four levels")
    pixels = picture(96, 200)
    assert torch.equal(model.sample(pixels, torch.zeros_like), model.encode(pixels))
    latent = model.sample(pixels, torch.ones_like)
    assert (model.sample(pixels, torch.ones_like, tile=64) - latent).abs().max() <= 1e-10 * latent.abs().max()
    _, logvar = model.moments(pixels)
    assert torch.allclose(latent - model.encode(pixels), model.shape.scale * (0.5 * logvar).exp(), atol=1e-10)


@torch.no_grad()
def test_tiles_leave_no_seam_in_float32() -> None:
    """The step from one pixel to the next is what it is untiled, at the tiles' borders and everywhere."""
    model = build("four levels").float()
    latent = model.encode(picture(128, 256).float())
    plain, tiled = model.decode(latent), model.decode(latent, tile=64)
    for axis in (-1, -2):
        assert (tiled.diff(dim=axis) - plain.diff(dim=axis)).abs().max() <= 1e-5 * plain.abs().max()


@torch.no_grad()
def test_no_tile_is_larger_than_asked_for() -> None:
    model = build("four levels")
    widest: list[int] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        widest.append(max(args[0].shape[-2:]))

    model.decoder.conv_out.register_forward_pre_hook(note)
    model.decode(model.encode(picture(128, 256)), tile=64)
    assert max(widest) == 64 + 2 * tiling.EDGE
    assert len(widest) == 8


@torch.no_grad()
def test_a_tile_as_large_as_the_picture_is_the_picture() -> None:
    model = build("three levels")
    pixels = picture(64, 80)
    latent = model.encode(pixels)
    assert torch.equal(model.encode(pixels, tile=80), latent)
    assert torch.equal(model.decode(latent, tile=80), model.decode(latent))


@torch.no_grad()
def test_slices_are_exact_and_one_picture_at_a_time() -> None:
    model = build("three levels").float()
    pixels = picture(32, 48).float()
    alone = [(model.encode(one), model.decode(model.encode(one))) for one in pixels.split(1)]
    batches: list[int] = []
    for part in (model.encoder, model.decoder):
        part.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    model.sliced = True
    latent = model.encode(pixels)
    assert torch.equal(latent, torch.cat([one for one, _ in alone]))
    assert torch.equal(model.decode(latent), torch.cat([one for _, one in alone]))
    assert batches == [1, 1, 1, 1]


def test_tiles_give_no_gradient_and_moments_do() -> None:
    model = build("three levels")
    pixels = picture(64, 128)
    mean, logvar = model.moments(pixels)
    assert mean.shape == logvar.shape == (2, 3, 16, 32)
    (mean.sum() + logvar.sum()).backward()
    assert all(value.grad is not None for value in model.encoder.parameters())
    with torch.no_grad():
        assert not model.encode(pixels, tile=64).requires_grad
