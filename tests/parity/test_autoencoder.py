"""The autoencoder alone against diffusers' and against the reference implementation's (`fluxbfl`).

The reference has 32 groups only, so its shapes are multiples of 32. Neither oracle needs a patch in float64.

Convolutions round differently in other memory layouts, and a random decoder makes ten times more of that:
diffusers is given latents as its pipeline has them, contiguous, and the reference, which lays its features out
otherwise within a batch, is compared in float64 there.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from fluxbfl.modules.autoencoder import AutoEncoder as Reference
from fluxbfl.modules.autoencoder import AutoEncoderParams
from torch import Tensor

from fluxone.nn.autoencoder import AutoEncoder
from fluxone.shapes import AutoEncoderShape
from fluxone.weights.formats import FORMATS
from fluxone.weights.save import in_format
from parity.equal import agree, scatter

SHAPES = {
    "four levels": AutoEncoderShape(channels=(8, 16, 16, 24), blocks=1, groups=4),
    "two levels": AutoEncoderShape(channels=(6, 9), blocks=2, groups=3, latent=5, scale=0.7, shift=-0.2),
    "quantized": AutoEncoderShape(channels=(6, 12), blocks=1, groups=3, latent=3, quant=True, post_quant=True),
    "quantized, plain middle": AutoEncoderShape(
        channels=(8,), blocks=1, groups=2, latent=4, quant=True, attention=False
    ),
    "plain middle": AutoEncoderShape(channels=(4,), blocks=1, groups=1, latent=1, attention=False),
    "one level": AutoEncoderShape(channels=(10,), blocks=3, groups=5, latent=4),
}
REFERENCE = AutoEncoderShape(channels=(32, 64), blocks=1)
SIZES = {"one": (1, 5, 3), "batch": (2, 4, 7)}  # batch, rows, columns of cells


def diffusers_model(ours: AutoEncoder) -> Any:
    shape = ours.shape
    levels = len(shape.channels)
    model = AutoencoderKL(
        in_channels=shape.colours,
        out_channels=shape.colours,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=shape.channels,
        layers_per_block=shape.blocks,
        latent_channels=shape.latent,
        norm_num_groups=shape.groups,
        use_quant_conv=shape.quant,
        use_post_quant_conv=shape.post_quant,
        mid_block_add_attention=shape.attention,
        scaling_factor=shape.scale,
        shift_factor=shape.shift,
    )
    model.load_state_dict(in_format(ours.state_dict(), FORMATS["diffusers autoencoder"]), strict=True)
    return model.eval()


def reference_model(ours: AutoEncoder) -> Reference:
    shape = ours.shape
    base = shape.channels[0]
    model = Reference(
        AutoEncoderParams(
            resolution=64,
            in_channels=shape.colours,
            ch=base,
            out_ch=shape.colours,
            ch_mult=[wide // base for wide in shape.channels],
            num_res_blocks=shape.blocks,
            z_channels=shape.latent,
            scale_factor=shape.scale,
            shift_factor=shape.shift,
        )
    )
    model.load_state_dict(ours.state_dict(), strict=True)
    return model.eval()


def pixels(shape: AutoEncoderShape, size: str, dtype: torch.dtype) -> Tensor:
    batch, rows, columns = SIZES[size]
    source = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, rows * shape.factor, columns * shape.factor, generator=source, dtype=dtype) * 2 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_equal_to_diffusers(shape: str, size: str, dtype: torch.dtype) -> None:
    ours = AutoEncoder(SHAPES[shape])
    scatter(ours)
    model = diffusers_model(ours).to(dtype)
    ours.to(dtype)
    x = pixels(SHAPES[shape], size, dtype)
    posterior = model.encode(x).latent_dist
    mean, logvar = ours.moments(x)
    agree(mean, posterior.mean)
    agree(logvar.clamp(-30, 20), posterior.logvar)
    latent = ((posterior.mode() - model.config.shift_factor) * model.config.scaling_factor).contiguous()
    agree(ours.encode(x), latent)
    expected = model.decode(latent / model.config.scaling_factor + model.config.shift_factor).sample
    agree(ours.decode(latent), expected)
    agree(ours.decode_raw(mean), model.decode(posterior.mean.contiguous()).sample)


@pytest.mark.parametrize(
    ("size", "dtype"), [("one", torch.float32), ("one", torch.float64), ("batch", torch.float64)], ids=str
)
@torch.no_grad()
def test_equal_to_the_reference(size: str, dtype: torch.dtype) -> None:
    ours = AutoEncoder(REFERENCE)
    scatter(ours)
    model = reference_model(ours).to(dtype)
    ours.to(dtype)
    x = pixels(REFERENCE, size, dtype)
    latent = model.encode(x)
    agree(ours.encode(x), latent)
    agree(ours.decode(latent), model.decode(latent))


def test_names_are_the_reference_implementations() -> None:
    ours = AutoEncoder(REFERENCE)
    ours.load_state_dict(reference_model(ours).state_dict(), strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_agree_with_diffusers(shape: str) -> None:
    ours = AutoEncoder(SHAPES[shape])
    scatter(ours)
    model = diffusers_model(ours)
    x = pixels(SHAPES[shape], "batch", torch.float32)
    ours.decode_raw(ours.moments(x)[0]).square().sum().backward()
    model.decode(model.encode(x).latent_dist.mean).sample.square().sum().backward()
    grads = {name: value.grad for name, value in ours.named_parameters() if value.grad is not None}
    largest = max(value.grad.abs().max() for value in model.parameters() if value.grad is not None)
    assert grads.keys() == dict(ours.named_parameters()).keys()
    for name, grad in in_format(grads, FORMATS["diffusers autoencoder"]).items():
        assert (grad - model.get_parameter(name).grad).abs().max() <= 1e-5 * largest, name
