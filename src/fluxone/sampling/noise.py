"""Noise, drawn on the CPU from seeds: one generator an image, whatever the device and the batch.

seeds [s, s+1]  ->  generators  ->  (B C h w), row i of which depends on seed i alone
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.geometry import Resolution

Source = torch.Generator | list[torch.Generator] | None
Draw = Callable[[], Tensor]  # fresh noise of the sampler's state: its shape, dtype and device


def generators(seeds: Iterable[int]) -> list[torch.Generator]:
    """One CPU generator a seed."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def gaussian(sources: Source, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Float[Tensor, "B ..."]:
    """Standard normal noise of a whole batch: from a generator a row, one for all rows, or torch's global one.

    On the CPU a draw in bfloat16 or float16 is the float32 draw rounded, so tools that differ in the dtype share
    their seeds up to rounding. A generator of another device draws there. Source: diffusers, `randn_tensor`.
    """
    if isinstance(sources, list):
        return torch.cat([gaussian(source, (1, *shape[1:]), dtype) for source in sources[: shape[0]]])
    device = "cpu" if sources is None else sources.device
    return torch.randn(tuple(shape), generator=sources, dtype=dtype, device=device).cpu()


def gaussian_like(sources: Source, like: Tensor) -> Tensor:
    """Noise of the shape and type, and on the device, of a tensor."""
    return gaussian(sources, like.shape, like.dtype).to(like.device)


def noise(
    seeds: Iterable[int], resolution: Resolution, channels: int = 16, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "B C h w"]:
    """The noise that pictures of these seeds start from, at FLUX.1's 8 px a cell."""
    sources = generators(seeds)
    return gaussian(sources, (len(sources), channels, *resolution.cells), dtype)
