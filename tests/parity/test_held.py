"""Networks of diffusers and transformers, and our own, given to `from_pretrained` in place of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxControlNetPipeline, FluxMultiControlNetModel

from fluxone import FluxPipeline
from fluxone.errors import BadRequest, BadWeights
from parity.conftest import TINIES, Oracle, build
from parity.test_controlnet import controlnet
from parity.test_pipeline import arguments, assert_close, start

Get = Callable[[str], Oracle]
NETWORKS = ("transformer", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def other() -> Any:
    """Another model of the same shape."""
    return build(TINIES["dev"], seed=7)


def drawn(pipe: Any, **more: Any) -> Any:
    asked = arguments("dev", 3, 2, {"num_inference_steps": 2} | more)
    return pipe(**asked, generator=torch.Generator().manual_seed(3)).images


@pytest.mark.parametrize("names", [NETWORKS, ("transformer",), ("text_encoder_2", "text_encoder"), ("vae",)])
def test_those_of_diffusers_are_used(oracle: Get, other: Any, names: tuple[str, ...]) -> None:
    folder, own = str(oracle("dev").folder), oracle("dev").pipe
    networks = {name: getattr(other if name in names else own, name) for name in NETWORKS}
    theirs = type(own)(**{**own.components, **networks})
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32, **{name: networks[name] for name in names})
    assert_close(drawn(theirs), drawn(ours))
    assert np.abs(drawn(ours) - drawn(own)).max() > 0.01


@pytest.mark.parametrize("tiny", TINIES)
def test_every_shape_is_told_by_the_networks_own_config(oracle: Get, tiny: str) -> None:
    own, folder = oracle(tiny).pipe, str(oracle(tiny).folder)
    networks = {name: getattr(own, name) for name in NETWORKS}
    plain, held = (FluxPipeline.from_pretrained(folder, **given).pipeline.bundle for given in ({}, networks))
    for name in ("transformer", "autoencoder", "t5", "clip"):
        one, same = getattr(plain, name), getattr(held, name)
        assert one.shape == same.shape
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))


def test_our_own_are_shared(oracle: Get) -> None:
    folder = str(oracle("odd").folder)
    first = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    second = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32, **{n: getattr(first, n) for n in NETWORKS})
    for name in NETWORKS:
        one, other = (next(getattr(pipe, name).parameters()) for pipe in (first, second))
        assert one.data_ptr() == other.data_ptr()
    assert first.pipeline.hashes.keys() == second.pipeline.hashes.keys()
    assert second.pipeline.hashes["transformer"].startswith("sampled:")


def test_the_transformer_may_be_a_file_and_is_packed_like_any_other(oracle: Get, other: Any, tmp_path: Path) -> None:
    other.transformer.save_pretrained(tmp_path / "transformer")
    folder = str(oracle("dev").folder)
    file, held = (
        FluxPipeline.from_pretrained(folder, transformer=given, quant="int8", torch_dtype=torch.float32)
        for given in (tmp_path / "transformer", other.transformer)
    )
    assert np.array_equal(drawn(file), drawn(held))


@pytest.mark.parametrize("kinds", [("plain", "plain"), ("xlabs",)])
def test_controlnets(oracle: Get, kinds: tuple[str, ...]) -> None:
    own, folder = oracle("dev").pipe, str(oracle("dev").folder)
    nets = [controlnet(TINIES["dev"], kind, seed) for seed, kind in enumerate(kinds)]
    pictures, scales = [start(32, 48, seed) for seed in range(len(nets))], [0.8, 0.5][: len(nets)]
    hints: dict[str, Any] = {"control_image": pictures, "controlnet_conditioning_scale": scales}
    together = FluxMultiControlNetModel(nets)
    if len(nets) == 1:
        hints, together = {name: value[0] for name, value in hints.items()}, nets[0]
    theirs = FluxControlNetPipeline(**own.components, controlnet=together)
    theirs.set_progress_bar_config(disable=True)
    for given in (nets, together):
        ours = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32, controlnet=given)
        names = ours.get_list_controlnets()
        assert names == ["FluxControlNetModel", "FluxControlNetModel-2"][: len(nets)]
        assert_close(drawn(theirs, **hints), drawn(ours, **hints))
    assert len(ours.pipeline.hashes) == 4 + len(nets)


def test_what_cannot_be_used_is_said(oracle: Get, other: Any) -> None:
    folder = str(oracle("dev").folder)
    packed = torch.nn.Linear(2, 2)
    packed.weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.uint32), requires_grad=False)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"transformer": other.text_encoder_2}, "a T5EncoderModel is given as the transformer"),
        ({"text_encoder": torch.nn.Linear(2, 2)}, "a Linear is given as the CLIP text encoder.*it holds bias, weight"),
        ({"vae": packed}, "the given Linear is packed .weight is torch.uint32.; give the path of its file"),
        ({"vae": torch.nn.Linear(2, 2, device="meta")}, "the given Linear has no weights in memory"),
        ({"transformer": build(TINIES["odd"]).transformer}, "gives 64 channels.*of different models|takes"),
        ({"controlnet": other.vae}, "a AutoencoderKL is given as controlnet"),
    ]
    for given, said in wrong:
        with pytest.raises(BadWeights, match=said):
            FluxPipeline.from_pretrained(folder, **given)
    with pytest.raises(BadRequest, match="a part is given as int; give the path of its file or folder, or the network"):
        FluxPipeline.from_pretrained(folder, transformer=5)
