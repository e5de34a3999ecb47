"""Blocks in few passes give what plain blocks give, and step aside where they cannot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from fluxone.nn.attention import ATTENTION
from fluxone.nn.layers import DoubleBlock, QKNorm, SingleBlock, normalise
from fluxone.nn.rope import Rotation, rotate, rotation
from fluxone.nn.tokens import image_ids, text_ids
from fluxone.quant import cuda, fp8, fused, kernels, native
from fluxone.quant.apply import SCHEMES, quantize
from fluxone.quant.fused import FusedDouble, FusedSingle, passes_for

compiled = pytest.mark.skipif(native.library() is None, reason="there is no C compiler")
triton = pytest.mark.skipif(not kernels.available() or torch.cuda.is_available(), reason="there is no Triton")
IMAGE, TEXT, HIDDEN, HEADS = (3, 4), 5, 128, 2


class Both(nn.Module):
    """A double and a single block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        double, single = DoubleBlock(HIDDEN, HEADS, 512), SingleBlock(HIDDEN, HEADS, 512)
        self.double_blocks, self.single_blocks = nn.ModuleList([double]), nn.ModuleList([single])
        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter, 1.0 if "scale" in name else 0.0, parameter.shape[-1] ** -0.5)
        self.requires_grad_(False)

    def forward(self, img: Tensor, txt: Tensor, pair: tuple[Tensor, Tensor], rows: Tensor, pe: Rotation) -> Tensor:
        img, txt = self.double_blocks[0](img, txt, pair, pe, ATTENTION["sdpa"])
        return self.single_blocks[0](torch.cat((txt, img), dim=1), rows, pe, ATTENTION["sdpa"])


def inputs(dtype: torch.dtype = torch.float32, batch: int = 1, modulated: int = 1) -> tuple[object, ...]:
    torch.manual_seed(1)
    tokens = IMAGE[0] * IMAGE[1]
    pe = rotation(torch.cat((text_ids(TEXT), image_ids(*IMAGE))), (16, 24, 24), 10000.0)
    mods = [(torch.randn(modulated, count, HIDDEN) / 2).to(dtype) for count in (6, 6, 3)]
    img, txt = (torch.randn(batch, count, HIDDEN).to(dtype) for count in (tokens, TEXT))
    return img, txt, (mods[0], mods[1]), mods[2], pe


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


@contextmanager
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(fused, "passes_for", lambda *given: None)
        yield


