"""Every layout is written, reads as what it was made from, and is whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxone.errors import BadRequest, BadWeights, CannotWrite, FluxoneError, UnknownName
from fluxone.lora.base import Base
from fluxone.lora.merge import merge
from fluxone.nn.transformer import Flux
from fluxone.recipe import Recipe
from fluxone.weights import convert as module
from fluxone.weights import recheck
from fluxone.weights.convert import Converted, convert
from fluxone.weights.gguf import read_header
from fluxone.weights.inspect import inspect
from fluxone.weights.layouts import LAYOUTS, wanted
from fluxone.weights.load import load_bundle
from fluxone.weights.native import Native
from fluxone.weights.parts import file_parts
from unit.weights import tiny
from unit.weights.peak import peak_of

ENDINGS = {"gguf": "out.gguf", "diffusers": "out"}


def go(source: Path, out: Path, to: str, dtype: str | None = None, **more: object) -> Converted:
    scaled = bool(more.pop("scaled", False))
    return convert(str(source), out, wanted(to, dtype, scaled=scaled), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("model") / "model")


def numbers(path: Path, part: str = "transformer") -> dict[str, torch.Tensor]:
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny.network(part).state_dict().items()}
    native = Native(file_parts(path)[part], shapes)
    return {name: native.rows(name, 0, shape[0]).clone() for name, shape in native.shapes.items()}


def equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("to", LAYOUTS)
def test_there_and_back_is_the_same(to: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / ENDINGS.get(to, "out.safetensors")
    dtype = {"gguf": "F32"}.get(to)
    done = go(folder, out, to, dtype)
    assert done.path == out
    assert done.checked is not None
    assert sorted(os.listdir(tmp_path)) == [out.name]
    if to == "fp8":
        assert done.checked.rounded > 10
        assert 0 < done.checked.worst < 0.04
        return
    assert (done.checked.rounded, done.checked.worst) == (0, 0)
    back = tmp_path / "back.safetensors"
    go(out, back, "bfl")
    equal(numbers(back), dict(tiny.network("transformer").state_dict()))
    assert load_file(back).keys() == tiny.network("transformer").state_dict().keys()


@pytest.mark.parametrize("to", ["comfy", "diffusers"])
def test_a_whole_model_goes_and_comes_whole(to: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / ENDINGS.get(to, "out.safetensors")
    done = go(folder, out, to)
    assert done.parts == ("transformer", "autoencoder", "t5", "clip")
    again = tmp_path / "again"
    if to == "comfy":
        for words in ("tokenizer", "tokenizer_2"):
            shutil.copytree(folder / words, tmp_path / words)
    go(out, again, "diffusers")
    bundle, first = (load_bundle(str(path), recipe=Recipe(device="cpu")) for path in (again, folder))
    for name, network in tiny.networks().items():
        tiny.equal(getattr(bundle, name), network)
        assert getattr(bundle, name).shape == getattr(first, name).shape
    assert bundle.variant == first.variant
    assert bundle.t5_tokenizer == again / "tokenizer_2"


def test_what_tensors_do_not_tell_goes_with_them(tmp_path: Path) -> None:
    """The mini's autoencoder has groups, scale and shift of its own, and its CLIP an end token."""
    done = go(Path("mini"), tmp_path / "mini.safetensors", "comfy")
    assert done.checked is not None
    assert done.checked.rounded == 0
    note = json.loads(inspect(done.path).metadata["fluxone.config"])
    assert note["autoencoder"]["norm_num_groups"] == 8
    assert "transformer" not in note
    lacking = go(done.path, tmp_path / "folder", "diffusers").lacking
    assert lacking == ("T5's tokenizer (folder tokenizer_2)", "CLIP's tokenizer (folder tokenizer)")
    for words in ("tokenizer", "tokenizer_2"):
        shutil.copytree(Path(module.__file__).parents[1] / "assets" / "mini" / words, tmp_path / words)
    assert go(done.path, tmp_path / "whole", "diffusers").lacking == ()
    bundle, mini = (load_bundle(source, recipe=Recipe(device="cpu")) for source in (str(done.path), "mini"))
    for name in ("transformer", "autoencoder", "t5", "clip"):
        assert getattr(bundle, name).shape == getattr(mini, name).shape
    assert (bundle.variant.max_shift, bundle.variant.shifted) == (mini.variant.max_shift, mini.variant.shifted)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_gguf_types_round_as_little_as_they_promise(dtype: str, folder: Path, tmp_path: Path) -> None:
    done = go(folder, tmp_path / "out.gguf", "gguf", dtype)
    header = read_header(done.path)
    assert header.metadata["general.architecture"] == "flux"
    kinds = {name: entry.dtype for name, entry in header.entries.items()}
    assert kinds["double_blocks.0.img_attn.qkv.weight"] == dtype
    for kept in ("img_in.weight", "final_layer.linear.weight", "double_blocks.0.img_attn.qkv.bias"):
        assert kinds[kept] == "F32"
    assert done.checked is not None
    assert 0 < done.checked.worst <= recheck.ALLOWED[dtype]
    found = numbers(done.path)
    for name, tensor in tiny.network("transformer").state_dict().items():
        error = (found[name].float() - tensor).abs().max()
        assert error <= recheck.ALLOWED[kinds[name]] * tensor.abs().max() + 1e-7, name


