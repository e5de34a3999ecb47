"""Every scheme: its error within bounds, the right layers, adapters beside it, files that come back to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fluxone.api import FluxPipeline
from fluxone.assembly import assemble, connect
from fluxone.cli.main import run
from fluxone.errors import BadRequest, BadWeights, BrokenModel, UnknownName
from fluxone.lora.adapters import Adapters, Strength
from fluxone.lora.load import read_lora
from fluxone.nn.layers import Modulator
from fluxone.quant import int8, native
from fluxone.quant.apply import NOTE, SCHEMES, STORED, quantize, save, scheme_of
from fluxone.quant.layer import QuantLinear
from fluxone.recipe import QUANTS, Recipe
from fluxone.request import Request
from fluxone.weights.keymap import TRANSFORMER
from unit.tiny import TINY, bundle, pipeline, tokenizer
from unit.weights import tiny

# Largest error of a normally distributed weight, relative to it, root of mean squares.
ERRORS = {"fp8": 0.040, "fp8-dynamic": 0.040, "int8": 0.010, "int8-dynamic": 0.010, "nf4": 0.12}
ROUNDED = {"int8-dynamic": 0.02, "fp8-dynamic": 0.06}  # what tokens in 8 bits cost a product
PACKS = [name for name, scheme in SCHEMES.items() if not scheme.exact]  # the other keeps what a file packs
every = pytest.mark.parametrize("name", PACKS)
stored = pytest.mark.parametrize("name", STORED)


def layer(rows: int = 48, columns: int = 96) -> nn.Linear:
    torch.manual_seed(1)
    made = nn.Linear(columns, rows).requires_grad_(False)
    made.weight.copy_(torch.randn(rows, columns) * torch.logspace(-3, 2, rows)[:, None])
    return made


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_both_tables_have_the_same_rows() -> None:
    assert list(QUANTS) == list(SCHEMES)


@stored
def test_a_weight_comes_back_within_its_bound(name: str) -> None:
    plain = layer(columns=128)
    packed = QuantLinear.of(plain, SCHEMES[name], torch.float32)
    back = packed.dequantized()
    assert back.shape == plain.weight.shape
    rows = [error(one, other) for one, other in zip(back, plain.weight, strict=True)]
    assert ERRORS[name] / 5 < max(rows) < ERRORS[name], "rows are scaled on their own, and something is lost"
    again = SCHEMES[name].pack(back)
    assert error(SCHEMES[name].unpack(again, torch.float32), back) < 1e-6, "packing what is packed loses nothing"
    stored = 8 * sum(tensor.numel() * tensor.itemsize for tensor in packed.packed().values())
    assert stored / plain.weight.numel() == pytest.approx(SCHEMES[name].bits, rel=0.06)


@stored
def test_rows_of_zeros_and_of_one_large_number_are_kept(name: str) -> None:
    weight = torch.zeros(3, 64)
    weight[1, 5], weight[2] = -1e30, 1e-30
    back = SCHEMES[name].unpack(SCHEMES[name].pack(weight), torch.float32)
    assert torch.isfinite(back).all()
    assert not back[0].any() and float(back[1, 5]) == pytest.approx(-1e30, rel=0.05)


@every
def test_it_multiplies_what_it_unpacks_to(name: str) -> None:
    """The dynamic ones round the tokens as well: `int8` to half a 127th of each token's largest number."""
    packed, x = QuantLinear.of(layer(), SCHEMES[name], torch.float32), torch.randn(2, 5, 96)
    x[0, 0] *= 1000
    exact = F.linear(x, packed.dequantized(), packed.bias)
    rounded = ROUNDED.get(name, 0.0)
    kinds = ((torch.float32, 1e-6), (torch.bfloat16, 0.01))
    for dtype, bound in kinds[:1] if SCHEMES[name].plain else kinds:
        out = packed(x.to(dtype))
        assert out.dtype == dtype and out.shape == exact.shape
        for one, other in zip(out.float().flatten(0, 1), exact.flatten(0, 1), strict=True):
            assert error(one, other) < bound + rounded


@stored
def test_what_is_empty_has_the_shapes_of_what_is_full(name: str) -> None:
    full = QuantLinear.of(layer(), SCHEMES[name], torch.float32)
    with torch.device("meta"):
        meta = nn.Linear(96, 48)
    empty = QuantLinear.of(meta, SCHEMES[name], torch.float32)
    told = {key: (tensor.shape, tensor.dtype) for key, tensor in full.state_dict().items()}
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in empty.state_dict().items()} == told
    assert (empty.in_features, empty.out_features, empty.bias.is_meta) == (96, 48, True)