@compiled
@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if not scheme.exact])
@pytest.mark.parametrize(("batch", "modulated"), [(1, 1), (2, 1), (2, 2)])
def test_float32_blocks_give_the_same(name: str, batch: int, modulated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = Both(), inputs(batch=batch, modulated=modulated)
    quantize(net, name, torch.float32)
    assert [type(block) for block in (*net.double_blocks, *net.single_blocks)] == [FusedDouble, FusedSingle]
    found = net(*given)
    with plain(monkeypatch):
        expected = net(*given)
    assert error(found, expected) < (8e-3 if name == "int8-dynamic" else 1e-6), "int8 attends in bfloat16"
    if name == "fp8-dynamic":
        assert torch.equal(found, expected), "there are no passes for it here"


@compiled
@pytest.mark.parametrize("name", ["packed", "int8-dynamic", "fp8", None])
def test_bfloat16_blocks_are_nearer_to_the_truth(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Both()(*inputs())
    net, given = Both(), inputs(torch.bfloat16)
    if name is None:
        fused.fuse(net.to(torch.bfloat16))
    else:
        quantize(net, name, torch.bfloat16)
    found = net(*given)
    assert found.dtype == torch.bfloat16
    with plain(monkeypatch):
        expected = net(*given)
    assert error(found, exact) < 1.1 * error(expected, exact) < 0.1


@compiled
def test_threads_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = Both(), inputs()
    quantize(net, "int8-dynamic", torch.float32)
    expected = net(*given)
    monkeypatch.setattr(native, "MANY", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(net(*given), expected)


@compiled
def test_large_attention_goes_by_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = Both(), inputs()
    quantize(net, "packed", torch.float32)
    expected = net(*given)
    monkeypatch.setattr("fluxone.quant.passes.MOST_SCORES", 1)
    torch.testing.assert_close(net(*given), expected, rtol=0, atol=1e-5)


@compiled
def test_nan_is_not_lost() -> None:
    for name in ("int8-dynamic", "packed"):
        net, given = Both(), inputs()
        quantize(net, name, torch.float32)
        given[0][0, 1, 3] = float("nan")  # type: ignore[index]
        assert net(*given).isnan().any()


def test_it_steps_aside() -> None:
    net, (img, txt, _, rows, pe) = Both(), inputs()
    quantize(net, "int8-dynamic", torch.float32)
    block = net.single_blocks[0]
    x = torch.cat((txt, img), dim=1)
    assert (passes_for(block, x, pe) is None) == (native.library() is None)
    assert passes_for(block, x.double(), pe) is passes_for(block, x.to("meta"), pe) is None
    assert passes_for(block, x.clone().requires_grad_(), pe) is None
    assert passes_for(block, x, Rotation(turns=pe.turns.expand(2, *pe.turns.shape))) is None
    seen: list[object] = []
    hook = block.norm.register_forward_hook(lambda *given: seen.append(given))
    assert passes_for(block, x, pe) is None
    block(x, rows, pe, ATTENTION["sdpa"])
    assert len(seen) == 1
    hook.remove()
    block.linear2.__class__ = type("Live", (type(block.linear2),), {})
    assert passes_for(block, x, pe) is None


@compiled
def test_another_backend_is_asked() -> None:
    net, (img, txt, _, rows, pe) = Both(), inputs()
    quantize(net, "packed", torch.float32)
    x, shapes = torch.cat((txt, img), dim=1), []

    def backend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shapes.append(tuple(q.shape))
        return ATTENTION["matmul"](q, k, v)

    found = net.single_blocks[0](x, rows, pe, backend)
    assert shapes == [(1, HEADS, x.shape[1], HIDDEN // HEADS)]
    assert error(found, net.single_blocks[0](x, rows, pe, ATTENTION["sdpa"])) < 1e-6


@pytest.fixture
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter; it is chosen when Triton is imported, which torch's compiler may have done before."""
    kernel_files = {"fluxone.nn.channels_last_triton", "fluxone.quant.kernels_triton"}
    if "triton" in sys.modules and not kernel_files & sys.modules.keys():
        pytest.skip("Triton is there without its interpreter: run this file alone")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@triton
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("whole", [False, True])
def test_triton_norm_and_gate(whole: bool) -> None:
    torch.manual_seed(2)
    x, shift, scale, bias = torch.randn(5, 96), torch.randn(96), torch.randn(96), torch.randn(96)
    found, scales = kernels.norm(x, shift, scale, whole=whole)
    expected = normalise(x[None], shift[None, None], scale[None, None])[0]
    assert error(found.float() * (1 if scales is None else scales), expected) < (0.06 if whole else 1e-6)
    made = torch.randn(5, 96)
    rows, columns = torch.rand(5, 1), torch.rand(96)
    for given, numbers in (
        (kernels.Made(made), made),
        (kernels.Made(made, bias=bias), made + bias),
        (kernels.Made(made, rows, columns, bias), made * rows * columns + bias),
    ):
        torch.testing.assert_close(kernels.gate(given, scale, x), x + scale * numbers)


@triton
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("scaled", [False, True])
def test_triton_heads(scaled: bool) -> None:
    torch.manual_seed(3)
    rows, count, size, place = 5, 3, 16, 2
    made, bias = torch.randn(rows, 3 * count * size + 7), torch.randn(3 * count * size + 7)
    norm, turns = QKNorm(size).requires_grad_(False), torch.randn(place + rows, size // 2, 2)
    norm.query_norm.scale.copy_(torch.rand(size))
    out = tuple(torch.zeros(place + rows, count, size) for _ in range(3))
    norms = torch.cat((norm.query_norm.scale, norm.key_norm.scale))
    scales = (torch.rand(rows, 1), torch.rand(made.shape[1])) if scaled else (None, None)
    kernels.heads(kernels.Made(made, *scales, bias if scaled else None), norms, turns, out, place)  # type: ignore[arg-type]
    numbers = made * scales[0] * scales[1] + bias if scaled else made  # type: ignore[operator]
    qkv = numbers[None, :, : 3 * count * size].unflatten(-1, (3, count, size))
    q, k = rotate(norm(qkv[:, :, :2]), Rotation(turns=turns[place:]))[0].unbind(1)
    for found, expected in zip(out, (q, k, qkv[0, :, 2]), strict=True):
        torch.testing.assert_close(found[place:], expected, rtol=1e-4, atol=1e-5)
        assert not found[:place].any()


@triton
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("narrow", "wide"), [(32, 0), (0, 48), (32, 48)])
def test_triton_inner(whole: bool, narrow: int, wide: int) -> None:
    torch.manual_seed(4)
    mixed = torch.randn(5, narrow) if narrow else None
    made, bias = torch.randn(5, 20 + wide), torch.randn(20 + wide)
    own, columns = (torch.rand(5, 1), torch.rand(20 + wide)) if whole else (None, None)
    given = kernels.Made(made, own, columns, bias) if wide else None
    found, scales = kernels.inner(mixed, given, wide, made if mixed is None else mixed, whole=whole)
    parts = [] if mixed is None else [mixed]
    if wide:
        numbers = made + bias if own is None else made * own * columns + bias
        parts.append(nn.functional.gelu(numbers[:, 20:], approximate="tanh"))
    assert error(found.float() * (1 if scales is None else scales), torch.cat(parts, 1)) < (0.06 if whole else 1e-5)


@triton
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("name", [None, "fp8-dynamic"])
def test_triton_blocks_give_what_plain_blocks_give(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = Both(), inputs()
    if name is None:
        fused.fuse(net)
    else:
        quantize(net, name, torch.float32)
    with plain(monkeypatch):
        expected = net(*given)
    passes = cuda.CudaPasses(torch.float32, torch.device("cpu"), whole=name is not None)
    monkeypatch.setattr(fused, "passes_for", lambda *args: passes)
    assert error(net(*given), expected) < (0.05 if name else 1e-5)


def test_fp8_products_without_units_are_exact() -> None:
    weight, x = torch.randn(32, 48), torch.randn(7, 48)
    packed = SCHEMES["fp8-dynamic"].pack(weight)
    numbers, scales = fp8.quantized(x)
    expected = (numbers.float() * scales) @ fp8.unpack(packed, torch.float32).T
    torch.testing.assert_close(fp8.multiply_quantized(numbers, scales, packed, torch.float32), expected)
    assert not fp8.units(torch.device("cpu"))
    whole, one = fp8.quantized(x, whole=True)
    assert one.ndim == 0 and error(whole.float() * one, x) < 0.04


@pytest.mark.parametrize(
    ("asked", "capability", "dtype", "works"),
    [
        ("", (9, 0), torch.bfloat16, True),
        ("", (9, 0), torch.float32, False),
        ("", (8, 9), torch.bfloat16, False),
        ("1", (8, 9), torch.float32, True),
        ("1", (9, 0), torch.float64, False),
        ("0", (9, 0), torch.bfloat16, False),
    ],
)
def test_kernels_work_where_they_were_measured_or_asked_for(
    asked: str, capability: tuple[int, int], dtype: torch.dtype, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cuda.ASKED, asked)
    monkeypatch.setattr(kernels, "available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    x = SimpleNamespace(is_cuda=True, dtype=dtype, device=torch.device("cuda", 0))
    assert cuda.helps(cast("Tensor", x)) is works