def test_t5_becomes_gguf_under_llamas_names(folder: Path, tmp_path: Path) -> None:
    done = go(folder, tmp_path / "t5.gguf", "gguf", "F16", part="t5")
    assert (done.parts, len(done.left_out)) == (("t5",), 3)
    header = read_header(done.path)
    assert header.metadata["general.architecture"] == "t5encoder"
    assert {"token_embd.weight", "enc.blk.0.attn_rel_b.weight", "enc.output_norm.weight"} <= header.entries.keys()
    found = numbers(done.path, "t5")
    for name, tensor in tiny.network("t5").state_dict().items():
        torch.testing.assert_close(found[name].float(), tensor, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("to", "dtype"), [("comfy", "float8_e4m3fn"), ("bfl", "float8_e5m2")])
def test_fp8_keeps_what_is_small_and_sensitive(
    to: str, dtype: str, scaled: bool, folder: Path, tmp_path: Path
) -> None:
    done = go(folder, tmp_path / "out.safetensors", to, dtype, scaled=scaled)
    held = load_file(done.path)
    prefix = "model.diffusion_model." if to == "comfy" else ""
    stem = f"{prefix}single_blocks.0.linear1"
    assert held[f"{stem}.weight"].dtype == getattr(torch, dtype)
    assert held[f"{prefix}img_in.weight"].dtype == held[f"{stem}.bias"].dtype == torch.float32
    assert (f"{stem}.weight_scale" in held, f"{stem}.comfy_quant" in held) == (scaled, scaled)
    if scaled:
        assert json.loads(bytes(held[f"{stem}.comfy_quant"].tolist())) == {"format": dtype}
        assert held[f"{stem}.weight"].float().abs().max() == torch.finfo(getattr(torch, dtype)).max
    if to == "comfy":
        assert all(tensor.dtype == torch.float32 for name, tensor in held.items() if name.startswith("vae."))
    back = go(done.path, tmp_path / "back.safetensors", "bfl", "float32")
    assert back.checked is not None
    assert back.checked.rounded == 0


def test_packed_weights_become_plain_ones(folder: Path, tmp_path: Path) -> None:
    go(folder, tmp_path / "q.gguf", "gguf", "Q8_0")
    plain = go(tmp_path / "q.gguf", tmp_path / "plain.safetensors", "bfl", "float32")
    equal(numbers(plain.path), numbers(tmp_path / "q.gguf"))
    usual = go(tmp_path / "q.gguf", tmp_path / "usual.safetensors", "bfl")
    assert load_file(usual.path)["double_blocks.0.img_attn.qkv.weight"].dtype == torch.bfloat16
    assert load_file(usual.path)["img_in.weight"].dtype == torch.float32


def test_packed_weights_are_measured_and_not_merged_into(folder: Path, tmp_path: Path) -> None:
    path = go(folder, tmp_path / "q.gguf", "gguf", "Q8_0").path
    base = Base(str(path))
    name = "double_blocks.0.img_attn.qkv.weight"
    torch.testing.assert_close(base.read("transformer", name), numbers(path)[name])
    with pytest.raises(BadWeights, match="holds packed numbers; make them plain first: fluxone models convert"):
        merge(str(path), [], tmp_path / "merged.gguf")
    assert os.listdir(tmp_path) == ["q.gguf"]


def test_parts_from_elsewhere_come_along(folder: Path, tmp_path: Path) -> None:
    go(folder, tmp_path / "flux.safetensors", "bfl")
    alone = go(tmp_path / "flux.safetensors", tmp_path / "alone.safetensors", "comfy")
    assert alone.parts == ("transformer",)
    given = {"t5": folder / "text_encoder_2", "autoencoder": folder / "vae", "clip": folder / "text_encoder"}
    done = go(tmp_path / "flux.safetensors", tmp_path / "all.safetensors", "comfy", given=given)
    assert len(done.parts) == 4
    tiny.equal(
        load_bundle(
            str(go(done.path, tmp_path / "folder", "diffusers", given={"t5": folder / "text_encoder_2"}).path),
            recipe=Recipe(device="cpu", text_encoder=str(folder / "text_encoder")),
        ).t5,
        tiny.network("t5"),
    )


