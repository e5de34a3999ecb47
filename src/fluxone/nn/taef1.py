"""TAEF1's decoder: a tiny distilled stand-in for the autoencoder's, for previews and for hurried pictures.

    latent (B C h w) --3 tanh(x/3)--> conv, relu --(blocks, twice as large, conv) x 3--> block, conv --> pixels

Names are those of diffusers' files (`decoder.layers.N`).

Source: madebyollin/taesd; huggingface/diffusers, `DecoderTiny`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.shapes import TinyShape

BOUND = 3.0  # latents beyond are bent back to it


class Block(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, channels, 3, padding=1)]
        for _ in range(2):
            layers += [nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return F.relu(self.conv(x) + x)


class Decoder(nn.Module):
    """The layers: `decoder.*` of the files."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(shape.latent, shape.channels, 3, padding=1), nn.ReLU()]
        for i, blocks in enumerate(shape.decoder):
            last = i == len(shape.decoder) - 1
            layers += [Block(shape.channels) for _ in range(blocks)]
            layers += [] if last else [nn.Upsample(scale_factor=2)]
            layers += [nn.Conv2d(shape.channels, 3 if last else shape.channels, 3, padding=1, bias=last)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        out: Tensor = self.layers(BOUND * torch.tanh(x / BOUND))
        return out


class TinyDecoder(nn.Module):
    """Latents to pixels, at a hundredth of the autoencoder's cost."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.shape = shape
        self.decoder = Decoder(shape)

    def decode(self, latent: Float[Tensor, "B C h w"], *, tile: int | None = None) -> Float[Tensor, "B 3 H W"]:
        """Return the pixels, about -1..1, of latents as the transformer makes them; it is too small to need tiles."""
        out: Tensor = self.decoder(latent / self.shape.scale + self.shape.shift)
        return 2 * out - 1
