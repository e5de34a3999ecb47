"""SigLIP with its head, which makes one vector of a picture's tokens: what InstantX's IP-Adapter looks with.

    hidden (B N D) --a learned query attends to all--> MLP beside a shortcut --> (B D)

Source: Zhai et al. 2023; huggingface/transformers, `models/siglip`, `SiglipMultiheadAttentionPoolingHead` (names).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.nn.clip import MLP
from fluxone.nn.siglip import VisionModel
from fluxone.shapes import SiglipShape


class Head(nn.Module):
    """Attention of one learned query, then an MLP: `vision_model.head.*` of the files."""

    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, shape.hidden))
        self.attention = nn.MultiheadAttention(shape.hidden, shape.heads, batch_first=True)
        self.layernorm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.mlp = MLP(shape)

    def forward(self, hidden: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        x: Tensor = self.attention(self.probe.expand(len(hidden), -1, -1), hidden, hidden, need_weights=False)[0]
        x = x + self.mlp(self.layernorm(x))
        return x[:, 0]


class PooledVisionModel(nn.Module):
    """Patches, layers, last norm, head: `vision_model.*` of the files."""

    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        inside = VisionModel(shape)
        self.embeddings, self.encoder, self.post_layernorm = inside.embeddings, inside.encoder, inside.post_layernorm
        self.head = Head(shape)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        out: Tensor = self.head(self.post_layernorm(self.encoder(self.embeddings(pixels))))
        return out


class SiglipPooledEncoder(nn.Module):
    """Pictures to vectors: the pooled state."""

    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.shape = shape
        self.vision_model = PooledVisionModel(shape)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        out: Tensor = self.vision_model(pixels)
        return out
