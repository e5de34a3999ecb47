"""The passes between a block's products on a CPU: `fused.c`, called for rows of one sample.

Rows are shared among torch's threads. What a pass gives is for the product or the pass after it, so nothing here
knows the whole of a block (`fused`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from fluxone.nn.attention import ATTENTION, Attend
from fluxone.nn.layers import QKNorm
from fluxone.quant import native
from fluxone.quant.layer import QuantLinear

MOST_SCORES = 1 << 24  # scores of attention that are in memory at once
OWN = (ATTENTION["sdpa"], ATTENTION["matmul"])  # backends that this file's attention stands for


@dataclass(frozen=True)
class Family:
    """One choice of types, as `fused.c` names it."""

    name: str
    taken: torch.dtype  # by products
    attention: torch.dtype
    whole: bool  # products of int8, whose sums have scales


@cache
def family(takes: torch.dtype | None, stream: torch.dtype) -> Family:
    """The types of a block whose products take a type (None: the streams'), and whose streams are of a type."""
    whole = takes == torch.int8
    words = {torch.float32: "f32", torch.bfloat16: "bf16"}
    if not whole:
        return Family("_".join([words[stream]] * 3), stream, stream, whole)
    attention = torch.bfloat16 if stream == torch.bfloat16 or has_bfloat16() else torch.float32
    return Family(f"i8_{words[stream]}_{words[attention]}", torch.int8, attention, whole)


@cache
def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass
class Ready:
    """Rows for a product: numbers, and in int8 their scales."""

    numbers: Tensor
    scales: Tensor | None
    offsets: Tensor | None = None  # steps by which the last columns are stored lower, of each row
    lower: int = 0  # how many columns these are


@dataclass
class Product:
    """What a product gave: numbers, or int32 sums with the scales of rows and weight, and the bias still to come."""

    sums: Tensor
    scales: Tensor | None = None
    weights: Tensor | None = None
    bias: Tensor | None = None
    offsets: Tensor | None = None
    beyond: Tensor | None = None  # what a step of the offset adds to each sum, times its weight's scale


@dataclass
class Mixed:
    """What attention gave, and what its rows are still to be multiplied by."""

    numbers: Tensor
    shares: Tensor | None = None


class CpuPasses:
    """The passes of one family, for streams of one type."""

    def __init__(self, kind: Family) -> None:
        self.kind = kind

    def norm(self, x: Tensor, shift: Tensor, scale: Tensor) -> Ready:
        """Normalised and modulated rows."""
        rows, columns = x.shape
        ready = self._ready(rows, columns)
        self._call("norm", rows, x.numel(), (x, shift, scale, ready.numbers, ready.scales), (columns,))
        return ready

    def room(self, total: int, heads: int, size: int) -> list[Tensor]:
        """Queries, keys and values, still empty."""
        return [torch.empty(heads, total, size, dtype=self.kind.attention) for _ in range(3)]

    def heads(self, made: Product, norm: QKNorm, pe: Tensor, out: Sequence[Tensor], place: int) -> None:
        """Queries, keys and values of some rows, at their place among all."""
        heads, total, size = out[0].shape
        norms = norm.query_norm.scale.float(), norm.key_norm.scale.float()
        pointers = (made.sums, made.scales, made.weights, made.bias, *norms, pe, *out)
        rows, stride = made.sums.shape
        self._call("heads", rows, 3 * rows * heads * size, pointers, (heads, size, stride, place, total))

    def inner(self, mixed: Mixed | None, made: Product | None, rows: int, place: int, inner: int) -> Ready:
        """What attention gave and what is activated, side by side; either may be missing."""
        given, shares = (None, None) if mixed is None else (mixed.numbers, mixed.shares)
        heads, total, size = (0, 0, 0) if given is None else given.shape
        ready = self._ready(rows, heads * size + inner)
        made = made or Product(ready.numbers)
        if self.kind.whole and inner:
            ready.offsets, ready.lower = torch.empty(rows), inner
        product = made.sums, made.scales, made.weights, made.bias
        pointers = (given, shares, *product, ready.numbers, ready.scales, ready.offsets)
        sizes = (heads, size, place, total, inner, made.sums.shape[1])
        self._call("inner", rows, ready.numbers.numel(), pointers, sizes)
        return ready

    def times(self, layer: nn.Module, x: Ready) -> Product:
        """Rows times the weight of a layer."""
        if x.scales is None:
            return Product(layer(x.numbers))
        assert isinstance(layer, QuantLinear)
        kept = _kept(layer, x.lower)
        sums = native.product(x.numbers, kept.weight)
        return Product(sums, x.scales, kept.weights, kept.bias, x.offsets, kept.beyond)

    def gate(self, made: Product, gate: Tensor, x: Tensor) -> Tensor:
        """x + gate * product."""
        out = torch.empty_like(x)
        pointers = (made.sums, made.scales, made.weights, made.bias, gate, x, out, made.offsets, made.beyond)
        self._call("gate", x.shape[0], x.numel(), pointers, (x.shape[1],))
        return out

    def attend(self, out: Sequence[Tensor], backend: Attend) -> Mixed:
        """Attention of (heads, positions, size)."""
        q, k, v = out
        if backend not in OWN:
            return Mixed(backend(q[None], k[None], v[None])[0].contiguous())
        mixed = native.attended(q, k, v)
        if mixed is not None:
            return Mixed(mixed)
        each, shares = max(1, MOST_SCORES // q.shape[1] ** 2), torch.empty(q.shape[:2])
        if each >= len(q):
            return Mixed(self._attend(q, k, v, shares), shares)
        parts = zip(*(tensor.split(each) for tensor in (q, k, v, shares)), strict=True)
        return Mixed(torch.cat([self._attend(*part) for part in parts]), shares)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, shares: Tensor) -> Tensor:
        scores = torch.bmm(q, k.transpose(1, 2))
        rows, columns = scores.shape[0] * scores.shape[1], scores.shape[2]
        word, factor = "bf16" if scores.dtype == torch.bfloat16 else "f32", q.shape[-1] ** -0.5
        work, places = _function(f"softmax_{word}", 2, 1, factor=True), (scores.data_ptr(), shares.data_ptr())
        native.shared(lambda start, stop: work(*places, factor, columns, start, stop), rows, scores.numel())
        return torch.bmm(scores, v)

    def _ready(self, rows: int, columns: int) -> Ready:
        numbers = torch.empty(rows, columns, dtype=self.kind.taken)
        return Ready(numbers, torch.empty(rows) if self.kind.whole else None)

    def _call(
        self, name: str, rows: int, numbers: int, tensors: Sequence[Tensor | None], sizes: Sequence[int]
    ) -> None:
        work = _function(f"{name}_{self.kind.name}", len(tensors), len(sizes))
        places = [_pointer(tensor) for tensor in tensors]
        native.shared(lambda start, stop: work(*places, *sizes, start, stop), rows, numbers)


@dataclass
class Kept:
    """What is made of a layer once: scales of its weight's rows, bias, and the sums of its last columns."""

    weight: Tensor
    own_bias: Tensor | None
    weights: Tensor
    bias: Tensor
    beyond: Tensor | None


def _kept(layer: QuantLinear, columns: int) -> Kept:
    """It stays with the layer as long as its weight and bias do."""
    kept: Kept | None = layer.__dict__.get("_kept")
    weight, bias = layer._buffers["weight"], layer._parameters["bias"]
    assert weight is not None
    if kept is None or kept.weight is not weight or kept.own_bias is not bias:
        scale = layer.get_buffer("row_scale").flatten()
        sums = weight[:, -columns:].sum(1, dtype=torch.int32).float() * scale if columns else None
        own = torch.zeros_like(scale) if bias is None else bias.detach().float()
        kept = layer.__dict__["_kept"] = Kept(weight, bias, scale, own, sums)
    return kept


def _pointer(tensor: Tensor | None) -> int | None:
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()


@cache
def _function(name: str, pointers: int, sizes: int, *, factor: bool = False) -> Callable[..., None]:
    """A pass of the library: pointers, perhaps a float, sizes, first and last row."""
    work: Callable[..., None] = getattr(native.library(), name)
    kinds = [ctypes.c_void_p] * pointers + [ctypes.c_float] * factor + [ctypes.c_long] * (sizes + 2)
    work.argtypes = kinds  # type: ignore[attr-defined]
    work.restype = None  # type: ignore[attr-defined]
    return work
