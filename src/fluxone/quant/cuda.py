"""The passes between a block's products on a CUDA device: Triton kernels, products in the streams' type or in fp8.

Where they have been measured they are at work by themselves: in bfloat16 on GPUs of compute capability 9.0. Elsewhere
`FLUXONE_TRITON=1` asks for them, and 0 does without anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fluxone.nn.attention import Attend
from fluxone.nn.layers import QKNorm
from fluxone.quant import fp8, kernels
from fluxone.quant.layer import QuantLinear
from fluxone.quant.passes import Mixed, Product, Ready

ASKED = "FLUXONE_TRITON"
MEASURED = ((9, 0),)  # compute capabilities: an H200, docs/performance.md
ROWS = "FLUXONE_FP8_ROWS"  # 1: fp8 products take the scales themselves; else the passes after them do


def helps(x: Tensor) -> bool:
    """Whether the kernels are asked for, or known to be good, and can work on a tensor."""
    asked = os.environ.get(ASKED, "")
    if not x.is_cuda or x.dtype not in (torch.bfloat16, torch.float16, torch.float32) or asked == "0":
        return False
    known = x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) in MEASURED
    return (asked == "1" or known) and kernels.available()


class CudaPasses:
    """The passes for streams of one type; with `whole`, tokens come to products in e4m3."""

    def __init__(self, stream: torch.dtype, device: torch.device, *, whole: bool) -> None:
        self.stream, self.device, self.whole = stream, device, whole

    def norm(self, x: Tensor, shift: Tensor, scale: Tensor) -> Ready:
        """Normalised and modulated rows, ready for a product."""
        return Ready(*kernels.norm(x, shift, scale, whole=self.whole))

    def times(self, layer: nn.Module, x: Ready) -> Product:
        """Rows times the weight of a layer; of an fp8 layer scales, or the bias at least, are still to come."""
        if x.scales is None:
            return Product(layer(x.numbers))
        assert isinstance(layer, QuantLinear)
        packed = layer.packed()
        if os.environ.get(ROWS) == "1" and fp8.by_rows(self.device):
            return Product(fp8.multiply_quantized(x.numbers, x.scales, packed, self.stream), bias=layer.bias)
        made = fp8.sums(x.numbers, packed, self.stream)
        return Product(made, x.scales, packed["row_scale"].flatten(), bias=layer.bias)

    def room(self, total: int, heads: int, size: int) -> list[Tensor]:
        """Queries, keys and values (N H D), still empty."""
        return [torch.empty(total, heads, size, dtype=self.stream, device=self.device) for _ in range(3)]

    def heads(self, made: Product, norm: QKNorm, pe: Tensor, out: Sequence[Tensor], place: int) -> None:
        """Put the queries, keys and values of some rows to their place among all."""
        norms = torch.cat((norm.query_norm.scale, norm.key_norm.scale)).float()
        kernels.heads(_made(made), norms, pe, (out[0], out[1], out[2]), place)

    def attend(self, out: Sequence[Tensor], backend: Attend) -> Mixed:
        """Attention, as rows of all heads side by side."""
        q, k, v = (part.transpose(0, 1)[None] for part in out)
        return Mixed(backend(q, k, v)[0].transpose(0, 1).flatten(1))

    def inner(self, mixed: Mixed | None, made: Product | None, rows: int, place: int, inner: int) -> Ready:
        """What attention gave and what is activated, side by side; either may be missing."""
        first = None if mixed is None else mixed.numbers[place : place + rows]
        given = None if made is None or not inner else _made(made)
        if given is None and first is not None and not self.whole:
            return Ready(first, None)  # it is in the product's type already
        like = given.sums if given is not None else first
        assert like is not None
        return Ready(*kernels.inner(first, given, inner, like, whole=self.whole))

    def gate(self, made: Product, gate: Tensor, x: Tensor) -> Tensor:
        """x + gate * product."""
        return kernels.gate(_made(made), gate, x)


def _made(product: Product) -> kernels.Made:
    return kernels.Made(product.sums, product.scales, product.weights, product.bias)
