"""Pictures of unfinished latents, without the decoder: a linear map from latent channels to colour.

    clean latent (C h w)  --(C + 1) x 3 matrix-->  RGB picture, one pixel a cell

The map is fitted once to the model's own autoencoder, so it fits any: a chart of coloured patches is encoded and
the colours are regressed on the latent. How a preview is shown is not known here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from fluxone import pixels as px
from fluxone.pipeline import Pipeline

CHART = 32  # cells: 1024 samples for 17 unknowns a colour
RIDGE = 1e-3  # keeps channels without colour small


class Palette:
    """The linear map from a latent to colours in 0..1, fitted to one autoencoder."""

    def __init__(self, pipeline: Pipeline) -> None:
        factor = pipeline.autoencoder.shape.factor
        patches = torch.rand(1, 3, CHART // 2, CHART // 2, generator=torch.Generator().manual_seed(0))
        cells = interpolate(patches, scale_factor=2, mode="bilinear")
        pixels = interpolate(cells, scale_factor=factor, mode="bilinear") * 2 - 1
        rows = _with_one(pipeline.encode_pixels(pixels, None, posterior=False)[0])
        wanted = px.unit(avg_pool2d(pixels, factor))[0].flatten(1).T
        damped = rows.T @ rows + RIDGE * len(rows) * torch.eye(rows.shape[1])
        self.matrix = torch.linalg.solve(damped, rows.T @ wanted)

    def picture(self, latent: Float[Tensor, "C h w"]) -> Image:
        """One pixel a cell."""
        colours = (_with_one(latent.float().cpu()) @ self.matrix).clamp(0, 1)
        return px.to_images(colours.T.reshape(1, 3, *latent.shape[-2:]))[0]


def _with_one(latent: Float[Tensor, "C h w"]) -> Float[Tensor, "N K"]:
    """A row of channels and a 1 for each cell."""
    flat = latent.flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
