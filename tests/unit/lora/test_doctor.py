"""What an adapter's report says; adapters merged into files; adapters taken out of tuned models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxone.errors import BadWeights, CannotWrite
from fluxone.lora.adapters import Adapters, Strength
from fluxone.lora.base import Base
from fluxone.lora.doctor import fits, inspect, triggers
from fluxone.lora.load import load_lora, read_lora
from fluxone.lora.merge import extract, merge
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.transformer import Flux
from fluxone.variants import DEV
from fluxone.weights.fill import load_module
from fluxone.weights.parts import file_parts, folder_part
from fluxone.weights.save import save_folder
from unit.lora.by_hand import SHAPE, STYLED, H, apart, network, run
from unit.lora.styles import on_meta
from unit.tiny import LATENT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny network as a model's folder in float32."""
    path = tmp_path / "model"
    save_folder(
        path, variant=DEV, transformer=network(torch.float32), autoencoder=AutoEncoder(LATENT), t5=None, clip=None,
        tokenizers={},
    )  # fmt: skip
    return path


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """The tiny network as one file in the original names."""
    path = tmp_path / "model.safetensors"
    save_file(network(torch.float32).state_dict(), path)
    return path


def lora(tmp_path: Path, style: str = "diffusers", metadata: dict[str, str] | None = None) -> Path:
    path = tmp_path / f"{style}.safetensors"
    save_file(STYLED[style]().tensors, path, metadata=metadata)
    return path


def opened(path: Path, in_channels: int = 8) -> Flux:
    part = folder_part(path / "transformer", "transformer") if path.is_dir() else file_parts(path)["transformer"]
    return load_module(lambda: Flux(replace(SHAPE, in_channels=in_channels)), part, dtype=torch.float64)


def test_report_of_a_file(tmp_path: Path, folder: Path) -> None:
    words = json.dumps({"5_fox": {"fox": 40, "snow": 3}, "1_more": {"snow": 2, "fox ": 1}})
    metadata = {"modelspec.trigger_phrase": "a zorp", "ss_tag_frequency": words}
    report = inspect(lora(tmp_path, "onetrainer", metadata), base=str(folder))
    assert (report.format, report.width, report.channels, report.relative) == ("onetrainer", H, 8, True)
    assert (report.kinds, report.ranks, report.scales) == ({"lora": 27}, {3: 27}, {f"{2 / 3:g}": 27})
    assert report.triggers == {"a zorp": None, "fox": 41, "snow": 5}
    assert (report.unmatched, report.absent, report.wrong, report.fits) == ((), (), (), ())
    base, made = network(), STYLED["onetrainer"]().merged()
    inside = ["linear1", "linear2", "modulation.lin"]
    pairs = [(made.get_parameter(f"single_blocks.1.{m}.weight"), base.get_parameter(f"single_blocks.1.{m}.weight"))
             for m in inside]  # fmt: skip
    change = sum(((new - old) ** 2).sum() for new, old in pairs).sqrt() / sum((old**2).sum() for _, old in pairs).sqrt()
    assert report.blocks["single_blocks.1"] == pytest.approx(change.item(), rel=1e-4)
    assert any("#" in line for line in report.lines())
    json.dumps(report.as_dict())


@pytest.mark.parametrize("style", ["lycoris lokr factorized", "lycoris loha", "comfy", "onetrainer dora in"])
def test_norms_are_those_of_the_changes(tmp_path: Path, style: str) -> None:
    report = inspect(lora(tmp_path, style))
    assert not report.relative
    found = load_lora(lora(tmp_path, style))
    block = [delta.factor for delta in found.deltas if "single_blocks.1" in delta.target.name]
    squares = [factor.matrix(torch.float64).square().sum() for factor in block]
    assert report.blocks["single_blocks.1"] == pytest.approx(sum(squares).sqrt().item(), rel=1e-5)


def test_report_of_what_does_not_fit(tmp_path: Path, folder: Path) -> None:
    tensors = STYLED["kohya"]().tensors
    tensors["lora_unet_double_blocks_7_img_mlp_0.lora_down.weight"] = torch.ones(2, H)
    tensors["lora_unet_double_blocks_7_img_mlp_0.lora_up.weight"] = torch.ones(4 * H, 2)
    tensors["lora_unet_something_else.lora_up.weight"] = torch.ones(2, 2)
    path = tmp_path / "odd.safetensors"
    save_file(tensors, path)
    report = inspect(path, base=str(folder))
    assert report.unmatched == ("lora_unet_something_else.lora_up.weight",)
    assert report.absent == ("transformer double_blocks.7.img_mlp.0.weight",)
    assert not report.relative


EXITS = ["single_blocks_1_linear2", "double_blocks_0_img_mlp_2", "double_blocks_0_txt_attn_proj"]


@pytest.mark.parametrize("module", EXITS)
def test_the_width_is_told_by_what_gives_the_stream_too(tmp_path: Path, module: str) -> None:
    path = tmp_path / "exits.safetensors"
    down, up = torch.ones(2, 5 * H), torch.ones(H, 2)
    save_file({f"lora_unet_{module}.lora_down.weight": down, f"lora_unet_{module}.lora_up.weight": up}, path)
    report = inspect(path)
    assert (report.width, report.fits) == (H, ())


