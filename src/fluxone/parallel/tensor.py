"""The weights of the blocks shared out: each process has some heads and some of the MLP's inner numbers.

    layers into a block's inside  by rows      q, k, v and the MLP's way in: each process computes its own part
    layers out of it              by columns   each process multiplies its part; the sums of all are added

What is cut how is a table; nothing else knows the names of layers.

Source: Shoeybi et al. 2019 (Megatron-LM).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fluxone.errors import BadRequest
from fluxone.nn.layers import DoubleBlock, SelfAttention, SingleBlock
from fluxone.nn.transformer import Flux
from fluxone.parallel.travel import added

ROWS, COLUMNS = 0, 1
# Layer -> which side of its weight is cut, and the groups on that side, in widths (C) and inner widths (M) of the MLP.
PLANS: dict[type[nn.Module], dict[str, tuple[int, str]]] = {
    DoubleBlock: {
        "img_attn.qkv": (ROWS, "CCC"), "img_attn.proj": (COLUMNS, "C"), "img_mlp.0": (ROWS, "M"),
        "img_mlp.2": (COLUMNS, "M"), "txt_attn.qkv": (ROWS, "CCC"), "txt_attn.proj": (COLUMNS, "C"),
        "txt_mlp.0": (ROWS, "M"), "txt_mlp.2": (COLUMNS, "M"),
    },
    SingleBlock: {"linear1": (ROWS, "CCCM"), "linear2": (COLUMNS, "CM")},
}  # fmt: skip


class Summed(nn.Linear):
    """A layer of which each process has some columns: their products are added over the group, then the bias."""

    group: dist.ProcessGroup

    def forward(self, x: Tensor) -> Tensor:
        out = added(F.linear(x, self.weight), self.group)
        bias = self._parameters["bias"]
        return out if bias is None else out + bias


def pieces(groups: Sequence[int], rank: int, world: int) -> Tensor:
    """The indices of a process's part of each group."""
    found, start = [], 0
    for size in groups:
        each = size // world
        found.append(torch.arange(start + rank * each, start + (rank + 1) * each))
        start += size
    return torch.cat(found)


def share_weights(network: Flux, way: str, group: dist.ProcessGroup) -> None:
    """Leave each process of a group its part of the blocks' weights; call it before anything is packed or compiled.

    Raises:
        BadRequest: heads or inner numbers cannot be shared out among so many, or weights are packed.
    """
    world, shape = dist.get_world_size(group), network.shape
    if shape.heads % world or shape.mlp % world:
        counts = f"{shape.heads} heads and {shape.mlp} inner numbers"
        raise BadRequest(f"{counts} for {world} processes", hint="take a number that divides both")
    sizes = {"C": shape.hidden, "M": shape.mlp}
    for block in (*network.double_blocks, *network.single_blocks):
        plan = next(plan for kind, plan in PLANS.items() if isinstance(block, kind))
        for name, (side, widths) in plan.items():
            layer = block.get_submodule(name)
            if type(layer) is not nn.Linear:
                raise BadRequest(f"the model's {name} is packed or has adapters", hint="share tokens instead: ulysses")
            _cut(layer, side, pieces([sizes[width] for width in widths], dist.get_rank(group), world), group)
        for module in block.modules():
            if isinstance(module, SelfAttention | SingleBlock):
                module.heads //= world
        if isinstance(block, SingleBlock):
            block.sizes = (block.sizes[0] // world, block.sizes[1] // world)


def _cut(layer: nn.Linear, side: int, kept: Tensor, group: dist.ProcessGroup) -> None:
    kept = kept.to(layer.weight.device)
    layer.weight = nn.Parameter(layer.weight.detach().index_select(side, kept), requires_grad=False)
    layer.out_features, layer.in_features = layer.weight.shape
    if side == COLUMNS:
        layer.__class__ = Summed
        layer.__dict__["group"] = group
    elif layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept], requires_grad=False)
