"""The CLIP picture encoder, with the parameter names of the published files.

    pixels (B 3 S S), normalised --patches, class token--> hidden (B N D) --> the class token's state, projected

Source: Radford et al. 2021; huggingface/transformers, `models/clip` (names, `pre_layrnorm` as it is spelt there).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.nn.clip import Encoder
from fluxone.shapes import ClipVisionShape


class Patches(nn.Module):
    """A class token before a token a patch, plus positions."""

    def __init__(self, shape: ClipVisionShape) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(shape.hidden))
        self.patch_embedding = nn.Conv2d(3, shape.hidden, shape.patch, stride=shape.patch, bias=False)
        self.position_embedding = nn.Embedding((shape.size // shape.patch) ** 2 + 1, shape.hidden)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N D"]:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        start = self.class_embedding.expand(len(pixels), 1, -1)
        out: Tensor = torch.cat((start, patches), dim=1) + self.position_embedding.weight
        return out


class VisionModel(nn.Module):
    """Patches, norm, layers, last norm: `vision_model.*` of the files."""

    def __init__(self, shape: ClipVisionShape) -> None:
        super().__init__()
        self.embeddings = Patches(shape)
        self.pre_layrnorm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.encoder = Encoder(shape)
        self.post_layernorm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        hidden: Tensor = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        out: Tensor = self.post_layernorm(hidden[:, 0])
        return out


class ClipVisionEncoder(nn.Module):
    """Pictures to vectors in the space that CLIP's texts share."""

    def __init__(self, shape: ClipVisionShape) -> None:
        super().__init__()
        self.shape = shape
        self.vision_model = VisionModel(shape)
        self.visual_projection = nn.Linear(shape.hidden, shape.out, bias=False)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B E"]:
        out: Tensor = self.visual_projection(self.vision_model(pixels))
        return out
