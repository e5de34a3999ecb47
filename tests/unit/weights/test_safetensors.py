"""Headers are read strictly; whatever else a file is, it is named."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fluxone.errors import BadFile, BadWeights
from fluxone.weights.mapped import CODES, Mapped
from fluxone.weights.safetensors import Outline, read_header, read_index, read_json, write


def raw(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def row(shape: list[Any], start: int, stop: int, dtype: str = "F32", **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop], **more}


EIGHT = bytes(8)
BROKEN: dict[str, tuple[object, bytes, str]] = {
    "overlap": ({"a": row([2], 0, 8), "b": row([1], 4, 8)}, EIGHT, "'b' overlaps the tensor before it"),
    "gap": ({"a": row([1], 0, 4), "b": row([1], 8, 12)}, bytes(12), "'b' leaves a gap"),
    "outside": ({"a": row([4], 0, 16)}, EIGHT, "is truncated"),
    "trailing": ({"a": row([1], 0, 4)}, EIGHT, "4 bytes after its last tensor"),
    "backwards": ({"a": row([2], 8, 0)}, EIGHT, "describes 'a' wrongly"),
    "negative": ({"a": row([-2], 0, 8)}, EIGHT, "describes 'a' wrongly"),
    "boolean": ({"a": row([True], 0, 8)}, EIGHT, "describes 'a' wrongly"),
    "fraction": ({"a": row([2.0], 0, 8)}, EIGHT, "describes 'a' wrongly"),
    "more keys": ({"a": row([2], 0, 8, extra=1)}, EIGHT, "describes 'a' wrongly"),
    "endless and empty": ({"a": row([2**40, 2**40, 0], 0, 0)}, b"", "describes 'a' wrongly"),
    "three offsets": ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}}, EIGHT, "describes 'a' wrongly"),
    "not an object": ({"a": 3}, EIGHT, "describes 'a' wrongly"),
    "wrong size": ({"a": row([3], 0, 8)}, EIGHT, "gives 'a'.* 8 bytes; it needs 12"),
    "unknown dtype": ({"a": row([2], 0, 8, "Q7")}, EIGHT, "holds 'a' as 'Q7'"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "metadata .* is not a table of texts"),
    "twice": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}', b"", "names twice: a"),
    "not json": (b'{"a":nonsense}', b"", "not readable JSON"),
    "not text": (b'{"\xff\xfe":1}', b"", "not readable JSON"),
    "deep": (b'{"a":' + b"[" * 100_000, b"", "not readable JSON"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_header_is_refused(fault: str, tmp_path: Path) -> None:
    header, data, words = BROKEN[fault]
    path = raw(tmp_path / "model.safetensors", header, data)
    with pytest.raises(BadWeights, match=words) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


ELSE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"These are not the weights.\nThey are a note about them.\n", "is a text file"),
    "short text": (b"hello", "is a text file"),
    "web page": (b"<!DOCTYPE html><html><head><title>Sign in</title>", "is a web page"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip archive, probably a pickled"),
    "pickle": (pickle.dumps({"a": 1}), "is a Python pickle"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(50), "is a GGUF file"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a git-lfs pointer"),
    "noise": (bytes(range(256)), "is not a safetensors file"),
    "zeros": (bytes(1000), "is not a safetensors file"),
}


@pytest.mark.parametrize("kind", ELSE)
def test_another_file_is_named(kind: str, tmp_path: Path) -> None:
    content, words = ELSE[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=words) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("ending", [".bin", ".pt", ".pth", ".ckpt", ".PT"])
def test_pickled_files_are_never_opened(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{ending}"
    with pytest.raises(BadFile, match="pickled checkpoint"):
        read_header(path)


def test_sizes_of_header_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="100,000,000 is the limit"):
        read_header(raw(tmp_path / "a.safetensors", {}, b" " * 20, length=2**40))
    with pytest.raises(BadWeights, match="truncated: 42 bytes, and its header alone has 500"):
        read_header(raw(tmp_path / "b.safetensors", {}, b" " * 32, length=500))


def test_a_folder_and_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="does not exist"):
        read_header(tmp_path / "nothing.safetensors")
    with pytest.raises(BadFile, match="cannot be read"):
        read_header(tmp_path)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    safetensors.torch.save_file({"a": torch.ones(3), "b": torch.ones(2, 2)}, whole)
    content, cut = whole.read_bytes(), tmp_path / "cut.safetensors"
    assert len(read_header(whole).entries) == 2
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(BadFile):
            read_header(cut)


TENSORS = {
    "half": torch.randn(3, 5).half(),
    "brain": torch.randn(7).bfloat16(),
    "single": torch.randn(2, 3, 4),
    "double": torch.randn(5, dtype=torch.float64),
    "eight": torch.randn(9).to(torch.float8_e4m3fn),
    "five": torch.randn(3, 3).to(torch.float8_e5m2),
    "whole": torch.arange(5),
    "yes": torch.tensor([True, False]),
    "scalar": torch.tensor(3.5),
    "nothing": torch.zeros(0, 4),
}


def same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.dtype == wanted.dtype and found.shape == wanted.shape and content(found) == content(wanted)


def content(tensor: torch.Tensor) -> list[int]:
    return tensor.reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []


def test_tensors_are_read_as_the_library_writes_them(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "a.safetensors", metadata={"who": "me"})
    header = read_header(tmp_path / "a.safetensors")
    assert header.metadata == {"who": "me"}
    tensors = Mapped([header])
    for name, tensor in TENSORS.items():
        assert same(tensors.read(name), tensor), name
        tensors.release(name)
        assert same(tensors.read(name), tensor), name


def outlines(tensors: dict[str, torch.Tensor]) -> list[Outline]:
    def later(tensor: torch.Tensor) -> Any:
        return lambda: bytes(content(tensor))

    return [
        Outline(name=name, dtype=CODES[tensor.dtype], shape=tuple(tensor.shape), content=later(tensor))
        for name, tensor in tensors.items()
    ]


def test_the_library_reads_what_is_written_and_bytes_repeat(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", outlines(TENSORS), {"b": "2", "a": "1"})
    write(tmp_path / "b.safetensors", reversed(outlines(TENSORS)), {"a": "1", "b": "2"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    found = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert same(found[name], tensor), name
    assert read_header(tmp_path / "a.safetensors").data % 8 == 0


def test_an_unaligned_tensor_is_read(tmp_path: Path) -> None:
    numbers = torch.arange(4, dtype=torch.float32)
    data = b"\x07" + numbers.numpy().tobytes()
    path = raw(tmp_path / "a.safetensors", {"a": row([1], 0, 1, "U8"), "b": row([4], 1, 17)}, data)
    assert torch.equal(Mapped([read_header(path)]).read("b"), numbers)


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(3000)}, tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    tensors = Mapped([read_header(tmp_path / "a.safetensors")])
    tensors.read("a").mul_(5)
    assert (tmp_path / "a.safetensors").read_bytes() == before
    assert tensors.read("a").sum() == 15000


def test_a_type_that_torch_lacks_is_named(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.safetensors", {"a": row([4], 0, 2, "F4")}, b"\x00\x00")
    tensors = Mapped([read_header(path)])
    with pytest.raises(BadWeights, match="holds 'a' as F4"):
        tensors.read("a")


def shards(folder: Path, where: dict[str, str]) -> Path:
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "m-1.safetensors")
    safetensors.torch.save_file({"b": torch.ones(3)}, folder / "m-2.safetensors")
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


GOOD = {"a": "m-1.safetensors", "b": "m-2.safetensors"}


def test_shards_are_one_table(tmp_path: Path) -> None:
    tensors = Mapped(read_index(shards(tmp_path, GOOD)))
    assert tensors.read("a").sum() == 2
    assert tensors.read("b").sum() == 3


def test_faults_of_an_index_are_named(tmp_path: Path) -> None:
    for where, error, words in (
        ({}, BadFile, "no weight_map"),
        ({"a": 3}, BadFile, "no weight_map"),
        ({"a": "../m-1.safetensors"}, BadFile, "outside its folder"),
        ({"a": "/etc/passwd"}, BadFile, "outside its folder"),
        ({**GOOD, "c": "m-3.safetensors"}, BadFile, "lacks 1 of 3 shards: m-3.safetensors"),
        ({**GOOD, "c": "x" * 300_000}, BadFile, r"lacks 1 of 3 shards: x{9,200}; "),
        ({**GOOD, "c": "m-2.safetensors"}, BadWeights, "names 1 tensors that its files lack: c"),
    ):
        with pytest.raises(error, match=words):
            read_index(shards(tmp_path, where))  # type: ignore[arg-type]
    index = shards(tmp_path, GOOD)
    safetensors.torch.save_file({"b": torch.ones(3), "a": torch.ones(2)}, tmp_path / "m-2.safetensors")
    with pytest.raises(BadWeights, match="repeats tensors of another shard: a"):
        read_index(index)


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(BadFile, match="holds a JSON list"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(BadFile, match="not readable JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(BadFile, match="does not exist"):
        read_json(tmp_path / "b.json")