WRONG: dict[str, tuple[dict[str, object], str, type[FluxoneError], str]] = {
    "layout": ({"to": "bff"}, "x.safetensors", UnknownName, "did you mean 'bfl'"),
    "type": ({"to": "bfl", "dtype": "Q8_0"}, "x.safetensors", BadRequest, "bfl is not written as Q8_0"),
    "k type": ({"to": "gguf", "dtype": "Q4_K"}, "x.gguf", BadRequest, "can be read, not written: choose one of F32"),
    "scales": ({"to": "bfl", "scaled": True}, "x.safetensors", BadRequest, "scales are for fp8"),
    "scales of diffusers": (
        {"to": "diffusers", "dtype": "float8_e4m3fn", "scaled": True}, "x", BadRequest, "fp8 without scales only"
    ),
    "ending": ({"to": "gguf"}, "x.safetensors", BadRequest, "end its name in .gguf"),
    "ending of a folder": ({"to": "diffusers"}, "x.safetensors", BadRequest, "give a folder's name"),
    "part": ({"to": "bfl", "part": "unet"}, "x.safetensors", BadRequest, "holds no unet; it holds transformer"),
    "part of gguf": ({"to": "gguf", "part": "clip"}, "x.gguf", BadRequest, "no gguf of the clip; it is for"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused(case: str, folder: Path, tmp_path: Path) -> None:
    asked, name, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        go(folder, tmp_path / name, **asked)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.safetensors").write_text("mine")
    with pytest.raises(CannotWrite, match="is there already"):
        go(folder, tmp_path / "out.safetensors", "bfl")
    assert (tmp_path / "out.safetensors").read_text() == "mine"


def test_a_full_disk_is_seen_before_a_byte_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE", 1 << 60)
    with pytest.raises(CannotWrite, match=r"needs .* GB, and .* has"):
        go(folder, tmp_path / "deep" / "out.safetensors", "bfl")
    assert os.listdir(tmp_path) == []


def source(tmp_path: Path, name: str, value: float) -> Path:
    state = tiny.network("transformer").state_dict()
    state[name].view(-1)[0] = value
    save_file(dict(state), tmp_path / "in.safetensors")
    return tmp_path / "in.safetensors"


BLOCK = "double_blocks.0.img_mlp.0.weight"
TOO_MUCH: dict[str, tuple[str, float, str, str | None, str]] = {
    "fp8 ends": (BLOCK, 1000.0, "bfl", "float8_e4m3fn", f"{BLOCK} holds 1000, and float8_e4m3fn ends at 448"),
    "fp16 ends": (BLOCK, 1e5, "bfl", "float16", "float16 ends at 65504"),
    "gguf's F16 ends": (BLOCK, 1e5, "gguf", "F16", "float16 ends at 65504"),
    "a block's scale ends": (BLOCK, 1e38, "gguf", "Q8_0", "comes back from Q8_0 with an error of (inf|nan)"),
    "no number": (BLOCK, float("nan"), "bfl", "bfloat16", "with an error of nan"),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_numbers_that_a_type_cannot_hold_are_refused(case: str, tmp_path: Path) -> None:
    name, value, to, dtype, words = TOO_MUCH[case]
    path = source(tmp_path, name, value)
    with pytest.raises(BadWeights, match=words):
        go(path, tmp_path / ("out.gguf" if to == "gguf" else "out.safetensors"), to, dtype)
    assert os.listdir(tmp_path) == ["in.safetensors"]


def test_a_result_that_reads_otherwise_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.narrowed

    def off(tensor: torch.Tensor, dtype: torch.dtype, name: str, scale: torch.Tensor | None = None) -> torch.Tensor:
        return real(tensor, dtype, name, scale) + (0.5 if name.endswith("img_in.weight") else 0)

    monkeypatch.setattr(module, "narrowed", off)
    for to, name in (("bfl", "out.safetensors"), ("diffusers", "out")):
        monkeypatch.setattr(module, "narrowed", off if to == "bfl" else lambda *rest: real(*rest) * 1.5)
        with pytest.raises(BadWeights, match="comes back from F32 with an error of"):
            go(folder, tmp_path / name, to)
        assert os.listdir(tmp_path) == []


def test_the_same_model_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for to, ending in (("comfy", "safetensors"), ("gguf", "gguf")):
        paths = [go(folder, tmp_path / f"{number}.{ending}", to).path for number in range(2)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_memory_holds_a_tensor_not_a_model(tmp_path: Path) -> None:
    shape = replace(tiny.FLUX, hidden=512, heads=8, axes=(16, 24, 24), double_blocks=0, single_blocks=12)
    save_file(dict(Flux(shape).state_dict()), tmp_path / "in.safetensors")
    size = (tmp_path / "in.safetensors").stat().st_size
    assert peak_of(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "'fp8', None") < size / 2


def test_a_file_that_lacks_something_is_not_converted(tmp_path: Path) -> None:
    state = dict(tiny.network("transformer").state_dict())
    del state["txt_in.bias"]
    save_file({**state, "img_in.row_scale": torch.ones(1)}, tmp_path / "in.safetensors")
    with pytest.raises(BadWeights, match=r"1 unknown: img_in.row_scale; 1 missing: txt_in.bias"):
        go(tmp_path / "in.safetensors", tmp_path / "out.gguf", "gguf")
