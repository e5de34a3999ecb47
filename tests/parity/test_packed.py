"""Packed numbers come out as the packages that define them unpack them, and go in as those pack them."""

from __future__ import annotations

import warnings
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file

from fluxone.weights import gguf as ours
from fluxone.weights.mapped import CODES, Mapped
from fluxone.weights.packed.blocks import NUMBERS, numbers_of
from fluxone.weights.packed.ggml import TYPES
from fluxone.weights.packed.quantize import BLOCKS, in_blocks
from fluxone.weights.parts import read_headers
from fluxone.weights.safetensors import Outline

FIXTURES = Path(__file__).parents[1] / "fixtures" / "weights"
PACKED = [name for name, kind in TYPES.items() if kind.block > 1 and name != "Q8_K"]  # a type of memory, not of files


def blocks(name: str, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, TYPES[name].bytes), dtype=np.uint8)


@pytest.mark.parametrize("name", TYPES)
def test_the_table_of_types_is_ggmls(name: str) -> None:
    kind = GGMLQuantizationType[name]
    assert (kind.value, *gguf.GGML_QUANT_SIZES[kind]) == (TYPES[name].number, TYPES[name].block, TYPES[name].bytes)


@pytest.mark.parametrize("name", PACKED)
def test_every_bit_pattern_means_what_it_means_to_ggml(name: str) -> None:
    raw = blocks(name, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # random scales overflow
        wanted = gguf.dequantize(raw, GGMLQuantizationType[name])
    found = numbers_of(name, torch.from_numpy(raw))
    assert torch.equal(found.isnan(), torch.from_numpy(wanted).isnan())
    assert np.array_equal(found.numpy(), wanted, equal_nan=True)


def test_the_largest_k_type_by_its_formula() -> None:
    raw = torch.from_numpy(blocks("Q8_K", 3))
    raw[:, :4] = torch.tensor([0.5, -2.0, 3.0]).view(3, 1).view(torch.uint8)
    wanted = torch.tensor([[0.5], [-2.0], [3.0]]) * raw[:, 4:260].view(torch.int8).float()
    assert torch.equal(NUMBERS["Q8_K"](raw), wanted)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_packed_to_the_bit_as_ggml_packs_them(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((40, 96)).astype(np.float32)
    x[0], x[1, :40], x[2] = 0, 1, x[2] * 1e-4
    x[3, :32], x[4, :32] = np.arange(32) - 16, np.arange(32) / 2  # halves, where rounding differs
    wanted = gguf.quantize(x, GGMLQuantizationType[name])
    assert np.array_equal(in_blocks(name, torch.from_numpy(x)).numpy(), wanted.reshape(-1))


def test_a_file_of_the_package_reads_here(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    rng = np.random.default_rng(2)
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_quantization_version(2)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b" * 300, ""])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 100)
    writer.add_array("comfy.gguf.orig_shape.turned", [16, 6])
    writer.add_bool("flag", True)
    plain = {"one": rng.standard_normal(7), "two": rng.standard_normal((3, 5)), "turned": rng.standard_normal((3, 32))}
    for name, array in plain.items():
        writer.add_tensor(name, array.astype(np.float32))
    raw = {}
    for name in PACKED:
        raw[name] = blocks(name, 4, seed=3).reshape(2, -1)
        writer.add_tensor(name, raw[name], raw_dtype=GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (header,) = read_headers(path)
    assert header.metadata["general.architecture"] == "flux"
    assert header.metadata["flag"] == "True"
    assert "tokenizer.ggml.tokens" not in header.metadata
    tensors = Mapped([header])
    assert tensors.shape("turned") == (16, 6)
    for name, array in plain.items():
        assert np.array_equal(tensors.read(name).numpy().reshape(array.shape), array.astype(np.float32))
    for name, array in raw.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            wanted = gguf.dequantize(array, GGMLQuantizationType[name])
        assert np.array_equal(tensors.read(name).numpy(), wanted, equal_nan=True)
        assert np.array_equal(tensors.read(name, rows=(1, 2)).numpy(), wanted[1:], equal_nan=True)


def test_a_file_of_ours_reads_in_the_package(tmp_path: Path) -> None:
    x = torch.randn(4, 64)
    kinds = {"plain": "F32", "half": "F16", "short": "BF16", "packed": "Q5_1"}
    dtypes = {code: dtype for dtype, code in CODES.items()}

    def content(code: str) -> bytes:
        packed = in_blocks(code, x) if code in BLOCKS else x.to(dtypes[code]).flatten().view(torch.uint8)
        return bytes(packed.numpy())

    rows = [
        Outline(name=name, dtype=code, shape=(4, 64), content=lambda code=code: content(code))  # type: ignore[misc]
        for name, code in kinds.items()
    ]
    ours.write(tmp_path / "m.gguf", rows, {"general.architecture": "flux", "general.file_type": 9})
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert reader.get_field("general.architecture").contents() == "flux"
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert found.keys() == kinds.keys()
    for name, code in kinds.items():
        assert list(found[name].shape) == [64, 4]
        assert found[name].tensor_type == GGMLQuantizationType[code]
        numbers = gguf.dequantize(found[name].data, found[name].tensor_type).reshape(4, 64)
        assert np.array_equal(numbers, Mapped(read_headers(tmp_path / "m.gguf")).read(name).float().numpy())
        assert np.abs(numbers - x.numpy()).max() < 0.2


@pytest.mark.parametrize("name", ["nf4", "fp4", "nested", "odd", "eight"])
def test_what_bitsandbytes_wrote_comes_out_as_it_unpacks_it(name: str) -> None:
    """The file was written by bitsandbytes 0.50.2, with what its own functions make of each weight."""
    path = FIXTURES / "bitsandbytes.safetensors"
    wanted = load_file(path)[f"wanted.{name}"]
    tensors = Mapped(read_headers(path))
    found = tensors.read(f"{name}.weight")
    assert torch.equal(found.to(wanted.dtype), wanted) or (found - wanted).abs().max() < 2e-7 * wanted.abs().max()
    assert torch.equal(tensors.read(f"{name}.weight", rows=(1, 3)), found[1:3])
    assert not any("absmax" in left or "SCB" in left or "weight_format" in left for left in tensors.entries)
