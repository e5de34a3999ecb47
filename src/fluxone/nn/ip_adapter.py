"""IP-Adapters: pictures as a few tokens more that the image's queries attend to, beside the attention that there is.

    vector of a picture --image_proj--> tokens --to_k_ip, to_v_ip of each block--> keys, values    (once a walk)
    queries, normalised but not rotated --attend--> image stream                                    (every call)

    XLabs     19 double blocks; added to what the block gives
    InstantX  all blocks, single ones with their text too; keys normalised, added before the attention is projected

Names are InstantX's, which diffusers uses too. Nothing of the network is replaced: the queries are read behind the
blocks' own norm, and the sum is made behind or before a layer, by hooks that are there for the time of a walk.

Source: XLabs-AI/x-flux, `layers.py`; InstantX/FLUX.1-dev-IP-Adapter; huggingface/diffusers, `transformer_flux.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.nn.controlnet import plain
from fluxone.nn.layers import DoubleBlock, QKNorm, SingleBlock
from fluxone.nn.transformer import Flux
from fluxone.shapes import IpAdapterShape

KEY_EPS = 1e-5  # of InstantX's norm of keys, which has no scale to learn

Heads = Float[Tensor, "B H N D"]
Pair = tuple[Tensor, Tensor]


class Projection(nn.Module):
    """A picture's vector to tokens: `image_proj.*`."""

    def __init__(self, shape: IpAdapterShape) -> None:
        super().__init__()
        self.shape = shape
        outside = shape.tokens * shape.context
        self.proj: nn.Module = nn.Linear(shape.image, outside)
        if shape.deep:
            wide = 2 * shape.image
            self.proj = nn.Sequential(nn.Linear(shape.image, wide), nn.GELU(), nn.Linear(wide, outside))
        self.norm = nn.LayerNorm(shape.context)

    def forward(self, vectors: Float[Tensor, "B E"]) -> Float[Tensor, "B N D"]:
        out: Tensor = self.proj(vectors)
        out = self.norm(out.unflatten(-1, (self.shape.tokens, -1)))
        return out


class Pairs(nn.Module):
    """Keys and values of one block: `ip_adapter.N.*`."""

    def __init__(self, shape: IpAdapterShape) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(shape.context, shape.hidden, bias=not shape.inside)
        self.to_v_ip = nn.Linear(shape.context, shape.hidden, bias=not shape.inside)


class IpAdapter(nn.Module):
    """The adapter's own layers."""

    def __init__(self, shape: IpAdapterShape) -> None:
        super().__init__()
        self.shape = shape
        self.image_proj = Projection(shape)
        self.ip_adapter = nn.ModuleList(Pairs(shape) for _ in range(shape.blocks))

    def forward(self, vectors: Float[Tensor, "B P E"], heads: int) -> list[Pair]:
        """Return keys and values (B H N D) for each block, of all P pictures' tokens in a row."""
        tokens: Tensor = self.image_proj(vectors.flatten(0, 1))
        tokens = tokens.unflatten(0, vectors.shape[:2]).flatten(1, 2)

        def split(rows: Tensor) -> Tensor:
            return torch.unflatten(rows, -1, (heads, -1)).transpose(1, 2)

        found = []
        for pairs in cast("Iterator[Pairs]", iter(self.ip_adapter)):
            keys = split(pairs.to_k_ip(tokens))
            if self.shape.inside:
                keys = F.rms_norm(keys.float(), keys.shape[-1:], eps=KEY_EPS).to(keys.dtype)
            found.append((keys, split(pairs.to_v_ip(tokens))))
        return found


@dataclass(frozen=True, kw_only=True)
class Looking:
    """One adapter at work: keys and values a block, how strongly in each, and where the sum is made."""

    pairs: Sequence[Pair]
    scales: Sequence[float]
    inside: bool


@dataclass(kw_only=True)
class _Seen:
    """The queries of the block that is running."""

    queries: Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def looking(model: Flux, adapters: Sequence[Looking]) -> Iterator[None]:
    """A context in which the network's blocks also attend to the adapters' tokens.

    Blocks that were compiled run uncompiled in here, since compiled ones do not look for hooks.
    """
    seen = _Seen()
    doubles = [
        (block, block.img_attn.norm, block.img_attn.proj) for block in cast("list[DoubleBlock]", model.double_blocks)
    ]
    singles = [(block, block.norm, block.linear2) for block in cast("list[SingleBlock]", model.single_blocks)]
    with ExitStack() as stack:
        for i, (block, norm, way_out) in enumerate((*doubles, *singles)):
            here = [(each, i) for each in adapters if i < len(each.pairs) and each.scales[i] != 0]
            if not here:
                continue
            stack.enter_context(plain(block))
            stack.callback(norm.register_forward_hook(_reading(seen)).remove)
            if within := [each for each, _ in here if each.inside]:
                hook = _joining(seen, within, i)
                stack.callback(way_out.register_forward_pre_hook(hook).remove)
            if behind := [each for each, _ in here if not each.inside]:
                stack.callback(block.register_forward_hook(_following(seen, behind, i)).remove)
        yield


def _reading(seen: _Seen) -> Any:
    def read(norm: QKNorm, args: Any, qk: Tensor) -> None:
        seen.queries = qk[:, :, 0].transpose(1, 2)

    return read


def _sum(seen: _Seen, adapters: Sequence[Looking], block: int) -> Tensor:
    """What the queries find in the adapters' tokens, heads side by side."""
    found = []
    for each in adapters:
        keys, values = each.pairs[block]
        mixed = F.scaled_dot_product_attention(seen.queries.to(values.dtype), keys, values)
        found.append(each.scales[block] * mixed.transpose(1, 2).flatten(2))
    return torch.stack(found).sum(0) if len(found) > 1 else found[0]


def _joining(seen: _Seen, adapters: Sequence[Looking], block: int) -> Any:
    def join(layer: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        found = _sum(seen, adapters, block)
        (x,) = args
        width = found.shape[-1]
        if x.shape[-1] == width:
            return (x + found,)
        return (torch.cat((x[..., :width] + found, x[..., width:]), dim=-1),)  # behind it lies the MLP's part

    return join


def _following(seen: _Seen, adapters: Sequence[Looking], block: int) -> Any:
    def follow(module: nn.Module, args: Any, result: Any) -> None:
        stream: Tensor = result[0] if isinstance(result, tuple) else result
        stream += _sum(seen, adapters, block)

    return follow
