"""The SigLIP picture encoder, with the parameter names of the published files, and the embedder of Redux after it.

    pixels (B 3 S S), normalised --patches--> hidden (B N D) --redux_up, redux_down--> tokens as T5's (B N T)

Every patch has a token; the head that would make one vector of them is not needed, and not loaded.

Source: Zhai et al. 2023; huggingface/transformers, `models/siglip` (names); black-forest-labs/flux,
`modules/image_embedders.py` (`ReduxImageEncoder`).
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.nn.clip import Encoder
from fluxone.shapes import ReduxShape, SiglipShape

WIDER = 3  # times the text's width: Redux's middle


class Patches(nn.Module):
    """A token a patch, plus positions."""

    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, shape.hidden, shape.patch, stride=shape.patch)
        self.position_embedding = nn.Embedding(shape.tokens, shape.hidden)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N D"]:
        patches: Tensor = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return patches + self.position_embedding.weight


class VisionModel(nn.Module):
    """Patches, layers, last norm: `vision_model.*` of the files."""

    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.embeddings = Patches(shape)
        self.encoder = Encoder(shape)
        self.post_layernorm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N D"]:
        out: Tensor = self.post_layernorm(self.encoder(self.embeddings(pixels)))
        return out


class SiglipEncoder(nn.Module):
    """Pictures to tokens: the last hidden state."""

    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.shape = shape
        self.vision_model = VisionModel(shape)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N D"]:
        out: Tensor = self.vision_model(pixels)
        return out


class ReduxEmbedder(nn.Module):
    """A picture's tokens in the space of T5's."""

    def __init__(self, shape: ReduxShape) -> None:
        super().__init__()
        self.shape = shape
        self.redux_up = nn.Linear(shape.image, WIDER * shape.text)
        self.redux_down = nn.Linear(WIDER * shape.text, shape.text)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N T"]:
        out: Tensor = self.redux_down(F.silu(self.redux_up(tokens)))
        return out