def test_which_models_a_published_style_fits() -> None:
    def named(style: str) -> set[str]:
        return set(fits(read_lora(on_meta(style), place=style).deltas))

    full = {"dev", "schnell", "krea", "kontext", "fill", "depth", "canny", "depth-lora", "canny-lora", "redux"}
    assert named("kohya: transformer, CLIP and T5") == named("kohya: CLIP alone") == full
    assert named("depth: the control LoRA of Black Forest Labs") == full - {"schnell", "fill"}


def test_a_control_lora_is_told_by_its_channels(tmp_path: Path) -> None:
    assert inspect(lora(tmp_path, "control")).channels == 12


def test_metadata_is_anybodys_text() -> None:
    for text in ("[", "[1]", '{"a": 1}', '{"a": {"b": "x"}}', "null"):
        assert triggers({"ss_tag_frequency": text}) == {}


@pytest.mark.parametrize("style", ["diffusers", "kohya", "onetrainer dora in", "lycoris lokr", "control", "rest"])
def test_merged_files_draw_what_the_adapter_draws(tmp_path: Path, folder: Path, single: Path, style: str) -> None:
    path, channels = lora(tmp_path, style), 12 if style == "control" else 8
    wanted = run(STYLED[style]().merged(0.6), channels)
    for model, out in ((folder, tmp_path / "merged"), (single, tmp_path / "merged.safetensors")):
        merge(str(model), [(load_lora(path), Strength(scale=0.6))], out)
        assert apart(run(opened(out, channels), channels), wanted) < 1e-5
    config = json.loads((tmp_path / "merged" / "transformer" / "config.json").read_text())
    assert config["in_channels"] == channels
    assert not list(tmp_path.glob("*.part"))


def test_merging_two_and_nothing_else_changes(tmp_path: Path, folder: Path) -> None:
    first, second = load_lora(lora(tmp_path, "kohya")), load_lora(lora(tmp_path, "comfy lokr"))
    merge(str(folder), [(first, Strength()), (second, Strength(scale=-0.5))], tmp_path / "merged")
    model = network()
    own = Adapters({"transformer": model}, width=H, dtype=torch.float64)
    own.load(first, "a")
    own.load(second, "b")
    own.use({"a": Strength(), "b": Strength(scale=-0.5)})
    assert apart(run(opened(tmp_path / "merged")), run(model)) < 1e-5
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "transformer":
            assert path.read_bytes() == (tmp_path / "merged" / path.relative_to(folder)).read_bytes()
    names = ("transformer", "diffusion_pytorch_model.safetensors")
    before, after = (load_file(root.joinpath(*names)) for root in (folder, tmp_path / "merged"))
    untouched = "transformer_blocks.0.attn.to_q.weight"
    assert torch.equal(before[untouched], after[untouched])


def test_merging_keeps_types_and_never_replaces(tmp_path: Path) -> None:
    path, model = lora(tmp_path, "kohya"), tmp_path / "half.safetensors"
    save_file(network(torch.bfloat16).state_dict(), model)
    out = tmp_path / "out.safetensors"
    merge(str(model), [(load_lora(path), Strength())], out)
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.bfloat16}
    with pytest.raises(CannotWrite, match="is there already"):
        merge(str(model), [(load_lora(path), Strength())], model)


def test_merging_what_does_not_fit_writes_nothing(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "clip.safetensors"
    save_file({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 8),
               "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(8, 1)}, path)  # fmt: skip
    with pytest.raises(BadWeights, match="this model lacks"):
        merge(str(folder), [(load_lora(path), Strength())], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("rank", [2, 3, 100])
def test_extracted_is_what_was_merged(tmp_path: Path, single: Path, rank: int) -> None:
    made = STYLED["comfy"]()
    made_rest = STYLED["rest"]()
    made_rest.value.pop("final_layer.linear.weight")
    made.value |= {name: made_rest.value[name] for name in made_rest.value if not name.endswith("weight")}
    tuned = tmp_path / "tuned.safetensors"
    save_file(made.merged().float().state_dict(), tuned)
    found = extract(str(tuned), str(single), rank=rank)
    assert (found.kept > 0.9999) == (rank >= 3)
    model = network()
    own = Adapters({"transformer": model}, width=H, dtype=torch.float64)
    own.load(found.lora, "a")
    own.use({"a": Strength()})
    assert (apart(run(model), run(made.merged())) < 1e-4) == (rank >= 3)
    ranks = {delta.factor.rank for delta in found.lora.deltas if delta.factor.rank}
    assert ranks <= {min(rank, size) for size in (8, 16, 20, 24)}


def test_nothing_to_extract(single: Path, tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="hold the same numbers"):
        extract(str(single), str(single), rank=4)
    other = tmp_path / "other.safetensors"
    state = network(torch.float32).state_dict()
    state["img_in.weight"] = torch.zeros(H, 16)
    save_file(state, other)
    with pytest.raises(BadWeights, match=r"different shapes: 1, such as img_in\.weight"):
        extract(str(other), str(single), rank=4)


def test_base_reads_native_tensors_of_both_layouts(folder: Path, single: Path) -> None:
    state = network(torch.float32).state_dict()
    for path in (folder, single):
        base = Base(str(path))
        assert (base.width, set(base.shapes["transformer"])) == (H, set(state))
        assert all(torch.equal(base.read("transformer", name), state[name]) for name in state)
