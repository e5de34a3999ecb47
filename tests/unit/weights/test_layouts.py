"""Every packed layout loads, with the numbers that a hand would unpack, and the pixels that those numbers draw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor, nn

from fluxone.assembly import connect
from fluxone.errors import BadWeights
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.recipe import Recipe
from fluxone.request import Request
from fluxone.shapes import FluxShape, T5Shape
from fluxone.weights.fill import fitting, load_module
from fluxone.weights.formats import FORMATS
from fluxone.weights.inspect import inspect
from fluxone.weights.mapped import Mapped
from fluxone.weights.parts import file_parts
from fluxone.weights.save import in_format, save_file
from unit import tiny

State = dict[str, Tensor]
E4, E5 = torch.float8_e4m3fn, torch.float8_e5m2
NF4 = torch.tensor([-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461, 0.3379,
                    0.4407, 0.5626, 0.7230, 1.0])  # fmt: skip


def matrix(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 2 and ("_blocks." in name or "SelfAttention." in name)


def bytes_of(fields: object) -> Tensor:
    return torch.tensor(list(json.dumps(fields).encode()), dtype=torch.uint8)


def old_scales(state: State, prefix: str = "", dtype: torch.dtype = E4) -> tuple[State, State]:
    """The first generation: a marker for the file, `scale_weight` for each layer, sometimes `scale_input`."""
    out, hand = {f"{prefix}scaled_fp8": torch.zeros(2, dtype=dtype)}, {}
    for name, tensor in state.items():
        if matrix(name, tensor):
            scale = tensor.abs().amax() / torch.finfo(dtype).max
            out[name], stem = (tensor / scale).to(dtype), name.removesuffix(".weight")
            out |= {f"{stem}.scale_weight": scale.view(1), f"{stem}.scale_input": torch.ones(1)}
            hand[name] = out[name].float() * scale
        else:
            out[name] = hand[name] = tensor
    return out, hand


def new_scales(state: State, rows: int = 1, columns: int = 1) -> tuple[State, State]:
    """The second generation: `weight_scale` and a description for each layer; a number a layer, row, or block."""
    out, hand = {}, {}
    for name, tensor in state.items():
        if not matrix(name, tensor):
            out[name] = hand[name] = tensor
            continue
        high, wide = tensor.shape
        grid = tensor.reshape(rows, high // rows, columns, wide // columns)
        scale = grid.abs().amax(dim=(1, 3), keepdim=True) / 448
        packed = (grid / scale).to(E4)
        stem = name.removesuffix(".weight")
        out[name], hand[name] = packed.reshape(tensor.shape), (packed.float() * scale).reshape(tensor.shape)
        out[f"{stem}.weight_scale"] = scale.reshape(rows, columns) if rows * columns > 1 else scale.reshape(())
        out[f"{stem}.comfy_quant"] = bytes_of({"format": "float8_e4m3fn"})
    return out, hand


def four_bits(state: State) -> tuple[State, State]:
    """bitsandbytes' nf4: two numbers a byte, the first in the high half; 64 numbers share their largest."""
    out, hand = {}, {}
    for name, tensor in state.items():
        if not matrix(name, tensor):
            out[name] = hand[name] = tensor
            continue
        flat = tensor.reshape(-1, 64)
        largest = flat.abs().amax(dim=1)
        steps = (flat / largest[:, None])[..., None].sub(NF4).abs().argmin(dim=-1)
        pairs = steps.reshape(-1, 2)
        out[name] = (pairs[:, :1] * 16 + pairs[:, 1:]).byte()
        out |= {f"{name}.absmax": largest, f"{name}.quant_map": NF4}
        fields = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(tensor.shape)}
        out[f"{name}.quant_state.bitsandbytes__nf4"] = bytes_of(fields)
        hand[name] = (NF4[steps] * largest[:, None]).reshape(tensor.shape)
    return out, hand


def eight_bits(state: State) -> tuple[State, State]:
    """bitsandbytes' int8: each row's largest number is 127."""
    out, hand = {}, {}
    for name, tensor in state.items():
        out[name] = hand[name] = tensor
        if matrix(name, tensor):
            largest, stem = tensor.abs().amax(dim=1), name.removesuffix(".weight")
            out[name] = (tensor * 127 / largest[:, None]).round().to(torch.int8)
            out |= {f"{stem}.SCB": largest, f"{stem}.weight_format": torch.tensor(0, dtype=torch.uint8)}
            hand[name] = out[name].float() * largest[:, None] / 127
    return out, hand


