"""The CLIP text encoder, with the parameter names of the published files.

    ids (B T), T up to 77 --> hidden (B T D), pooled (B D): hidden at the end token

Each position attends to itself and to those before it, so padding after the end token changes nothing that
FLUX.1 uses.

Source: Radford et al. 2021; huggingface/transformers, `models/clip` (names, the rule of the end token).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluxone.errors import pick
from fluxone.nn.activations import ACTIVATIONS
from fluxone.shapes import ClipShape, ClipVisionShape, SiglipShape

LEGACY_EOS = 2  # configurations that say 2 mean: the largest id of the row is the end token

Shape = ClipShape | ClipVisionShape | SiglipShape  # the layers are the same for words and pictures
Stream = Float[Tensor, "B T D"]


class Embeddings(nn.Module):
    """Tokens plus positions."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(shape.vocab, shape.hidden)
        self.position_embedding = nn.Embedding(shape.positions, shape.hidden)

    def forward(self, ids: Int[Tensor, "B T"]) -> Stream:
        places = torch.arange(ids.shape[1], device=ids.device)
        tokens: Tensor = self.token_embedding(ids)
        positions: Tensor = self.position_embedding(places)
        return tokens + positions


class SelfAttention(nn.Module):
    """Every position attends to all; in a text to itself and those before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.causal = shape.heads, shape.causal
        self.q_proj = nn.Linear(shape.hidden, shape.hidden)
        self.k_proj = nn.Linear(shape.hidden, shape.hidden)
        self.v_proj = nn.Linear(shape.hidden, shape.hidden)
        self.out_proj = nn.Linear(shape.hidden, shape.hidden)

    def forward(self, x: Stream) -> Stream:
        def heads(part: Tensor) -> Tensor:
            return torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2)

        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.activation = pick(ACTIVATIONS, shape.activation, "activation")
        self.fc1 = nn.Linear(shape.hidden, shape.mlp)
        self.fc2 = nn.Linear(shape.mlp, shape.hidden)

    def forward(self, x: Stream) -> Stream:
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class Layer(nn.Module):
    """Attention and MLP, each after a norm and beside a shortcut."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = SelfAttention(shape)
        self.layer_norm1 = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.mlp = MLP(shape)
        self.layer_norm2 = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def forward(self, x: Stream) -> Stream:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The layers: `encoder.*` of the files."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))

    def forward(self, x: Stream) -> Stream:
        for layer in self.layers:
            x = layer(x)
        return x


class TextModel(nn.Module):
    """Embeddings, layers, last norm: `text_model.*` of the files."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)
        self.final_layer_norm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def forward(self, ids: Int[Tensor, "B T"]) -> Stream:
        out: Tensor = self.final_layer_norm(self.encoder(self.embeddings(ids)))
        return out


class ClipTextEncoder(nn.Module):
    """Token ids to hidden states and the pooled state."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.shape = shape
        self.text_model = TextModel(shape)

    def forward(self, ids: Int[Tensor, "B T"]) -> tuple[Stream, Float[Tensor, "B D"]]:
        hidden: Tensor = self.text_model(ids)
        ends = ids if self.shape.eos == LEGACY_EOS else (ids == self.shape.eos).int()
        return hidden, hidden[torch.arange(len(ids), device=ids.device), ends.argmax(dim=-1)]
