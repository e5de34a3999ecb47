"""The attention backends. Queries, keys and values come rotated, in one type, heads before positions.

Which one is quickest depends on the machine: `quickest` tries those that work on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fluxone.errors import BadRequest, FluxoneError

Heads = Float[Tensor, "B H N D"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
TRIES = 5  # of which the median counts


def sdpa(q: Heads, k: Heads, v: Heads) -> Heads:
    """Every position attends to every other, unmasked, scaled by 1/sqrt(D): torch's own kernels."""
    out: Tensor = F.scaled_dot_product_attention(q, k, v)
    return out


def matmul(q: Heads, k: Heads, v: Heads) -> Heads:
    """The same as two matrix products around a float32 softmax.

    Short sequences in bfloat16 on a CPU train three times as fast this way as through torch's flash kernel,
    whose backward pass does not use the bfloat16 units.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if torch.is_grad_enabled():
        scores = scores.float()  # for the way back; on the way there the sums are float32 whatever comes in
    out: Tensor = scores.softmax(-1).to(v.dtype) @ v
    return out


def cudnn(q: Heads, k: Heads, v: Heads) -> Heads:
    """NVIDIA's own kernels, inside torch."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return sdpa(q, k, v)


def flash(q: Heads, k: Heads, v: Heads) -> Heads:
    """FlashAttention 2, inside torch."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return sdpa(q, k, v)


def flash3(q: Heads, k: Heads, v: Heads) -> Heads:
    """FlashAttention 3, where its package is installed: for Hopper."""
    return _positions_first(_package("flash_attn_interface"), q, k, v)


def flash4(q: Heads, k: Heads, v: Heads) -> Heads:
    """FlashAttention 4, where its package is installed."""
    return _positions_first(_package("flash_attn.cute"), q, k, v)


def sage(q: Heads, k: Heads, v: Heads) -> Heads:
    """SageAttention, where its package is installed: products in 8 bits, so it loses something."""
    out: Tensor = _package("sageattention").sageattn(q, k, v, tensor_layout="HND")
    return out


def _positions_first(package: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = package.flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    whole: Tensor = out[0] if isinstance(out, tuple) else out
    return whole.transpose(1, 2)


def _package(name: str) -> Any:
    """A package that brings kernels.

    Raises:
        BadRequest: it is not installed here, or does not work here.
    """
    try:
        return import_module(name)
    except (ImportError, OSError) as error:
        raise BadRequest(f"the attention of {name} cannot be used: {error}", hint="use sdpa, cudnn or flash") from None


ATTENTION: dict[str, Attend] = {
    "sdpa": sdpa, "matmul": matmul, "cudnn": cudnn, "flash": flash, "flash3": flash3, "flash4": flash4, "sage": sage,
}  # fmt: skip
EXACT = ("sdpa", "cudnn", "flash", "flash3", "flash4")  # rows that lose nothing but the last rounding
AUTO = "auto"  # the quickest of them, tried when the model is loaded


def measured(
    device: torch.device, dtype: torch.dtype, *, tokens: int, heads: int, size: int, names: tuple[str, ...] = EXACT
) -> dict[str, float]:
    """Seconds of one attention by each of the rows that work on a device."""
    make = torch.Generator().manual_seed(0)
    q = torch.randn(1, heads, tokens, size, generator=make).to(device, dtype)
    found = {}
    for name in names:
        try:
            found[name] = _seconds(ATTENTION[name], q)
        except (FluxoneError, RuntimeError, ValueError, TypeError, AssertionError):  # not here, or not for this shape
            continue
    return found


def quickest(device: torch.device, dtype: torch.dtype, *, tokens: int, heads: int, size: int) -> str:
    """The name of the quickest row that loses nothing, on a device."""
    if device.type != "cuda":
        return "sdpa"
    found = measured(device, dtype, tokens=tokens, heads=heads, size=size)
    return min(found, key=found.__getitem__, default="sdpa")


@torch.inference_mode()
def _seconds(attend: Attend, q: Tensor) -> float:
    """On a CPU processor time over threads, as on a machine that does nothing else."""
    clock, threads = (time.perf_counter, 1) if q.is_cuda else (time.process_time, torch.get_num_threads())
    times = []
    for _ in range(TRIES + 1):
        start = clock()
        attend(q, q, q)
        if q.is_cuda:
            torch.cuda.synchronize(q.device)
        times.append((clock() - start) / threads)
    return max(sorted(times[1:])[TRIES // 2], 1e-9)
