"""What a file is, is told from its header: no torch, no tensors, no complaint about what is only unusual."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fluxone.errors import BadFile
from fluxone.nn.transformer import Flux
from fluxone.variants import DEV, MINI, VARIANTS, Kind
from fluxone.weights.formats import FORMATS
from fluxone.weights.identify import row_of
from fluxone.weights.inspect import inspect
from fluxone.weights.save import in_format, save_file
from unit.weights import tiny


def test_a_folder(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    report = inspect(folder)
    assert (report.kind, report.layout, report.variant) == ("model", "diffusers folder", "dev")
    assert report.missing == ()
    assert report.notes == ()
    assert [part.name for part in report.parts] == ["transformer", "autoencoder", "t5", "clip"]
    for part, module in zip(report.parts, tiny.networks().values(), strict=True):
        numbers = sum(parameter.numel() for parameter in module.parameters())
        assert (part.numbers, part.bytes) == (numbers, 4 * numbers)
        assert part.precision == {"float32": numbers}
    assert json.loads(json.dumps(report.as_dict()))["parts"][0]["layout"] == "diffusers transformer"
    (folder / "model_index.json").write_text('{"_class_name": "FluxKontextPipeline"}')
    assert inspect(folder).variant == "kontext"


def test_a_file_tells_what_it_lacks_and_of_which_precision_it_is(tmp_path: Path) -> None:
    state = tiny.network("transformer").state_dict()
    mixed = {
        name: tensor if name.endswith("scale") else tensor.to(torch.float8_e4m3fn) for name, tensor in state.items()
    }
    save_file(tmp_path / "m.safetensors", mixed, metadata={"modelspec.title": "A model"})
    report = inspect(tmp_path / "m.safetensors")
    assert (report.kind, report.layout) == ("model", "bfl transformer file")
    scales = sum(tensor.numel() for name, tensor in state.items() if name.endswith("scale"))
    assert report.parts[0].precision == {"float32": scales, "float8_e4m3fn": report.parts[0].numbers - scales}
    assert len(report.missing) == 5
    assert report.metadata == {"modelspec.title": "A model"}
    text = "\n".join(report.lines())
    for words in ("m.safetensors", "float8_e4m3fn 99", "missing", "the autoencoder (ae.safetensors)", "A model"):
        assert words in text, words


def test_all_in_one_and_parts_and_shards(tmp_path: Path) -> None:
    report = inspect(tiny.all_in_one(tmp_path / "all.safetensors"))
    assert report.layout == "ComfyUI all-in-one file"
    assert len(report.parts) == 4
    assert len(report.missing) == 2
    file = tiny.one_file(tmp_path / "ae.safetensors", tiny.network("autoencoder"), FORMATS["bfl autoencoder"])
    report = inspect(file)
    assert (report.kind, report.layout, report.missing) == ("part of a model", "bfl autoencoder file", ())
    folder = tiny.folder(tmp_path / "model")
    assert inspect(folder / "vae").layout == "diffusers autoencoder file"
    held = in_format(tiny.network("autoencoder").state_dict(), FORMATS["bfl autoencoder"])
    names = dict.fromkeys(held, "ae.safetensors")
    (tmp_path / "ae.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert inspect(tmp_path / "ae.safetensors.index.json").parts[0].name == "autoencoder"


@pytest.mark.parametrize(
    "names",
    [
        ["transformer.x_embedder.lora_A.weight", "transformer.x_embedder.lora_B.weight"],
        ["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "lora_unet_double_blocks_0_img_attn_qkv.alpha"],
        ["double_blocks.0.processor.qkv_lora1.down.weight"],
        ["lycoris_transformer_blocks_7_attn_to_v.lokr_w1"],
        ["img_in.lora_A.weight", "double_blocks.0.img_attn.norm.key_norm.scale"],
    ],
)
def test_a_lora_is_no_model(names: list[str], tmp_path: Path) -> None:
    save_file(tmp_path / "l.safetensors", {name: torch.ones(2, 2) for name in names}, metadata={})
    assert inspect(tmp_path / "l.safetensors").kind == "LoRA, not a model"


def test_unknown_packed_and_incomplete_files_are_described(tmp_path: Path) -> None:
    save_file(tmp_path / "u.safetensors", {"conv.weight": torch.ones(2)}, metadata={})
    report = inspect(tmp_path / "u.safetensors")
    assert (report.kind, report.layout) == ("unknown", "1 tensors, such as conv.weight")
    state = tiny.network("transformer").state_dict()
    save_file(tmp_path / "p.safetensors", {**state, "img_in.qweight": torch.ones(1)}, metadata={})
    assert any("Nunchaku's or another" in note for note in inspect(tmp_path / "p.safetensors").notes)
    tensors = in_format(state, FORMATS["diffusers transformer"]) | {"new.weight": torch.ones(1)}
    del tensors["transformer_blocks.0.attn.to_k.bias"]
    save_file(tmp_path / "i.safetensors", tensors, metadata={})
    notes = " ".join(inspect(tmp_path / "i.safetensors").notes)
    assert "1 unknown names: new.weight" in notes
    assert "1 names missing: transformer_blocks.0.attn.to_k.bias" in notes
    del state["final_layer.linear.weight"]
    save_file(tmp_path / "f.safetensors", state, metadata={})
    report = inspect(tmp_path / "f.safetensors")
    assert report.variant is None
    assert any("lacks final_layer.linear.weight" in note for note in report.notes)


@pytest.mark.parametrize(("channels", "guided", "variant", "note"), [
    (16, True, "dev", ""), (16, False, "schnell", ""),
    (32, True, "depth", "control picture"), (288, True, "fill", "a mask"),
])  # fmt: skip
def test_which_variant(channels: int, guided: bool, variant: str, note: str, tmp_path: Path) -> None:
    module = Flux(replace(tiny.FLUX, in_channels=channels, guided=guided))
    report = inspect(tiny.one_file(tmp_path / "m.safetensors", module, FORMATS["comfy transformer"]))
    assert report.variant == variant
    assert note in " ".join(report.notes)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="does not exist"):
        inspect(tmp_path / "nothing.safetensors")
    with pytest.raises(BadFile, match=r"without model_index\.json"):
        inspect(tmp_path)


def test_torch_is_never_imported(tmp_path: Path) -> None:
    folder, file = tiny.folder(tmp_path / "model"), tiny.all_in_one(tmp_path / "all.safetensors")
    code = (
        "import sys; from fluxone.weights.inspect import inspect; "
        "[print(line) for path in sys.argv[1:] for line in inspect(path).lines()]; "
        "assert 'torch' not in sys.modules, 'torch was imported'; assert 'numpy' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(file)], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[3] / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ComfyUI all-in-one file" in done.stdout


def test_a_folder_of_the_minis_shape_is_a_mini() -> None:
    """Rows that only add to a model (a LoRA, Redux) are never what a folder's index speaks for."""
    assert row_of(MINI.shape, None, MINI.pipeline) == MINI
    merged = row_of(VARIANTS["mini-depth"].shape, Kind.CONTROL, MINI.pipeline)  # by `fluxone lora merge`
    assert (merged.name, merged.base) == ("mini-depth", "")
    assert row_of(DEV.shape, None, "FluxKontextPipeline") == VARIANTS["kontext"]
    assert row_of(DEV.shape, None, DEV.pipeline) == DEV
    assert all(not row_of(row.shape, row.wide, row.pipeline).base for row in VARIANTS.values())
