"""How the Python door comes about and goes: loaded, shared, saved, in diffusers' names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fluxone import FluxPipeline
from fluxone.errors import BadFile, BadRequest, HubError
from fluxone.lora.adapters import Strength
from fluxone.weights import hub, load
from unit.tiny import pipeline

ASKED = {
    "prompt": "a red car", "height": 32, "width": 48, "num_inference_steps": 2, "seed": 1, "output_type": "np",
    "max_sequence_length": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> FluxPipeline:
    return FluxPipeline(pipeline(tmp_path_factory.mktemp("words")))


@pytest.fixture(scope="module")
def folder(pipe: FluxPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("saved") / "model"
    pipe.save_pretrained(place, safe_serialization=True)
    return place


def test_what_is_saved_draws_the_same(pipe: FluxPipeline, folder: Path) -> None:
    again = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32, device="cpu")
    assert np.array_equal(again(**ASKED).images, pipe(**ASKED).images)


def test_another_door_shares_the_model_and_its_adapters(pipe: FluxPipeline, lora: dict[str, torch.Tensor]) -> None:
    other = FluxPipeline.from_pipe(pipe, torch_dtype=torch.float32)
    assert other is not pipe and other.transformer is pipe.transformer
    plain = pipe(**ASKED).images
    other.load_lora_weights(lora, adapter_name="a")
    assert pipe.get_active_adapters() == ["a"]
    assert np.array_equal(pipe(**ASKED).images, other(**ASKED).images)
    pipe.unload_lora_weights()
    assert np.array_equal(other(**ASKED).images, plain)
    with pytest.raises(BadRequest, match=r"load it with torch_dtype=torch\.bfloat16"):
        FluxPipeline.from_pipe(pipe, torch_dtype=torch.bfloat16)
    with pytest.raises(BadRequest, match="from_pipe is given a Linear"):
        FluxPipeline.from_pipe(torch.nn.Linear(1, 1))


def test_the_parts_have_diffusers_names(pipe: FluxPipeline) -> None:
    parts = pipe.components
    assert set(parts) == {"vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer"}
    assert parts["transformer"] is pipe.transformer and parts["text_encoder"] is pipe.bundle.clip


@pytest.fixture(scope="module")
def lora() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    key = "transformer.single_transformer_blocks.0.proj_out"
    return {f"{key}.lora_A.weight": torch.randn(2, 160), f"{key}.lora_B.weight": torch.randn(32, 2)}


def test_what_is_fused_is_saved_and_what_works_beside_is_refused(
    pipe: FluxPipeline, lora: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    pipe.load_lora_weights(lora, adapter_name="a")
    try:
        with pytest.raises(BadRequest, match="a works beside the weights, not in them; call fuse_lora"):
            pipe.save_pretrained(tmp_path / "beside")
        pipe.fuse_lora()
        pipe.save_pretrained(tmp_path / "fused")
        fused = pipe(**ASKED).images
    finally:
        pipe.unfuse_lora()
        pipe.unload_lora_weights()
    again = FluxPipeline.from_pretrained(tmp_path / "fused", torch_dtype="float32", device="cpu")
    assert np.array_equal(again(**ASKED).images, fused)


def test_a_fused_control_lora_is_a_model_for_control_pictures(tmp_path: Path) -> None:
    pipe = FluxPipeline(pipeline(tmp_path))
    key = "transformer.x_embedder"
    wide = {f"{key}.lora_A.weight": torch.randn(2, 32), f"{key}.lora_B.weight": torch.randn(32, 2)}
    pipe.load_lora_weights(wide, adapter_name="depth")
    pipe.pipeline.adapters.use({"depth": Strength(scale=0.5)})
    pipe.fuse_lora()
    pipe.save_pretrained(tmp_path / "wide")
    index = json.loads((tmp_path / "wide" / "model_index.json").read_text())
    assert index["_class_name"] == "FluxControlPipeline"
    asked = {**ASKED, "control_image": torch.rand(3, 32, 48), "guidance_scale": 3.0}
    again = FluxPipeline.from_pretrained(tmp_path / "wide", torch_dtype="float32", device="cpu")
    assert np.array_equal(again(**asked).images, pipe(**asked).images)


def test_packed_weights_and_pickles_are_not_saved(folder: Path, pipe: FluxPipeline, tmp_path: Path) -> None:
    packed = FluxPipeline.from_pretrained(folder, quant="int8", device="cpu")
    with pytest.raises(BadRequest, match="the Flux's weights are packed as int8; load it without quant"):
        packed.save_pretrained(tmp_path / "packed")
    with pytest.raises(BadRequest, match="written as safetensors alone"):
        pipe.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert not list(tmp_path.iterdir())


LINK = "https://huggingface.co/someone/flux/blob/main/sub/flux1.safetensors"


@pytest.mark.parametrize("link", [LINK, "hf.co/someone/flux/resolve/main/sub/flux1.safetensors?download=true"])
def test_a_single_file_may_be_an_address_of_the_hub(link: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, str | None]] = []

    def download(repo: str, *, file: str | None = None, token: str | None = None) -> Path:
        asked.append((repo, file, token))
        return folder

    monkeypatch.setattr(load.hub, "download", download)
    FluxPipeline.from_single_file(link, token="t", device="cpu")
    assert asked == [("someone/flux", "sub/flux1.safetensors", "t")]
    with pytest.raises(BadFile, match="does not exist"):
        FluxPipeline.from_single_file("https://huggingface.co/someone/flux/blob/main/flux1.ckpt")


def test_a_file_that_was_pulled_is_found_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def pull(repo: str, *, file: str | None = None, token: str | None = None) -> hub.Pulled:
        raise hub.Unreachable("no way to the hub")

    monkeypatch.setattr(hub, "pull", pull)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    here = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    here.mkdir(parents=True)
    (here / "flux1.safetensors").touch()
    assert hub.download("a/b", file="flux1.safetensors") == here / "flux1.safetensors"
    for file in ("other.safetensors", "../../../../etc.safetensors"):
        with pytest.raises(HubError, match="no way"):
            hub.download("a/b", file=file)