def raw_fp8(state: State) -> tuple[State, State]:
    out = {name: tensor.to(E5 if "qkv" in name or "to_" in name else E4) for name, tensor in state.items()}
    return out, {name: tensor.float() for name, tensor in out.items()}


WAYS: dict[str, Callable[[State], tuple[State, State]]] = {
    "raw fp8": raw_fp8,
    "scale_weight": old_scales,
    "scale_weight e5m2": lambda state: old_scales(state, dtype=E5),
    "weight_scale": new_scales,
    "weight_scale a row": lambda state: new_scales(state, rows=16),
    "weight_scale a block": lambda state: new_scales(state, rows=2, columns=4),
    "nf4": four_bits,
    "int8": eight_bits,
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


def pixels(folder: Path, transformer: Flux) -> np.ndarray:
    bundle = replace(tiny.bundle(folder), transformer=transformer)
    return np.asarray(next(iter(connect(bundle, Recipe(device="cpu"))(Request(prompt="a red car", steps=2)).images)))


def same(path: Path, hand: State, words: Path, *, draw: bool = True) -> None:
    """The file loads as these numbers, and draws what they draw."""
    module = load_module(lambda: Flux(tiny.TINY.shape), file_parts(path)["transformer"], dtype=torch.float32)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, hand[name].float(), rtol=1e-6, atol=1e-9, msg=name)
    if not draw:
        return
    wanted = Flux(tiny.TINY.shape).requires_grad_(False).eval()
    wanted.load_state_dict({name: tensor.float() for name, tensor in hand.items()})
    found = pixels(words, module)
    assert np.abs(found.astype(int) - pixels(words, wanted)).max() <= 1
    assert found.std() > 1


@pytest.mark.parametrize("layout", ["bfl transformer", "comfy transformer", "diffusers transformer"])
@pytest.mark.parametrize("way", WAYS)
def test_a_packed_file_draws_what_its_numbers_draw(way: str, layout: str, tmp_path: Path, words: Path) -> None:
    form = FORMATS[layout]
    packed, by_hand = WAYS[way](in_format(tiny.bundle(words).transformer.state_dict(), form))
    path = tmp_path / "m.safetensors"
    save_file(path, packed, metadata={})
    hand = Flux(tiny.TINY.shape)
    save_file(tmp_path / "hand.safetensors", {name: tensor.float() for name, tensor in by_hand.items()}, metadata={})
    hand = load_module(lambda: Flux(tiny.TINY.shape), file_parts(tmp_path / "hand.safetensors")["transformer"])
    same(path, hand.state_dict(), words, draw=layout == "bfl transformer")
    assert inspect(path).parts[0].numbers == sum(tensor.numel() for tensor in hand.state_dict().values())


def test_the_marks_of_a_whole_model_lie_under_its_prefixes(tmp_path: Path, words: Path) -> None:
    bundle, all_in_one, hands = tiny.bundle(words), {}, {}
    for name, module in (("transformer", bundle.transformer), ("t5", bundle.t5)):
        assert module is not None
        form = FORMATS[f"comfy {name}"]
        packed, hands[name] = old_scales(in_format(module.state_dict(), form), form.prefix)
        all_in_one |= packed
    save_file(tmp_path / "all.safetensors", all_in_one, metadata={})
    parts = file_parts(tmp_path / "all.safetensors")
    assert parts.keys() == {"transformer", "t5"}
    for name, hand in hands.items():
        tensors = Mapped(parts[name].headers)
        for full, tensor in hand.items():
            torch.testing.assert_close(tensors.read(full, torch.float32), tensor.float())


