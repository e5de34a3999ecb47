"""What a machine reaches at most, measured: matrix products, attention, copies. A step's floor is made of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fluxone.bench.measure import clock
from fluxone.bench.nets import Case
from fluxone.extent import MACS
from fluxone.nn.attention import measured
from fluxone.quant import fp8

TRIES = 5


def products(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Operations a second of the network's largest products, by type."""
    hidden, rows = case.shape.hidden, case.tokens
    wide = 3 * hidden + case.shape.mlp
    found = {}
    x, w = (torch.randn(count, hidden, device=device, dtype=dtype) for count in (rows, wide))
    work = MACS * rows * hidden * wide
    found[str(dtype).removeprefix("torch.")] = work / _least(lambda: nn.functional.linear(x, w), device)
    if fp8.units(device):
        numbers, scales = fp8.quantized(x)
        packed = fp8.pack(w.float())
        found["fp8"] = work / _least(lambda: fp8.multiply_quantized(numbers, scales, packed, torch.bfloat16), device)
        one = torch.ones((), device=device)
        found["fp8, one scale"] = work / _least(
            lambda: torch._scaled_mm(
                numbers, packed["weight"].t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
            ),
            device,
        )
    if device.type == "cpu":
        a, b = (torch.randint(-99, 99, (count, hidden), dtype=torch.int8) for count in (rows, wide))
        found["int8"] = work / _least(lambda: torch._int_mm(a, b.t()), device)
    return found


def attentions(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Operations a second of the attention backends that work here."""
    shape = case.shape
    work = 2 * MACS * case.tokens**2 * shape.hidden
    found = measured(device, dtype, tokens=case.tokens, heads=shape.heads, size=shape.head_dim)
    return {name: work / seconds for name, seconds in found.items()}


def copies(device: torch.device) -> float:
    """Bytes a second, read and written."""
    size = (1 << 30) if device.type == "cuda" else (1 << 27)
    x = torch.empty(size, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * size / _least(lambda: y.copy_(x), device)


def _least(work: Callable[[], Tensor], device: torch.device) -> float:
    timed = clock(device)
    work()
    return min(timed(work)[1] for _ in range(TRIES))
