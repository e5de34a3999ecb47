"""Blocks that come to the device for the time of their use and go again: what is learnt may stand beside a base that is
larger than the device.

    forward    0, 1 ... n     each block fetched, computed, forgotten; recomputing keeps what it was given and no more
    back       n ... 1, 0     each fetched again, computed again, and kept until the way back has passed through it

On an accelerator the next block comes while one computes. What is learnt, and blocks that are not chosen, stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fluxone.offload import STREAMED, Offload
from fluxone.offload.disk import Spill
from fluxone.offload.moving import bring
from fluxone.offload.stream import Beside, Parade, Straight, pin
from fluxone.pipeline import Pipeline

PART, MODULATORS = "transformer", "modulators"


class Swap(Parade):
    """The chosen blocks on their way there and back."""

    @contextmanager
    def there(self, index: int) -> Iterator[None]:
        """A context in which a block computes on the way there."""
        self.come(index)
        try:
            yield
        finally:
            if index == len(self.own) - 1 and torch.is_grad_enabled():
                self.lane.mark()  # it stays: the way back begins with it
            else:
                self.go(index)

    @contextmanager
    def back(self, index: int) -> Iterator[None]:
        """A context in which a block computes again; it stays until another comes, for its weights lead the way."""
        self.come(index)
        try:
            yield
        finally:
            self.lane.mark()
            if index and self.ahead:
                self._fetch(index - 1)


def chosen(blocks: int, count: int) -> list[int]:
    """Which blocks come and go: spread evenly, so that those that stay give the copies time."""
    count = min(count, blocks)
    return [(2 * i + 1) * blocks // (2 * count) for i in range(count)]


@contextmanager
def here(pipeline: Pipeline, count: int) -> Iterator[None]:
    """A context in which the network can learn: on the device, but for so many blocks that come and go.

    It is entered before adapters stand beside the layers, which stay there. Blocks that come and go need an offload of
    blocks, for drawing would bring all at once otherwise; what makes modulation comes and goes with them.
    """
    offload = pipeline.on_device
    with ExitStack() as stack:
        if count:
            stack.enter_context(_swapping(pipeline, count))
            stack.enter_context(pipeline.using(MODULATORS))
        elif offload.mode in STREAMED:
            for part in (PART, MODULATORS):
                stack.callback(bring(offload.modules(part), offload.device))
        else:
            for part in (PART, MODULATORS):
                stack.enter_context(pipeline.using(part))
        yield


@contextmanager
def _swapping(pipeline: Pipeline, count: int) -> Iterator[None]:
    """A context in which some blocks come and go, and all are computed twice."""
    offload, network = pipeline.on_device, pipeline.transformer
    assert offload.mode in STREAMED, f"drawing with offload {offload.mode} brings all blocks at once"
    blocks = [*network.double_blocks, *network.single_blocks]
    picked = chosen(len(blocks), count)
    modules = offload.modules(PART)
    own = [[module for module in modules if module in inside] for inside in (set(blocks[i].modules()) for i in picked)]
    swap = _made(offload, own)
    away = set().union(*own)
    with ExitStack() as stack:
        stack.callback(swap.end)
        stack.callback(bring([module for module in modules if module not in away], offload.device))
        for index, block in enumerate(blocks):
            stack.callback(_put, block, vars(block).get("forward"))
            twice = partial(checkpoint, block.forward, use_reentrant=False)
            block.forward = partial(_swapped, swap, picked.index(index), twice) if index in picked else twice
        yield


def _made(offload: Offload, own: list[list[nn.Module]]) -> Swap:
    cuda = offload.device.type == "cuda"
    lane = Beside(offload.device) if cuda else Straight()
    if offload.mode == "disk":
        spill = offload.spills[PART] if PART in offload.spills else Spill(own)
        offload.spills[PART] = spill
        return Swap(own, offload.device, lane, ahead=cuda, left=spill.release)
    for modules in own if cuda else ():
        pin(modules)
    return Swap(own, offload.device, lane, ahead=cuda)


def _swapped(swap: Swap, index: int, twice: Callable[..., object], *args: object) -> object:
    with swap.there(index):
        return twice(*args, context_fn=lambda: (nullcontext(), swap.back(index)))


def _put(block: nn.Module, forward: Callable[..., object] | None) -> None:
    if forward is None:
        del block.forward
    else:
        block.forward = forward
