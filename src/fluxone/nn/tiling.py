"""Convolutions over a picture tile by tile, exact: the device holds one tile at a time, the host all of them.

    Sheet (host)  --tile and its neighbours' edge-->  device: normalise, convolve  --tile-->  Sheet (host)

Tiles that went through the whole autoencoder on their own would each be normalised by their own statistics and
blind beyond their own edges: that is what a seam is, and no blending makes it right. Here the tiles take one
convolution at a time instead: every GroupNorm uses the statistics of the whole picture, and every convolution sees
two positions beyond its tile, one more than it needs. So the result is that of the whole picture but for the
last rounding, and there is nothing to blend.

What looks at the whole picture anyway, the attention in the middle, stays whole: it works at the resolution of
the latent, 1/64 of the pixels.

The price: on an accelerator features travel to the host and back at every convolution. On the CPU, where host
and device are one, tiles cost no time and save only the temporary copies, about a third of the memory (a decoder
of 32 to 96 channels at 768x768 px: 355 MB in tiles of 128 px, 567 MB whole).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LEAST = 64  # px: the smallest tile; below it the edges that tiles share cost more than the tiles
EDGE = 2  # positions beyond a tile: one for a 3x3 convolution, even for those of stride 2


@dataclass(kw_only=True)
class Sheet:
    """Features of a whole picture, on the host, with what GroupNorm needs to know of all of them.

    Attributes:
        first, second: means of the values and of their squares in every (picture, channel), float64.
    """

    values: Tensor
    first: Tensor
    second: Tensor
    device: torch.device

    def normalise(self, norm: nn.GroupNorm, part: Tensor) -> Tensor:
        """Return a part of the sheet, normalised by the statistics of the whole."""
        grouped = (len(part), norm.num_groups, -1)
        mean, square = (moment.reshape(grouped).mean(-1) for moment in (self.first, self.second))
        scale = (square - mean.square()).clamp_min(0).add(norm.eps).rsqrt()
        kind = torch.promote_types(part.dtype, torch.float32)
        mean, scale = (x.to(part.device, kind)[..., None] for x in (mean, scale))
        out = ((part.to(kind).reshape(grouped) - mean) * scale).reshape(part.shape)
        return (out * norm.weight[:, None, None] + norm.bias[:, None, None]).to(part.dtype)


def sheet(x: Tensor) -> Sheet:
    """Return features of a whole picture as a sheet; their device is where its tiles will be worked on."""
    first, second = moments(x)
    return Sheet(values=x.detach().cpu(), first=first, second=second, device=x.device)


@torch.no_grad()
def sweep(
    before: Sheet, work: Callable[..., Tensor], *, size: int, up: int = 1, down: int = 1, beside: Sheet | None = None
) -> Sheet:
    """Return the sheet that a convolution makes of a sheet.

    Args:
        work: what to do with a tile, and with the same tile of `beside` where that is given.
        size: side of a tile of `before`, positions; a multiple of `down`.
        up, down: how many times the resolution grows or shrinks.
        beside: a sheet that is added position by position and used up: the result takes its place in memory.
    """
    height, width = before.values.shape[-2:]
    whole = (height * up // down, width * up // down)
    sources = (before,) if beside is None else (before, beside)
    out, first, second = None, torch.zeros(()), torch.zeros(())
    for top in range(0, height, size):
        for left in range(0, width, size):
            read, keep, write = zip(
                _spans(top, size, height, up, down), _spans(left, size, width, up, down), strict=True
            )
            made = work(*(source.values[(..., *read)].to(before.device) for source in sources))[(..., *keep)]
            if out is None:
                out = _room(made, whole, beside)
            out[(..., *write)] = made.cpu()
            share = made[0, 0].numel() / out[0, 0].numel()
            means, squares = moments(made)
            first, second = first + share * means, second + share * squares
    assert out is not None
    return Sheet(values=out, first=first, second=second, device=before.device)


def _spans(start: int, size: int, length: int, up: int, down: int) -> tuple[slice, slice, slice]:
    """Return what a tile reads along one side, what of its result is kept, and where that is written."""
    stop = min(start + size, length)
    low, high = max(start - EDGE, 0), min(stop + EDGE, length)
    write = slice(start * up // down, stop * up // down)
    offset = (start - low) * up // down
    return slice(low, high), slice(offset, offset + write.stop - write.start), write


def _room(made: Tensor, whole: tuple[int, int], beside: Sheet | None) -> Tensor:
    """Return host memory for a sheet made of tiles like `made`: that of `beside` where it fits."""
    shape = (*made.shape[:2], *whole)
    if beside is not None and beside.values.shape == shape:
        return beside.values
    return torch.empty(shape, dtype=made.dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the values and of their squares in every (picture, channel)."""
    var, mean = torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), dim=(-2, -1), correction=0)
    mean = mean.cpu().double()
    return mean, var.cpu().double() + mean.square()
