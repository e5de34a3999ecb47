"""The decoder's rows shared out: each process draws a band of the picture, with the statistics of all of it.

    process r:  latent --the way in and the middle, whole--> its band of rows --a row of each neighbour, levels up-->
                its band of pixels;  at the end the bands are gathered

As in `nn.tiling`, GroupNorm knows the whole picture and convolutions see beyond their own edge, so that there is no
seam: the picture is that of one process but for the last rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from fluxone.nn.autoencoder import Decoder, ResBlock, UpLevel, straight
from fluxone.nn.tiling import Sheet, moments
from fluxone.parallel.context import parts
from fluxone.parallel.travel import added, exchanged, gathered


class Bands:
    """The walk of a decoder whose rows are shared out: every process calls it with the same latent."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)

    def __call__(self, decoder: Decoder, z: Tensor) -> Tensor:
        """The pixels of an unscaled latent (B C h w), the whole of them on every process."""
        if z.shape[2] < self.world:
            return straight(decoder, z)
        x = decoder.begin(z)
        rows = parts(x.shape[2], self.world)
        own = x.split(rows, dim=2)[self.rank]
        for level in reversed(list(cast("Iterable[UpLevel]", decoder.up))):
            for block in cast("Iterable[ResBlock]", level.block):
                own = self._block(block, own)
            if level.upsample is not None:
                own = self._kept(level.upsample(self._wide(own)), 2)
        pixels = self._kept(decoder.end(self._wide(own), self._known(own).normalise))
        batch, colours, high, width = pixels.shape
        shapes = [(batch, colours, count * high // rows[self.rank], width) for count in rows]
        return torch.cat(gathered(pixels, shapes, self.group), dim=2)

    def _block(self, block: ResBlock, x: Tensor) -> Tensor:
        wide = self._wide(x)
        h = self._kept(block.first(wide, self._known(x).normalise))
        return self._kept(block.second(self._wide(h), wide, self._known(h).normalise))

    def _known(self, own: Tensor) -> Sheet:
        """The band, with the statistics of the whole picture."""
        cells = own.shape[2] * own.shape[3]
        first, second = moments(own)
        told = cells * torch.stack((torch.ones_like(first), first, second)).to(own.device)
        count, one, two = added(told, self.group)
        return Sheet(values=own, first=one / count, second=two / count, device=own.device)

    def _wide(self, own: Tensor) -> Tensor:
        """The band with the nearest row of each neighbour."""
        none = own[:, :, :0]
        sent, shapes = [none] * self.world, [tuple(none.shape)] * self.world
        row = tuple(own[:, :, :1].shape)
        if self.rank > 0:
            sent[self.rank - 1], shapes[self.rank - 1] = own[:, :, :1], row
        if self.rank + 1 < self.world:
            sent[self.rank + 1], shapes[self.rank + 1] = own[:, :, -1:], row
        come = exchanged(sent, shapes, self.group)
        return torch.cat((*come[: self.rank], own, *come[self.rank + 1 :]), dim=2)

    def _kept(self, wide: Tensor, rows: int = 1) -> Tensor:
        """Without the neighbours' rows."""
        stop = wide.shape[2] - (rows if self.rank + 1 < self.world else 0)
        return wide[:, :, rows if self.rank > 0 else 0 : stop]
