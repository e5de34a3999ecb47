"""What processes send each other, with its way back for gradients.

    exchanged   part i to process i                    back: its gradient from process i
    gathered    everybody's tensor to everybody        back: the sum of everybody's gradients of one's own
    added       the sum over everybody                 back: the sum of everybody's gradients

Together the processes descend the sum of what each of them calls its loss: where c of them compute the same loss, each
calls a c-th of it its own. The gradient of a parameter is then the sum over all of them, whatever each has computed.

Without gradients nothing is remembered, and these are the plain collectives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

# Torch 2.13 has new names for them, and warns of the old ones.
all_gather: Callable[..., object] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter: Callable[..., object] = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

Shape = tuple[int, ...]
Sizes = list[int]


def exchanged(parts: Sequence[Tensor], shapes: Sequence[Shape], group: dist.ProcessGroup) -> list[Tensor]:
    """Send part i to process i; what comes from each, of these shapes."""
    sent = torch.cat([part.flatten() for part in parts])
    given, taken = [part.numel() for part in parts], _sizes(shapes)
    come = _reach(_Exchange, _exchange, sent, given, taken, group)
    return [flat.view(shape) for flat, shape in zip(come.split(taken), shapes, strict=True)]


def gathered(own: Tensor, shapes: Sequence[Shape], group: dist.ProcessGroup) -> list[Tensor]:
    """Everybody's tensor; they may differ in size, and travel as long as the longest."""
    sizes = _sizes(shapes)
    padded = F.pad(own.flatten(), (0, max(sizes) - own.numel()))
    come = _reach(_Gather, _gather, padded, group)
    rows = come.view(len(sizes), -1).unbind(0)
    return [row[:size].view(shape) for row, size, shape in zip(rows, sizes, shapes, strict=True)]


def added(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum of everybody's tensor; `own` may be overwritten."""
    return _reach(_Add, _add, own, group)


def _reach(learning: type[Function], plain: Callable[..., Tensor], x: Tensor, *rest: object) -> Tensor:
    """With a way back where one is needed."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return plain(x, *rest)
    found: Tensor = learning.apply(x, *rest)
    return found


def _sizes(shapes: Sequence[Shape]) -> Sizes:
    return [torch.Size(shape).numel() for shape in shapes]


def _exchange(sent: Tensor, given: Sizes, taken: Sizes, group: dist.ProcessGroup) -> Tensor:
    come = sent.new_empty(sum(taken))
    dist.all_to_all_single(come, sent, taken, given, group=group)
    return come


def _gather(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    come = own.new_empty(dist.get_world_size(group) * own.numel())
    all_gather(come, own, group=group)
    return come


def _add(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    dist.all_reduce(own, group=group)
    return own


class _Exchange(Function):
    @staticmethod
    def forward(ctx: Any, sent: Tensor, given: Sizes, taken: Sizes, group: dist.ProcessGroup) -> Tensor:
        ctx.way = taken, given, group
        return _exchange(sent, given, taken, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _exchange(grads[0].contiguous(), *ctx.way), None, None, None


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gather(own, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        own = grads[0].new_empty(grads[0].numel() // dist.get_world_size(ctx.group))
        reduce_scatter(own, grads[0].contiguous(), group=ctx.group)
        return own, None


class _Add(Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _add(own.clone(), group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _add(grads[0].clone(memory_format=torch.contiguous_format), ctx.group), None
