"""Weights that stay as a GGUF file packs them: the same numbers to the last bit, the memory of the file, planned."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.extent import extent_of, shapes_of
from fluxone.geometry import Resolution
from fluxone.nn.rope import rotation
from fluxone.nn.tokens import image_ids, text_ids
from fluxone.nn.transformer import Flux
from fluxone.plan import Choice, choices, packed_bytes, weights
from fluxone.quant import kept
from fluxone.quant.apply import prepare, quantize, save, scheme_of
from fluxone.quant.layer import QuantLinear
from fluxone.recipe import KEPT, Recipe
from fluxone.weights.convert import convert
from fluxone.weights.layouts import wanted
from fluxone.weights.load import load_bundle
from fluxone.weights.mapped import Mapped
from fluxone.weights.packed.blocks import NUMBERS
from fluxone.weights.packed.ggml import TYPES
from fluxone.weights.packed.unpack import unpack
from fluxone.weights.parts import file_parts
from fluxone.weights.safetensors import Entry
from unit.test_plan import CPU
from unit.weights.tiny import FLUX, split_files

TRANSFORMER = "transformer"


@pytest.fixture(scope="module", params=["Q8_0", "Q4_0"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer in a GGUF file, its companions beside it."""
    root: Path = tmp_path_factory.mktemp("kept")
    plain = split_files(root)
    convert(str(plain), root / "flux.gguf", wanted("gguf", str(request.param)))
    plain.unlink()
    return root / "flux.gguf"


def loaded(file: Path, dtype: str, quant: str | None) -> Flux:
    names = [TRANSFORMER] if quant == KEPT else []
    recipe = Recipe(dtype=dtype, device="cpu", quant=quant)
    network = load_bundle(str(file), recipe=recipe, prepare=partial(prepare, kept=names)).transformer
    if quant is not None:
        quantize(network, quant, getattr(torch, dtype))
    return network


@torch.inference_mode()
def velocity(network: Flux, dtype: str) -> Tensor:
    torch.manual_seed(0)
    img, txt, vec = (torch.randn(2, *size).to(getattr(torch, dtype)) for size in ((6, 16), (5, 24), (32,)))
    pe = rotation(torch.cat((text_ids(5), image_ids(2, 3))), FLUX.axes, FLUX.theta)
    return network.predict(img, txt, pe, network.modulation(vec))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_velocities_are_equal_to_the_last_bit(file: Path, dtype: str) -> None:
    usual, packed = loaded(file, dtype, None), loaded(file, dtype, KEPT)
    layers = [module for module in packed.modules() if isinstance(module, QuantLinear)]
    assert len(layers) == 2 * 8 + 2 and scheme_of(packed) == KEPT
    assert torch.equal(velocity(packed, dtype), velocity(usual, dtype))
    tensors = Mapped(file_parts(file)[TRANSFORMER].headers)
    one = tensors.stored(tensors.entries["single_blocks.0.linear1.weight"])
    own = packed.single_blocks[0].linear1.weight  # type: ignore[union-attr]
    assert torch.equal(own.flatten(), one) and own.dtype == torch.uint8


def test_plans_know_the_bytes(file: Path) -> None:
    recipe = Recipe(quant="auto", offload="none", device="cpu")
    row, shapes, packed = shapes_of(str(file), recipe)
    extent = extent_of(row, shapes, Resolution(width=64, height=64), packed)
    network = loaded(file, "float32", KEPT)
    held = sum(m.weight.numel() for m in network.modules() if isinstance(m, QuantLinear))
    assert extent.transformer.kept == (held, 0)
    planned = weights(extent, Choice(dtype="float32", quant=KEPT))
    whole = sum(tensor.numel() * tensor.itemsize for tensor in network.state_dict().values())
    assert planned["transformer"] + planned["modulators"] == whole
    assert packed_bytes(extent.transformer, KEPT, 4) < packed_bytes(extent.transformer, None, 4)
    found = {one.choice.quant: one for one in choices(extent, recipe, CPU, 4)}
    assert KEPT in found and found[KEPT].device < found[None].device and found[KEPT].total > found[None].total
    extent = extent_of(row, shapes, Resolution(width=64, height=64), {})
    assert KEPT not in {one.choice.quant for one in choices(extent, recipe, CPU, 4)}


@pytest.mark.parametrize("name", NUMBERS)
def test_every_type_is_unpacked_as_it_is_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, rows, columns = TYPES[name], 5, 512
    raw = torch.randint(0, 60, (rows, columns // kind.block * kind.bytes), dtype=torch.uint8)
    places = {"start": 0, "stop": raw.numel(), "path": Path("x")}
    entry = Entry(name="w", dtype=name, shape=(rows, columns), packing="ggml", **places)  # type: ignore[arg-type]
    monkeypatch.setattr(kept, "CHUNK", 2 * columns)
    for dtype in (torch.float32, torch.bfloat16):
        expected = unpack(lambda entry: raw.flatten(), entry, 0, rows * columns, dtype).view(rows, columns)
        assert torch.equal(kept.unpack(name, {"weight": raw}, dtype), expected)


def test_mistakes_are_said(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="is for this machine alone"):
        save(loaded(file, "float32", KEPT), tmp_path / "x.safetensors")
    plain = split_files(tmp_path)
    with pytest.raises(BadRequest, match="not packed as in GGUF"):
        loaded(plain, "float32", KEPT)
