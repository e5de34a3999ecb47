"""TAEF1 in place of the autoencoder's decoder against diffusers' pipeline with it, and previews drawn by it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, FluxPipeline

from fluxone import FluxPipeline as Ours
from fluxone import Recipe, Request, assemble
from fluxone.errors import BadWeights
from fluxone.preview import Palette, Sketch, previewer, tiny_near
from parity.conftest import TINIES, Oracle, build
from parity.equal import scatter
from parity.test_pipeline import arguments, assert_close

Get = Callable[[str], Oracle]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[AutoencoderTiny, Path]:
    model = AutoencoderTiny(
        latent_channels=16,
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_decoder_blocks=(1, 1, 1, 1),
    ).eval()
    scatter(model)
    with torch.no_grad():
        model.decoder.layers[-1].weight.mul_(20)  # type: ignore[union-attr, operator]
    folder = tmp_path_factory.mktemp("taef1")
    model.save_pretrained(folder)
    return model, folder


def test_pictures_are_those_of_diffusers(oracle: Get, tiny: tuple[AutoencoderTiny, Path]) -> None:
    pipe = build(TINIES["dev"])
    theirs = FluxPipeline(**{**pipe.components, "vae": tiny[0]})
    theirs.set_progress_bar_config(disable=True)
    ours = Ours.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, decoder=str(tiny[1]))
    kwargs = arguments("dev", 4, 3, {"prompt": ["the fox", "a dog"]})
    assert_close(*(pipe(**kwargs, generator=torch.Generator().manual_seed(3)).images for pipe in (theirs, ours)))
    assert "decoder" in ours.pipeline.hashes


def test_previews_use_it_where_it_is(oracle: Get, tiny: tuple[AutoencoderTiny, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(oracle("dev").folder, tmp_path / "models" / "model")
    request = Request(prompt="the fox", steps=1, seed=1)
    plain = assemble(str(folder), Recipe(device="cpu"))
    assert isinstance(previewer(plain), Palette)
    approximate = tmp_path / "models" / "vae_approx"
    approximate.mkdir()
    shutil.copy(tiny[1] / "diffusion_pytorch_model.safetensors", approximate / "taef1_decoder.safetensors")
    (approximate / "taef1_encoder.safetensors").write_bytes(b"")
    assert tiny_near(str(folder)) == approximate / "taef1_decoder.safetensors"
    given = assemble(str(folder), Recipe(device="cpu", preview_decoder=str(tiny[1])))
    job = plain.prepare(plain.resolve(request))
    latent = plain.latent(job.x, job.grid)
    wanted = (tiny[0].decode(latent).sample.detach() / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    for pipeline in (plain, given):
        painter = previewer(pipeline)
        assert isinstance(painter, Sketch)
        picture = np.asarray(painter.picture(latent[0]), dtype=np.float32) / 255
        assert picture.shape == wanted.shape and np.abs(picture - wanted).max() < 0.01
    assert np.array_equal(plain(request).images[0], given(request).images[0])  # a preview's decoder draws no result


def test_one_for_other_latents_is_refused(oracle: Get, tiny: tuple[AutoencoderTiny, Path]) -> None:
    with pytest.raises(BadWeights, match="decodes 16 channels, 8 px a cell; this model's latents have 4, 2 px"):
        Ours.from_pretrained(str(oracle("fixed").folder), decoder=str(tiny[1]))
