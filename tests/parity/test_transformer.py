"""The transformer alone against diffusers' and against the reference implementation's (`fluxbfl`).

Both compute rotations in float32 whatever the model's type, by a cast inside, and the reference its RMS norms
too; in float64 those casts alone are 1e-7, so there they are taken out of the oracles (`widened`) and all else
is left as it is. Both multiply sigma by 1000 in the
model's type and we in float32 (positions in time stay float32): sigmas and guidances are sums of few powers of
two, of which either product is exact. The reference implementation takes its frequencies in the ids' type, so
its ids are float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import diffusers.models.transformers.transformer_flux as theirs
import fluxbfl.math
import fluxbfl.modules.layers
import pytest
import torch
from fluxbfl.model import Flux as Reference
from fluxbfl.model import FluxParams
from torch import Tensor

from fluxone.nn.tokens import image_ids, text_ids
from fluxone.nn.transformer import Flux
from fluxone.shapes import FluxShape
from fluxone.weights.formats import FORMATS
from fluxone.weights.save import in_format
from parity.equal import agree, scatter

SHAPES = {
    "guided": FluxShape(hidden=48, heads=2, axes=(4, 8, 12), double_blocks=2, single_blocks=3, text_dim=20,
                        vec_dim=12, in_channels=16, out_channels=16),
    "unguided": FluxShape(hidden=30, heads=3, axes=(2, 4, 4), double_blocks=1, single_blocks=1, text_dim=9,
                          vec_dim=7, in_channels=8, out_channels=8, guided=False),
    "wide in": FluxShape(hidden=32, heads=2, axes=(4, 6, 6), double_blocks=1, single_blocks=2, text_dim=16,
                         vec_dim=5, in_channels=24, out_channels=4),
    "single only": FluxShape(hidden=16, heads=1, axes=(2, 4, 10), double_blocks=1, single_blocks=4, text_dim=6,
                             vec_dim=3, in_channels=4, out_channels=4, guided=False),
}  # fmt: skip
SIZES = {"odd": (2, 3, 5, 7), "one token": (1, 1, 1, 1), "long": (1, 9, 2, 33)}  # batch, rows, columns, text


@dataclass(frozen=True, kw_only=True)
class Case:
    img: Tensor
    img_ids: Tensor
    txt: Tensor
    txt_ids: Tensor
    sigma: Tensor
    pooled: Tensor
    guidance: Tensor | None


def case(shape: FluxShape, size: str, dtype: torch.dtype) -> Case:
    batch, rows, columns, text = SIZES[size]
    source = torch.Generator().manual_seed(1)

    def draw(*sides: int) -> Tensor:
        return torch.randn(sides, generator=source, dtype=dtype)

    return Case(
        img=draw(batch, rows * columns, shape.in_channels),
        img_ids=image_ids(rows, columns, index=0),
        txt=draw(batch, text, shape.text_dim),
        txt_ids=text_ids(text),
        sigma=torch.tensor([0.8125, 0.15625][:batch], dtype=dtype),
        pooled=draw(batch, shape.vec_dim),
        guidance=torch.tensor([3.5, 1.25][:batch], dtype=dtype) if shape.guided else None,
    )


def run(model: Flux, given: Case) -> Tensor:
    return model(given.img, given.img_ids, given.txt, given.txt_ids, given.sigma, given.pooled, given.guidance)


@pytest.fixture
def widened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the casts to float32 out of the oracles; the cosines and sines they use stay the float32 that they are."""

    def rotate(x: Tensor, turns: tuple[Tensor, Tensor], **_: Any) -> Tensor:
        cos, sin = (part[None, :, None, :] for part in turns)
        real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
        return x * cos + torch.stack((-imaginary, real), -1).flatten(-2) * sin

    def rotate_both(q: Tensor, k: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [x.unflatten(-1, (-1, 1, 2)) for x in (q, k)]
        q, k = ((turns[..., 0] * x[..., 0] + turns[..., 1] * x[..., 1]).flatten(-2) for x in pairs)
        return q, k

    def normalise(norm: Any, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6) * norm.scale

    monkeypatch.setattr(theirs, "apply_rotary_emb", rotate)
    monkeypatch.setattr(fluxbfl.math, "apply_rope", rotate_both)
    monkeypatch.setattr(fluxbfl.modules.layers.RMSNorm, "forward", normalise)


def diffusers_model(shape: FluxShape, ours: Flux) -> Any:
    model = theirs.FluxTransformer2DModel(
        in_channels=shape.in_channels,
        out_channels=shape.out_channels,
        num_layers=shape.double_blocks,
        num_single_layers=shape.single_blocks,
        attention_head_dim=shape.head_dim,
        num_attention_heads=shape.heads,
        joint_attention_dim=shape.text_dim,
        pooled_projection_dim=shape.vec_dim,
        guidance_embeds=shape.guided,
        axes_dims_rope=shape.axes,
    )
    model.load_state_dict(in_format(ours.state_dict(), FORMATS["diffusers transformer"]), strict=True)
    return model.eval()


def reference_model(shape: FluxShape, ours: Flux) -> Reference:
    model = Reference(
        FluxParams(
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            vec_in_dim=shape.vec_dim,
            context_in_dim=shape.text_dim,
            hidden_size=shape.hidden,
            mlp_ratio=shape.mlp_ratio,
            num_heads=shape.heads,
            depth=shape.double_blocks,
            depth_single_blocks=shape.single_blocks,
            axes_dim=list(shape.axes),
            theta=int(shape.theta),
            qkv_bias=True,
            guidance_embed=shape.guided,
        )
    )
    model.load_state_dict(ours.state_dict(), strict=True)
    return model.eval()


def ask_diffusers(model: Any, given: Case) -> Tensor:
    return model(
        hidden_states=given.img,
        encoder_hidden_states=given.txt,
        pooled_projections=given.pooled,
        timestep=given.sigma,
        img_ids=given.img_ids,
        txt_ids=given.txt_ids,
        guidance=given.guidance,
        return_dict=False,
    )[0]


def ask_reference(model: Reference, given: Case) -> Tensor:
    img_ids, txt_ids = (ids.double().expand(len(given.img), -1, -1) for ids in (given.img_ids, given.txt_ids))
    return model(given.img, img_ids, given.txt, txt_ids, given.sigma, given.pooled, given.guidance)


ORACLES = {"diffusers": (diffusers_model, ask_diffusers), "reference": (reference_model, ask_reference)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("oracle", ORACLES)
@torch.no_grad()
def test_equal_to_the_oracle(
    oracle: str, shape: str, size: str, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    build, ask = ORACLES[oracle]
    ours = Flux(SHAPES[shape])
    scatter(ours)
    model = build(SHAPES[shape], ours).to(dtype)
    given = case(SHAPES[shape], size, dtype)
    if dtype == torch.float64:
        request.getfixturevalue("widened")
    agree(run(ours.to(dtype), given), ask(model, given))


@pytest.mark.parametrize("shape", SHAPES)
def test_names_are_the_reference_implementations(shape: str) -> None:
    ours = Flux(SHAPES[shape])
    theirs = reference_model(SHAPES[shape], ours)
    ours.load_state_dict(theirs.state_dict(), strict=True)


@torch.no_grad()
def test_gradients_agree_with_diffusers() -> None:
    shape = SHAPES["guided"]
    ours = Flux(shape)
    scatter(ours)
    model = diffusers_model(shape, ours)
    given = case(shape, "odd", torch.float32)
    with torch.enable_grad():
        run(ours, given).square().sum().backward()
        ask_diffusers(model, given).square().sum().backward()
    grads = {name: value.grad for name, value in ours.named_parameters() if value.grad is not None}
    assert grads.keys() == dict(ours.named_parameters()).keys()
    for name, grad in in_format(grads, FORMATS["diffusers transformer"]).items():
        expected = model.get_parameter(name).grad
        assert (grad - expected).abs().max() <= 1e-5 * expected.abs().max(), name


@torch.no_grad()
def test_reference_tokens_have_an_index_of_their_own() -> None:
    """Kontext: tokens of a second picture at index 1, after the first one's."""
    shape = SHAPES["guided"]
    ours = Flux(shape)
    scatter(ours)
    given = case(shape, "odd", torch.float32)
    twice = replace(
        given,
        img=torch.cat((given.img, given.img.flip(1)), dim=1),
        img_ids=torch.cat((given.img_ids, image_ids(3, 5, index=1))),
    )
    same_place = replace(twice, img_ids=torch.cat((given.img_ids, given.img_ids)))
    agree(run(ours, twice), ask_diffusers(diffusers_model(shape, ours), twice))
    assert (run(ours, twice) - run(ours, same_place)).abs().max() > 0.001


@pytest.mark.parametrize("rounding", [torch.bfloat16, None], ids=str)
@torch.no_grad()
def test_rounding_of_sigma_and_guidance(rounding: torch.dtype | None) -> None:
    """With bfloat16 rounding the embedding sees what the reference's does; without, the exact float32 product."""
    shape = SHAPES["guided"]
    ours = Flux(shape)
    scatter(ours)
    sigma, guidance, pooled = torch.tensor([0.9397]), torch.tensor([3.3]), torch.randn(1, shape.vec_dim)

    def vec(scale: torch.Tensor, strength: torch.Tensor) -> Tensor:
        spread = [fluxbfl.modules.layers.timestep_embedding(x, 256).float() for x in (scale, strength)]
        return ours.time_in(spread[0]) + ours.guidance_in(spread[1]) + ours.vector_in(pooled)

    numbers = [x if rounding is None else (1000 * x.to(rounding)).float() / 1000 for x in (sigma, guidance)]
    got = ours.vector(sigma, guidance, pooled, rounding=rounding)
    assert torch.allclose(got, vec(numbers[0], numbers[1]), atol=1e-5)
    other = ours.vector(sigma, guidance, pooled, rounding=None if rounding else torch.bfloat16)
    assert not torch.allclose(got, other, atol=1e-2)
