"""The T5 text encoder, with the parameter names of the published files.

    ids (B T) --shared--> (B T D) --blocks--> (B T D)

There is no mask: padding attends and is attended to, as FLUX.1 was trained, so the padded length changes the
picture. Attention is not scaled, and all blocks share the first one's bias by relative position.

Source: Raffel et al. 2020; huggingface/transformers, `models/t5` (names, feed-forward layers, buckets).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluxone.errors import pick
from fluxone.nn.activations import ACTIVATIONS
from fluxone.shapes import T5Shape

# Names under which files may hold the embedding, which is one and the same tensor.
TIED = {"encoder.embed_tokens.weight": "shared.weight"}

Stream = Float[Tensor, "B T D"]


class RMSNorm(nn.Module):
    """Divide by the root of the mean square, and scale; computed in float32 or wider."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Stream) -> Stream:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.eps)


class SelfAttention(nn.Module):
    """Attention without biases and without scaling; the first block also holds the bias by position."""

    def __init__(self, shape: T5Shape, *, first: bool) -> None:
        super().__init__()
        self.heads = shape.heads
        inner = shape.heads * shape.head_dim
        self.q = nn.Linear(shape.hidden, inner, bias=False)
        self.k = nn.Linear(shape.hidden, inner, bias=False)
        self.v = nn.Linear(shape.hidden, inner, bias=False)
        self.o = nn.Linear(inner, shape.hidden, bias=False)
        self.relative_attention_bias = nn.Embedding(shape.buckets, shape.heads) if first else None

    def forward(self, x: Stream, bias: Float[Tensor, "H T T"]) -> Stream:
        def heads(part: Tensor) -> Tensor:
            return torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2)

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)
        out: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return out


class AttentionLayer(nn.Module):
    """Norm, attention, shortcut."""

    def __init__(self, shape: T5Shape, *, first: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(shape, first=first)
        self.layer_norm = RMSNorm(shape.hidden, shape.eps)

    def forward(self, x: Stream, bias: Float[Tensor, "H T T"]) -> Stream:
        out: Tensor = self.SelfAttention(self.layer_norm(x), bias)
        return x + out


class Dense(nn.Module):
    """One way in, activated, and out: T5 v1.0."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.activation = pick(ACTIVATIONS, shape.activation, "activation")
        self.wi = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.wo = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, x: Stream) -> Stream:
        out: Tensor = self.wo(self.activation(self.wi(x)))
        return out


class GatedDense(nn.Module):
    """Two ways in, one of them activated, multiplied: T5 v1.1."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.activation = pick(ACTIVATIONS, shape.activation, "activation")
        self.wi_0 = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.wi_1 = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.wo = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, x: Stream) -> Stream:
        out: Tensor = self.wo(self.activation(self.wi_0(x)) * self.wi_1(x))
        return out


class FeedForwardLayer(nn.Module):
    """Norm, feed-forward network, shortcut."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.DenseReluDense = GatedDense(shape) if shape.gated else Dense(shape)
        self.layer_norm = RMSNorm(shape.hidden, shape.eps)

    def forward(self, x: Stream) -> Stream:
        out: Tensor = self.DenseReluDense(self.layer_norm(x))
        return x + out


class Block(nn.Module):
    """Attention, then feed-forward: `layer.0` and `layer.1` of the files."""

    def __init__(self, shape: T5Shape, *, first: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList((AttentionLayer(shape, first=first), FeedForwardLayer(shape)))

    def forward(self, x: Stream, bias: Float[Tensor, "H T T"]) -> Stream:
        out: Tensor = self.layer[1](self.layer[0](x, bias))
        return out


class Stack(nn.Module):
    """The blocks and the last norm: `encoder.*` of the files."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.shape = shape
        self.block = nn.ModuleList(Block(shape, first=i == 0) for i in range(shape.layers))
        self.final_layer_norm = RMSNorm(shape.hidden, shape.eps)

    def places(self, length: int, device: torch.device) -> Int[Tensor, "T T"]:
        """Return which row of the table each (query, key) takes; kept for the last lengths."""
        return _placed(length, self.shape.buckets, self.shape.max_distance, device)

    def bias(self, length: int) -> Float[Tensor, "H T T"]:
        """Return what every block adds to its attention, by relative position."""
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias  # type: ignore[union-attr, index]
        bias: Tensor = table(self.places(length, table.weight.device))
        return bias.permute(2, 0, 1).contiguous()  # as the kernels of every block want it

    def forward(self, x: Stream) -> Stream:
        bias = self.bias(x.shape[1])
        for block in self.block:
            x = block(x, bias)
        out: Tensor = self.final_layer_norm(x)
        return out


class T5Encoder(nn.Module):
    """Token ids to hidden states. The embedding is `shared`; files may also call it by a name in `TIED`."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.shape = shape
        self.shared = nn.Embedding(shape.vocab, shape.hidden)
        self.encoder = Stack(shape)

    def forward(self, ids: Int[Tensor, "B T"]) -> Stream:
        out: Tensor = self.encoder(self.shared(ids))
        return out


@lru_cache(maxsize=8)
def _placed(length: int, count: int, max_distance: int, device: torch.device) -> Tensor:
    """The buckets on a device: an encoder on a GPU would wait longer for them than for a block."""
    with torch.inference_mode(False):
        return buckets(length, count, max_distance).to(device)


def buckets(length: int, count: int, max_distance: int) -> Int[Tensor, "T T"]:
    """Return the bucket of every (query, key): half of them for keys ahead; near ones alone, far ones by logarithm."""
    place = torch.arange(length)
    ahead = place[None, :] - place[:, None]
    half = count // 2
    exact = half // 2
    distance = ahead.abs()
    far = (distance.float() / exact).clamp(min=1).log() / math.log(max_distance / exact) * (half - exact)
    near_or_far = torch.where(distance < exact, distance, (exact + far.long()).clamp(max=half - 1))
    return near_or_far + (ahead > 0) * half