@every
def test_only_the_blocks_are_packed(name: str, tmp_path: Path) -> None:
    model = bundle(tmp_path).transformer
    names = [key for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    quantize(model, name, torch.bfloat16)
    packed = {key for key, module in model.named_modules() if isinstance(module, QuantLinear)}
    inside = {key for key in names if "_blocks." in key and "mod" not in key.split(".")[2]}
    assert packed == inside and len(packed) == 2 * 8 + 2 * 2
    assert not any(isinstance(model.get_submodule(key.rpartition(".")[0]), Modulator) for key in packed)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert scheme_of(model) == name
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    quantize(model, name, torch.bfloat16)  # once more changes nothing
    assert all(
        torch.equal(tensor.view(torch.uint8), before[key].view(torch.uint8))
        for key, tensor in model.state_dict().items()
    )
    other = next(row for row in SCHEMES if SCHEMES[row].pack is not SCHEMES[name].pack)
    with pytest.raises(BadRequest, match=f"is quantized as {name}"):
        quantize(model, other, torch.bfloat16)
    with pytest.raises(UnknownName, match="no quantization is called 'int7'"):
        quantize(model, "int7", torch.bfloat16)


def drawn(folder: Path, quant: str | None, **recipe: object) -> Tensor:
    """The last latent of a walk of the tiny model."""
    models = bundle(folder)
    if quant is not None:
        quantize(models.transformer, quant, torch.float32)
    *_, last = connect(models, Recipe(device="cpu", **recipe)).steps(Request(prompt="a red car", count=2))
    return last.x


@every
def test_pictures_stay_near_and_are_the_same_each_time(name: str, tmp_path: Path) -> None:
    plain, found = drawn(tmp_path, None), drawn(tmp_path, name)
    assert error(found, plain) < {"nf4": 0.35, "packed": 1e-5}.get(name, 0.1)
    assert error(found, plain) > 1e-4 or name == "packed"
    assert torch.equal(found, drawn(tmp_path, name))
    assert torch.equal(found, drawn(tmp_path, name, offload="block")), "where weights wait changes nothing"


PAIRS = {
    "transformer.transformer_blocks.0.attn.to_q": (32, 32),
    "transformer.transformer_blocks.1.ff.net.0.proj": (128, 32),
    "transformer.single_transformer_blocks.0.proj_out": (32, 160),
}


@every
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_beside_it_is_the_math_on_what_it_unpacks_to(name: str, dora: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    tensors = {}
    for stem, (rows, columns) in PAIRS.items():
        tensors |= {f"{stem}.lora_A.weight": torch.randn(4, columns), f"{stem}.lora_B.weight": torch.randn(rows, 4) / 4}
        if dora:
            tensors[f"{stem}.lora_magnitude_vector.weight"] = torch.rand(rows) + 0.5
    lora = read_lora(tensors)
    model = bundle(tmp_path).transformer
    quantize(model, name, torch.float32)
    unpacked = bundle(tmp_path).transformer
    for key, packed in model.named_modules():
        if isinstance(packed, QuantLinear):
            unpacked.get_submodule(key).weight.data = packed.dequantized()
    outs = []
    for network in (model, unpacked):
        adapters = Adapters({TRANSFORMER: network}, width=32, dtype=torch.float32, changed=lambda parts: None)
        adapters.load(lora, "x")
        adapters.use({"x": Strength(scale=0.7)})
        if network is unpacked:
            adapters.fuse()
        x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
        outs.append(network.get_submodule("double_blocks.0.img_attn.qkv")(x))
    assert error(outs[0], outs[1]) < ROUNDED.get(name, 1e-5)
    adapters = Adapters({TRANSFORMER: model}, width=32, dtype=torch.float32, changed=lambda parts: None)
    adapters.load(lora, "y")
    adapters.use({"y": Strength()})
    with pytest.raises(BadRequest, match="is quantized, and nothing can be merged into it; leave it unfused, or merge"):
        adapters.fuse()
    assert list(adapters.active) == ["y"] and not adapters.fused, "what cannot be leaves all as it was"
    adapters.use({"y": Strength(scale=0.5)})


def test_an_adapter_that_replaces_a_packed_weight_is_refused_whole(tmp_path: Path) -> None:
    door = FluxPipeline.from_pretrained(str(files(tmp_path)), quant="int8", device="cpu")
    packed = next(name for name, layer in door.transformer.named_modules() if isinstance(layer, QuantLinear))
    layer = door.transformer.get_submodule(packed)
    weight = torch.zeros(layer.out_features, layer.in_features)
    with pytest.raises(BadRequest, match="is quantized, and nothing can be merged into it"):
        door.load_lora_weights({f"diffusion_model.{packed}.set_weight": weight}, adapter_name="a")
    door.load_lora_weights({f"diffusion_model.{packed}.diff": weight}, adapter_name="a")
    assert door.get_active_adapters() == ["a"]


def files(folder: Path) -> Path:
    """A tiny model's transformer, with its companions and tokenizers of words beside it."""
    path = tiny.split_files(folder)
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer(folder / name)
    return path


@stored
def test_a_packed_model_is_saved_and_loaded_to_the_bit(name: str, tmp_path: Path) -> None:
    path = files(tmp_path)
    recipe = Recipe(device="cpu", quant=name, quant_t5=name)
    first = assemble(str(path), recipe)
    save(first.transformer, tmp_path / "flux1-packed.safetensors")
    assert first.text is not None
    save(first.text.t5, tmp_path / "packed-t5.safetensors", part="t5")
    second = assemble(
        str(tmp_path / "flux1-packed.safetensors"),
        Recipe(device="cpu", text_encoder_2=str(tmp_path / "packed-t5.safetensors")),
    )
    assert second.text is not None
    for one, other in ((first.transformer, second.transformer), (first.text.t5, second.text.t5)):
        assert scheme_of(one) == scheme_of(other) == name
        state = other.state_dict()
        assert state.keys() == one.state_dict().keys()
        for key, tensor in one.state_dict().items():
            assert state[key].dtype == tensor.dtype, key
            assert torch.equal(state[key].float(), tensor.float()), key
    *_, found = first.steps(Request(prompt="a", resolution=None, steps=1))
    *_, again = second.steps(Request(prompt="a", resolution=None, steps=1))
    assert error(again.x, found.x) < 1e-5, "the same numbers, elsewhere in memory"


def test_files_that_lie_about_their_packing_are_refused(tmp_path: Path) -> None:
    path = files(tmp_path)
    packed = tmp_path / "flux1-packed.safetensors"
    save(assemble(str(path), Recipe(device="cpu", quant="int8")).transformer, packed)
    tensors = load_file(packed)
    qkv = "double_blocks.0.img_attn.qkv.weight"
    for change, note, words in (
        ({}, "q7", "quantized in an unknown way"),
        ({}, 5, "quantized in an unknown way"),
        ({}, "nf4", "does not fit the transformer"),
        ({}, "fp8", "does not hold .* as torch.float8_e4m3fn"),
        ({qkv: tensors[qkv].float()}, "int8", "does not hold double_blocks.0.img_attn.qkv.weight as torch.int8"),
    ):
        save_file({**tensors, **change}, packed, metadata={NOTE: json.dumps({"transformer": note})})
        with pytest.raises(BadWeights, match=words):
            assemble(str(packed), Recipe(device="cpu"))
    save_file(tensors, packed)
    with pytest.raises(BadWeights, match="unknown"):
        assemble(str(packed), Recipe(device="cpu"))
    with pytest.raises(BadRequest, match="not quantized"):
        save(bundle(tmp_path / "x").transformer, tmp_path / "y.safetensors")


def test_the_python_door_and_the_wrong_name(tmp_path: Path) -> None:
    path = files(tmp_path)
    pipe = FluxPipeline.from_pretrained(str(path), quant="int8-dynamic", device="cpu")
    assert scheme_of(pipe.transformer) == "int8-dynamic"
    with pytest.raises(UnknownName, match="did you mean 'int8'"):
        FluxPipeline.from_pretrained(str(path), quant="int9")


def test_a_recipe_that_quantizes_is_in_the_record(tmp_path: Path) -> None:
    made = pipeline(tmp_path, TINY, quant="int8")
    assert made.recipe.quant == "int8"


def test_what_is_packed_for_this_machine_stays_here(tmp_path: Path) -> None:
    model = bundle(tmp_path).transformer
    quantize(model, "packed", torch.float32)
    with pytest.raises(BadRequest, match=r"packed is for this machine alone; a file can hold fp8, .*int8"):
        save(model, tmp_path / "x.safetensors")
    broken = layer()
    broken.weight[0, 0] = torch.nan
    with pytest.raises(BrokenModel, match="NaN"):
        QuantLinear.of(broken, SCHEMES["packed"], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_passes_do_what_torch_does(dtype: torch.dtype) -> None:
    if native.library() is None:
        pytest.skip("there is no C compiler")
    x = (torch.randn(37, 515) * torch.logspace(-6, 6, 37)[:, None]).to(dtype)
    x[3], x[4, 7] = 0, 1e-38
    numbers, scales = native.quantized(x)
    own, own_scales = int8.quantized(x)
    assert torch.allclose(scales, own_scales.flatten(), rtol=1e-6)
    assert (numbers.int() - own.int()).abs().max() <= 1 and (numbers != own).float().mean() < 1e-3
    sums, weights, bias = (
        torch.randint(-(10**6), 10**6, (37, 515), dtype=torch.int32),
        torch.rand(515),
        torch.randn(515),
    )
    wanted = (sums.double() * own_scales.double() * weights.double() + bias.double()).to(dtype)
    found = native.finished(sums, scales, weights, bias, dtype)
    assert torch.allclose(found.float(), wanted.float(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_activation_is_the_same_function(dtype: torch.dtype) -> None:
    x = torch.cat((torch.linspace(-30, 30, 6000), torch.tensor([0.0, 1e4, -1e4, 1e30, -1e30, 1e-30]))).to(dtype)
    wide = torch.stack((x, x.flip(0)))[:, 3:].expand(2, -1)
    wanted = F.gelu(wide.double(), approximate="tanh")
    found = native.Gelu()(wide)
    assert found.dtype == dtype and found.shape == wide.shape
    assert torch.allclose(found.double(), wanted, rtol=1e-2 if dtype == torch.bfloat16 else 3e-6, atol=1e-6)
    assert native.Gelu()(torch.tensor([[torch.nan, torch.inf]]))[0, 0].isnan()
    grown = wide.float().requires_grad_()
    native.Gelu()(grown).sum().backward()
    assert grown.grad is not None


def test_threads_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library() is None:
        pytest.skip("there is no C compiler")
    packed, x = QuantLinear.of(layer(), SCHEMES["int8-dynamic"], torch.float32), torch.randn(13, 96)
    wanted, active = packed(x), native.Gelu()(x)
    monkeypatch.setattr(native, "MANY", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert torch.equal(packed(x), wanted) and torch.equal(native.Gelu()(x), active)
    assert packed(x[:0]).shape == (0, 48)


def test_what_is_no_number_is_not_lost() -> None:
    layer_ = QuantLinear.of(layer(), SCHEMES["int8-dynamic"], torch.float32)
    for wrong in (torch.nan, torch.inf, -torch.inf):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(3, 96).to(dtype)
            x[1, 5] = wrong
            out = layer_(x)
            assert not torch.isfinite(out[1]).any() and torch.isfinite(out[[0, 2]]).all(), (wrong, dtype)


def test_without_a_compiler_it_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packed, x = QuantLinear.of(layer(), SCHEMES["int8-dynamic"], torch.float32), torch.randn(5, 96)
    quick = packed(x)
    native.library.cache_clear()
    monkeypatch.setenv("FLUXONE_NATIVE", "0")
    try:
        assert native.library() is None
        assert error(packed(x), quick) < 1e-3
    finally:
        native.library.cache_clear()


def test_a_compiler_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "cc"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent))
    monkeypatch.setenv("FLUXONE_CACHE", str(tmp_path / "cache"))
    native.library.cache_clear()
    try:
        assert native.library() is None
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    finally:
        native.library.cache_clear()


def test_the_command_line_packs_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = files(tmp_path), tmp_path / "flux1-small.safetensors"
    assert run(["models", "quantize", str(path), str(out), "--quant", "nf4", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.stat().st_size < path.stat().st_size / 2
    line = ["--size", "32x32", "--steps", "1", "--quiet", "-o", str(tmp_path / "x.png")]
    assert run(["generate", "a", "--model", str(out), *line]) == 0
    assert run(["generate", "a", "--model", str(path), "--quant", "int8-dynamic", "--quant-t5", "fp8", *line]) == 0
    capsys.readouterr()
    for words, more in (
        ("is there already", [str(path), str(out), "--quant", "int8"]),
        ("does not end in .safetensors", [str(path), str(tmp_path / "x.bin"), "--quant", "int8"]),
        ("did you mean 'int8'", [str(path), str(tmp_path / "y.safetensors"), "--quant", "int9"]),
        ("is quantized as nf4", [str(out), str(tmp_path / "y.safetensors"), "--quant", "int8"]),
        ("packed is for this machine alone", [str(path), str(tmp_path / "y.safetensors"), "--quant", "packed"]),
    ):
        assert run(["models", "quantize", *more]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "y.safetensors").exists()


@pytest.mark.parametrize(("one", "other"), [("fp8", "fp8-dynamic"), ("int8-dynamic", "int8")])
def test_the_same_numbers_can_be_multiplied_in_both_ways(one: str, other: str, tmp_path: Path) -> None:
    model = bundle(tmp_path).transformer
    quantize(model, one, torch.float32)
    before = {key: tensor.data_ptr() for key, tensor in model.state_dict().items()}
    quantize(model, other, torch.float32)
    assert scheme_of(model) == other
    assert {key: tensor.data_ptr() for key, tensor in model.state_dict().items()} == before
