"""Filling is strict, keeps or changes the type as told, and shares the file's pages where it can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fluxone.errors import BadWeights
from fluxone.nn.transformer import Flux
from fluxone.weights.fill import first_nonfinite, load_module
from fluxone.weights.formats import FORMATS
from fluxone.weights.parts import Part, file_parts
from fluxone.weights.save import in_format, save_file
from unit.weights import tiny

BOTH = pytest.mark.parametrize("layout", ["bfl transformer", "diffusers transformer"])


def part(path: Path, tensors: dict[str, torch.Tensor]) -> Part:
    save_file(path, tensors, metadata={})
    return file_parts(path)["transformer"]


def build() -> Flux:
    return Flux(tiny.FLUX)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_storage_is_kept_or_changed_as_told(layout: str, dtype: torch.dtype, tmp_path: Path) -> None:
    state = {name: tensor.to(dtype) for name, tensor in tiny.network("transformer").state_dict().items()}
    stored = part(tmp_path / "m.safetensors", in_format(state, FORMATS[layout]))
    for wanted, mmap in ((None, True), (None, False), (torch.float32, True), (torch.bfloat16, True)):
        module = load_module(build, stored, dtype=wanted, mmap=mmap)
        for name, tensor in module.state_dict().items():
            target = state[name].to(wanted or dtype)
            assert tensor.dtype == target.dtype
            assert torch.equal(tensor.float(), target.float()), name


def test_names_and_shapes_that_do_not_fit_are_all_told_at_once(tmp_path: Path) -> None:
    state = tiny.network("transformer").state_dict()
    state["double_blocks.7.img_mod.lin.weight"] = torch.ones(2)
    state["img_in.bias"] = torch.ones(3)
    del state["txt_in.weight"]
    with pytest.raises(BadWeights) as caught:
        load_module(build, part(tmp_path / "m.safetensors", state))
    text = str(caught.value)
    assert "1 unknown: double_blocks.7.img_mod.lin.weight" in text
    assert "1 missing: txt_in.weight" in text
    assert "1 of another shape: img_in.bias is [3], not [32]" in text
    assert str(tmp_path / "m.safetensors") in text


def test_many_missing_names_are_counted(tmp_path: Path) -> None:
    state = tiny.network("transformer").state_dict()
    kept = {name: tensor for name, tensor in state.items() if "double_blocks" not in name}
    with pytest.raises(
        BadWeights, match=rf"{len(state) - len(kept)} missing: .* and {len(state) - len(kept) - 8} more"
    ):
        load_module(build, part(tmp_path / "m.safetensors", kept))


def test_a_missing_piece_of_a_fused_weight_is_named_as_in_the_file(tmp_path: Path) -> None:
    tensors = in_format(tiny.network("transformer").state_dict(), FORMATS["diffusers transformer"])
    del tensors["transformer_blocks.1.attn.to_k.weight"]
    tensors["extra.weight"] = torch.ones(1)
    with pytest.raises(
        BadWeights, match=r"unknown: extra.weight; 1 missing: transformer_blocks\.1\.attn\.to_k\.weight"
    ):
        load_module(build, part(tmp_path / "m.safetensors", tensors))


def test_a_wider_network_is_told(tmp_path: Path) -> None:
    stored = part(tmp_path / "m.safetensors", tiny.network("transformer").state_dict())
    with pytest.raises(BadWeights, match=r"of another shape: txt_in.weight is \[32, 24\], not \[32, 30\]"):
        load_module(lambda: Flux(replace(tiny.FLUX, text_dim=30)), stored)


@pytest.mark.parametrize(
    "name", ["img_in.bias.scale_weight", "img_in.weight.absmax", "img_in.comfy_quant", "img_in.qweight"]
)
def test_packed_numbers_are_refused_by_kind(name: str, tmp_path: Path) -> None:
    state = {**tiny.network("transformer").state_dict(), name: torch.ones(1)}
    with pytest.raises(BadWeights, match=rf"is (fp8 with a scale|4-bit|one of ComfyUI|Nunchaku).*\({name}\)"):
        load_module(build, part(tmp_path / "m.safetensors", state))


def spans(path: Path) -> list[range]:
    """Where this process has mapped a file."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    ends = [line.split()[0].split("-") for line in lines]
    return [range(int(start, 16), int(stop, 16)) for start, stop in ends]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is mapped")
def test_unchanged_parameters_share_the_files_pages(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    stored = part(file, tiny.network("transformer").state_dict())
    shared = load_module(build, stored)
    places = [parameter.data_ptr() for parameter in shared.parameters()]
    assert all(any(place in span for span in spans(file)) for place in places)
    del shared
    copied = load_module(build, stored, mmap=False)
    assert not spans(file)
    tiny.equal(copied, tiny.network("transformer"))


def test_training_a_shared_parameter_leaves_the_file_alone(tmp_path: Path) -> None:
    stored = part(tmp_path / "m.safetensors", tiny.network("transformer").state_dict())
    before = (tmp_path / "m.safetensors").read_bytes()
    shared = load_module(build, stored)
    shared.img_in.weight.zero_()
    assert shared.img_in.weight.sum() == 0
    assert (tmp_path / "m.safetensors").read_bytes() == before
    tiny.equal(load_module(build, stored), tiny.network("transformer"))


def test_a_network_with_memory_of_its_own_is_our_mistake(tmp_path: Path) -> None:
    class Own(Flux):
        def __init__(self) -> None:
            super().__init__(tiny.FLUX)
            self.register_buffer("table", torch.arange(3), persistent=False)

    stored = part(tmp_path / "m.safetensors", tiny.network("transformer").state_dict())
    with pytest.raises(AssertionError, match="table"):
        load_module(Own, stored)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_the_first_number_that_is_none_is_found(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).requires_grad_(False).to(dtype)
    assert first_nonfinite(module) is None
    module[1].bias.data[1] = float("nan")
    assert first_nonfinite(module) == "1.bias"
    module[0].weight.data[2, 1] = float("inf")
    assert first_nonfinite(module) == "0.weight"
