"""Fill against diffusers' FluxFillPipeline: pixels within 1e-4, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline
from PIL import Image
from safetensors.torch import save_file

from fluxone import FluxPipeline
from fluxone.errors import BadRequest, BadWeights
from parity.conftest import TINIES, build
from parity.test_pipeline import arguments, assert_close, start

Get = Callable[[str], tuple[FluxFillPipeline, Path]]


def spot(width: int, height: int) -> Image.Image:
    """White in the middle, with grey around it."""
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return Image.fromarray(((1.2 - np.hypot(rows, columns)).clip(0, 1) * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> Get:
    made: dict[str, tuple[FluxFillPipeline, Path]] = {}

    def get(name: str) -> tuple[FluxFillPipeline, Path]:
        if name not in made:
            tiny = TINIES[name]
            folder = tmp_path_factory.mktemp(f"fill-{name}")
            pipe = build(tiny, in_channels=8 * tiny.latent + 4 * tiny.factor**2, kind=FluxFillPipeline)
            pipe.save_pretrained(folder)
            made[name] = pipe, folder
        return made[name]

    return get


def both(made: tuple[FluxFillPipeline, Path], **kwargs: Any) -> tuple[Any, Any]:
    theirs, folder = made
    ours = FluxPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, device="cpu")
    return tuple(pipe(**kwargs, generator=torch.Generator().manual_seed(3)).images for pipe in (theirs, ours))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a picture and a mask": ("dev", {}),
    "two-level autoencoder": ("fixed", {}),
    "unguided, two of one": ("schnell", {"num_images_per_prompt": 2}),
    "some strength": ("odd", {"strength": 0.7, "num_inference_steps": 5}),
    "two prompts": ("dev", {"prompt": ["the fox", "a dog"]}),
    "two pictures, two masks": (
        "dev",
        {
            "prompt": ["the fox", "a dog"],
            "image": [start(40, 60), start(70, 30, 1)],
            "mask_image": [spot(40, 60), spot(70, 30).rotate(180)],
        },
    ),
    "an array": (
        "dev",
        {
            "image": np.asarray(start(48, 64), dtype=np.float32)[None] / 255,
            "mask_image": np.asarray(spot(48, 64), dtype=np.float32)[None] / 255,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_diffusers(fill: Get, case: str) -> None:
    tiny, more = CASES[case]
    given = {"image": start(50, 37), "mask_image": spot(44, 44), "strength": 1.0}
    assert_close(*both(fill(tiny), **arguments(tiny, 4, 3, given | more)))


def test_given_latents(fill: Get) -> None:
    latents = torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(4))
    given = {"image": start(50, 37), "mask_image": spot(44, 44), "latents": latents}
    assert_close(*both(fill("dev"), **arguments("dev", 4, 3, given)))


def test_it_forgets_the_picture_by_default_and_needs_it(fill: Get) -> None:
    kwargs = arguments("dev", 4, 3, {"seed": 1})
    pipe = FluxPipeline.from_pretrained(str(fill("dev")[1]))
    given = {"image": start(48, 64), "mask_image": spot(48, 64)}
    whole = pipe(**kwargs, **given).images
    assert np.array_equal(whole, pipe(**kwargs, **given, strength=1.0).images)
    assert np.abs(whole - pipe(**kwargs, **(given | {"mask_image": spot(48, 64).rotate(90)})).images).max() > 0.01
    for missing in ({}, {"image": start(48, 64)}):
        with pytest.raises(BadRequest, match="fill cannot draw without a mask and the picture"):
            pipe(**kwargs, **missing)


def test_latents_are_no_picture_to_mask(fill: Get) -> None:
    pipe = FluxPipeline.from_pretrained(str(fill("dev")[1]))
    with pytest.raises(BadRequest, match="image is given as latents, and this model masks pixels"):
        pipe(**arguments("dev", 4, 3, {"image": torch.zeros(1, 16, 8, 6), "mask_image": spot(48, 64)}))


def encoded(pipe: FluxFillPipeline, batch: int) -> torch.Tensor:
    """What the network sees beside the noise of a picture and its mask, made by diffusers."""
    picture, mask = (
        processor.preprocess(image, height=64, width=48)
        for processor, image in ((pipe.image_processor, start(50, 37)), (pipe.mask_processor, spot(44, 44)))
    )
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        masks, left = pipe.prepare_mask_latents(
            mask, picture * (1 - mask), batch, 16, 1, 64, 48, torch.float32, torch.device("cpu"), source
        )
    return torch.cat((left, masks), dim=-1)


@pytest.mark.parametrize("prompt", ["the fox", ["the fox", "a dog"]])
def test_given_masked_latents(fill: Get, monkeypatch: pytest.MonkeyPatch, prompt: Any) -> None:
    """diffusers refuses an image beside them, and stumbles over there being none; what stands for it is never used."""
    theirs, folder = fill("dev")
    batch = 1 if isinstance(prompt, str) else len(prompt)
    left = encoded(theirs, batch)
    latents = torch.randn(batch, 12, 64, generator=torch.Generator().manual_seed(4))
    kwargs = arguments("dev", 4, 3, {"prompt": prompt, "masked_image_latents": left})
    monkeypatch.setattr(theirs.image_processor, "preprocess", lambda *_, **__: torch.zeros(1, 3, 64, 48))
    expected = theirs(**kwargs, latents=latents, strength=1.0).images
    ours = FluxPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, device="cpu")
    assert_close(expected, ours(**kwargs, latents=latents).images)
    apart = {"mask_image": spot(44, 44), "masked_image_latents": left[..., :64]}
    assert_close(expected, ours(**(kwargs | apart), latents=latents).images)
    apart["masked_image_latents"] = theirs._unpack_latents(left[:1, :, :64], 64, 48, 8)
    several = ours(**(kwargs | apart | {"height": None, "width": None}), latents=latents).images
    assert_close(expected, several)


def test_masked_latents_that_do_not_fit_are_refused(fill: Get, oracle: Callable[[str], Any]) -> None:
    pipe = FluxPipeline.from_pretrained(str(fill("dev")[1]))
    plain = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    whole, latents, mask = torch.zeros(1, 12, 320), torch.zeros(1, 12, 64), spot(48, 64)
    wrong: list[tuple[FluxPipeline, dict[str, Any], str]] = [
        (pipe, {"masked_image_latents": whole, "image": start(48, 64), "mask_image": mask}, "are both given"),
        (pipe, {"masked_image_latents": whole, "mask_image": mask}, "mask_image is given too"),
        (pipe, {"masked_image_latents": latents}, "without their mask"),
        (pipe, {"masked_image_latents": whole[:, 1:]}, r"the shape \(1, 11, 320\)"),
        (pipe, {"masked_image_latents": whole.repeat(2, 1, 1)}, "2 images for 1 pictures"),
        (pipe, {"masked_image_latents": latents.repeat(3, 1, 1), "mask_image": [mask, mask]}, "2 masks for 3"),
        (pipe, {"masked_image_latents": "latents"}, "masked_image_latents is str"),
        (pipe, {"masked_image_latents": whole, "strength": 0.5}, "strength is given without an image"),
        (plain, {"masked_image_latents": whole}, "looks at no masked_image_latents"),
    ]
    for one, more, said in wrong:
        with pytest.raises(BadRequest, match=said):
            one(**arguments("dev", 4, 3, more | {"seed": 1}))


def test_an_adapter_of_the_base_model(fill: Get, tmp_path: Path) -> None:
    """It knows the noise's channels alone: the others stay as they are, as where diffusers fills it up with zeros."""
    pytest.importorskip("peft")
    made, source = fill("dev"), torch.Generator().manual_seed(5)
    network = made[0].transformer
    tensors = {}
    for name, columns in (("x_embedder", network.config.out_channels), ("transformer_blocks.0.attn.to_q", None)):
        rows, own = network.get_submodule(name).weight.shape
        tensors[f"transformer.{name}.lora_A.weight"] = 0.3 * torch.randn(4, columns or own, generator=source)
        tensors[f"transformer.{name}.lora_B.weight"] = 0.3 * torch.randn(rows, 4, generator=source)
    save_file(tensors, tmp_path / "base.safetensors")
    theirs, folder = made
    ours = FluxPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, device="cpu")
    kwargs = arguments("dev", 4, 3, {"image": start(48, 64), "mask_image": spot(48, 64)})
    plain = ours(**kwargs, generator=torch.Generator().manual_seed(3)).images
    drawn = []
    for pipe in (theirs, ours):
        pipe.load_lora_weights(str(tmp_path / "base.safetensors"), adapter_name="a")
        drawn.append(pipe(**kwargs, generator=torch.Generator().manual_seed(3)).images)
    theirs.unload_lora_weights()
    assert_close(*drawn)
    assert np.abs(np.asarray(drawn[1]) - np.asarray(plain)).max() > 0.01
    ours.fuse_lora()
    assert_close(drawn[0], ours(**kwargs, generator=torch.Generator().manual_seed(3)).images)
    wide = {"transformer.x_embedder.lora_A.weight": torch.ones(4, 2 * network.config.out_channels),
            "transformer.x_embedder.lora_B.weight": torch.ones(network.x_embedder.out_features, 4)}  # fmt: skip
    with pytest.raises(BadWeights, match="made for"):
        ours.load_lora_weights(wide)