def test_a_description_in_the_metadata_tells_what_bytes_are(tmp_path: Path, words: Path) -> None:
    packed, hand = new_scales(tiny.bundle(words).transformer.state_dict())
    packed = {name: tensor for name, tensor in packed.items() if not name.endswith("comfy_quant")}
    layers = {name.removesuffix(".weight"): {"format": "float8_e4m3fn"} for name in packed if packed[name].dtype == E4}
    packed = {name: tensor.view(torch.uint8) if tensor.dtype == E4 else tensor for name, tensor in packed.items()}
    listed = json.dumps({"format_version": "1.0", "layers": layers})
    save_file(tmp_path / "m.safetensors", packed, metadata={"_quantization_metadata": listed})
    same(tmp_path / "m.safetensors", hand, words)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_gguf_file_draws_what_its_numbers_draw(kind: str, prefix: str, tmp_path: Path, words: Path) -> None:
    writer, hand = gguf.GGUFWriter(tmp_path / "m.gguf", "flux"), {}
    for name, tensor in tiny.bundle(words).transformer.state_dict().items():
        narrow = matrix(name, tensor) and tensor.shape[1] % 32 == 0
        own = GGMLQuantizationType[kind if narrow else "F32"]
        raw = gguf.quantize(tensor.numpy(), own)
        writer.add_tensor(prefix + name, raw, raw_dtype=own)
        hand[name] = torch.from_numpy(gguf.dequantize(raw, own).copy()).view(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    same(tmp_path / "m.gguf", hand, words, draw=not prefix)
    report = inspect(tmp_path / "m.gguf")
    assert report.layout == f"{'comfy' if prefix else 'bfl'} transformer GGUF file"
    narrow = {"F16": "float16", "BF16": "bfloat16"}.get(kind, kind.lower())
    assert report.parts[0].precision.keys() == {"float32", narrow}


FLUX = FluxShape()
T5 = T5Shape()


def sparse(path: Path, rows: list[tuple[str, tuple[int, ...], str]], architecture: str) -> Path:
    """A GGUF file of full size that takes no room: a header, and a hole in place of the numbers."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, shape, kind in rows:
        own = GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[own]
        raw = (*shape[:-1], shape[-1] // block * size) if block > 1 else shape
        count = int(np.prod(raw)) * (1 if block > 1 else size)
        plain = {"F32": np.float32, "F16": np.float16}.get(kind, np.uint8)
        writer.add_tensor_info(name, raw, np.dtype(plain), count, raw_dtype=None if block == 1 else own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    sizes = [gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]] for _, _, kind in rows]
    data = sum(-(-int(np.prod(shape)) // b * s // 32) * 32 for (_, shape, _), (b, s) in zip(rows, sizes, strict=True))
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + data)
    return path


def every_name(part: object, build: Callable[[], nn.Module]) -> None:
    """A full-size part fits its network, name by name and shape by shape, without a number being read."""
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    fitting(part, wanted, Mapped(part.headers))  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize("kind", ["Q2_K", "Q4_K", "Q8_0", "IQ4_XS"])
def test_a_published_gguf_of_flux_fits(kind: str, tmp_path: Path) -> None:
    """As city96 publishes them: names without prefix, vectors in F32, the matrices around the blocks in F16."""
    with torch.device("meta"):
        state = Flux(FLUX).state_dict()
    rows = [
        (name, tuple(tensor.shape), "F32" if tensor.ndim == 1 else kind if "_blocks." in name else "F16")
        for name, tensor in state.items()
    ]
    path = sparse(tmp_path / "flux1-dev.gguf", rows, "flux")
    every_name(file_parts(path)["transformer"], lambda: Flux(FLUX))
    report = inspect(path)
    assert (report.kind, report.variant) == ("model", "dev")
    assert max(report.parts[0].precision, key=report.parts[0].precision.get) == kind.lower()  # type: ignore[arg-type]
    assert report.parts[0].numbers == sum(tensor.numel() for tensor in state.values())


LLAMA = {
    "layer.0.SelfAttention.q": "attn_q", "layer.0.SelfAttention.k": "attn_k", "layer.0.SelfAttention.v": "attn_v",
    "layer.0.SelfAttention.o": "attn_o", "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
    "layer.0.layer_norm": "attn_norm", "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up", "layer.1.DenseReluDense.wo": "ffn_down", "layer.1.layer_norm": "ffn_norm",
}  # fmt: skip


def llama_name(name: str) -> str:
    for own, theirs in LLAMA.items():
        name = name.replace(own, theirs)
    name = name.replace("encoder.block.", "enc.blk.").replace("shared", "token_embd")
    return name.replace("encoder.final_layer_norm", "enc.output_norm")


def test_a_published_gguf_of_t5_fits(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = T5Encoder(T5).state_dict()
    rows = [
        (llama_name(name), tuple(tensor.shape), "F32" if tensor.ndim == 1 or "relative" in name else "Q8_0")
        for name, tensor in state.items()
    ]
    assert ("enc.blk.23.ffn_gate.weight", (10240, 4096), "Q8_0") in rows
    path = sparse(tmp_path / "t5-v1_1-xxl-encoder-Q8_0.gguf", rows, "t5encoder")
    every_name(file_parts(path)["t5"], lambda: T5Encoder(T5))
    assert inspect(path).layout == "t5 of llama.cpp GGUF file"


SPOILED: dict[str, tuple[Callable[[State], None], str]] = {
    "empty map": (lambda state: state.update({"img.weight.quant_map": torch.ones(0)}), "does not fit its packing"),
    "short map": (lambda state: state.update({"img.weight.quant_map": NF4[:9].clone()}), "does not fit its packing"),
    "few scales": (lambda state: state.update({"img.weight.absmax": torch.ones(1)}), "does not fit its packing"),
    "few bytes": (lambda state: state.update({"img.weight": state["img.weight"][:-1].clone()}), "does not fit"),
    "huge shape": (
        lambda state: state.update({
            "img.weight.quant_state.bitsandbytes__nf4": bytes_of({"blocksize": 64, "shape": [2**40, 2**40]})
        }),
        "does not fit its packing",
    ),
    "no shape": (
        lambda state: state.update({"img.weight.quant_state.bitsandbytes__nf4": bytes_of({"blocksize": 64})}), "says"
    ),
    "odd block": (
        lambda state: state.update({
            "img.weight.quant_state.bitsandbytes__nf4": bytes_of({"blocksize": 63, "shape": [4, 64]})
        }),
        "says",
    ),
    "no text": (
        lambda state: state.update({"img.weight.quant_state.bitsandbytes__nf4": torch.ones(9, dtype=torch.uint8)}),
        "holds no JSON object",
    ),
    "long text": (
        lambda state: state.update({"img.weight.quant_state.bitsandbytes__nf4": torch.ones(99_999, dtype=torch.uint8)}),
        "99,999 bytes for a text",
    ),
    "nested without its map": (
        lambda state: state.update({"img.weight.nested_absmax": torch.ones(1)}), "says|does not fit"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", SPOILED)
def test_a_packing_that_does_not_fit_is_refused(fault: str, tmp_path: Path) -> None:
    spoil, words = SPOILED[fault]
    state, _ = four_bits({"double_blocks.weight": torch.randn(4, 64)})
    state = {name.replace("double_blocks", "img"): tensor for name, tensor in state.items()}
    spoil(state)
    save_file(tmp_path / "m.safetensors", state, metadata={})
    with pytest.raises(BadWeights, match=words):
        file_parts(tmp_path / "m.safetensors")


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for scale in (torch.ones(3), torch.ones(2, 3), torch.ones(4, dtype=torch.int32)):
        state = {"img.weight": torch.ones(4, 64).to(E4), "img.weight_scale": scale}
        save_file(tmp_path / "m.safetensors", state, metadata={})
        with pytest.raises(BadWeights, match="one number, one a row, or one a block"):
            file_parts(tmp_path / "m.safetensors")
    state = {"img.weight": torch.ones(4, 64).to(torch.int8), "img.SCB": torch.ones(5)}
    save_file(tmp_path / "m.safetensors", state, metadata={})
    with pytest.raises(BadWeights, match="one number a row"):
        file_parts(tmp_path / "m.safetensors")


@pytest.mark.parametrize("form", ["nvfp4", "convrot_w4a4"])
def test_packings_of_no_known_kind_are_named(form: str, tmp_path: Path, words: Path) -> None:
    state = tiny.bundle(words).transformer.state_dict()
    more = {"img_in.weight_scale": torch.ones(()), "img_in.comfy_quant": bytes_of({"format": form})}
    save_file(tmp_path / "m.safetensors", {**state, **more}, metadata={})
    assert any("rarer quantizations" in note for note in inspect(tmp_path / "m.safetensors").notes)
    with pytest.raises(BadWeights, match="one of ComfyUI's rarer quantizations"):
        load_module(lambda: Flux(tiny.TINY.shape), file_parts(tmp_path / "m.safetensors")["transformer"])


def test_a_rare_type_says_which_package_unpacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxone.errors import MissingExtra
    from fluxone.weights.packed.blocks import numbers_of

    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingExtra, match="IQ2_XS") as caught:
        numbers_of("IQ2_XS", torch.zeros(1, 74, dtype=torch.uint8))
    assert "fluxone[gguf]" in str(caught.value)
