"""The processes of one run: alone, or started by `torchrun` and averaging their gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

PATIENCE = timedelta(hours=2)  # that the others wait while the first draws pictures


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process' place among `world` processes, of which `context` side by side work on the same samples."""

    rank: int = 0
    world: int = 1
    context: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    @property
    def shares(self) -> int:
        """How many shares a batch is cut into."""
        return self.world // self.context

    def share(self, batch: int) -> slice:
        """This process' rows of a batch. Shares differ by at most one row."""
        place = self.rank // self.context
        return slice(batch * place // self.shares, batch * (place + 1) // self.shares)


def join(device: str) -> Group:
    """Join the group that `torchrun` described in the environment; alone without it."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Group()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    return Group(rank=dist.get_rank(), world=dist.get_world_size())


@torch.no_grad()
def average(group: Group, params: Iterable[nn.Parameter], weight: float) -> None:
    """Replace gradients by their sum over the group, each first scaled by `weight` (its share of the batch)."""
    if group.world == 1:
        return
    grads = [p.grad for p in params if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads]).mul_(weight)
    dist.all_reduce(flat)
    offset = 0
    for grad in grads:
        grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
        offset += grad.numel()


def total(group: Group, value: Tensor) -> Tensor:
    """The tensor, replaced by its sum over the group."""
    if group.world > 1:
        dist.all_reduce(value)
    return value


def agreed(group: Group, wish: bool, device: torch.device) -> bool:
    """Whether any process wishes it: all of them are told the same, when all of them have asked."""
    if group.world == 1:
        return wish
    return bool(total(group, torch.tensor(float(wish), device=device)))
