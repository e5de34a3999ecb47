"""Pictures of unfinished latents, without the decoder: a linear map from latent channels to colour, or TAEF1.

    clean latent (C h w)  --(C + 1) x 3 matrix-->  RGB picture, one pixel a cell
    clean latent (C h w)  --tiny decoder, where its file is there-->  RGB picture at full size

The map is fitted once to the model's own autoencoder, so it fits any: a chart of coloured patches is encoded and
the colours are regressed on the latent. How a preview is shown is not known here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from fluxone import pixels as px
from fluxone.guiding import fitting_tiny
from fluxone.nn.taef1 import TinyDecoder
from fluxone.pipeline import Pipeline

CHART = 32  # cells: 1024 samples for 17 unknowns a colour
APPROXIMATE = "vae_approx"  # ComfyUI's folder of tiny decoders
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


class Sketch:
    """A tiny decoder's pictures."""

    def __init__(self, pipeline: Pipeline, decoder: TinyDecoder) -> None:
        self.decoder = decoder.to(pipeline.on_device.device)

    @torch.inference_mode()
    def picture(self, latent: Float[Tensor, "C h w"]) -> Image:
        """At the finished picture's size."""
        weight = next(self.decoder.parameters())
        return px.to_images(px.unit(self.decoder.decode(latent[None].to(weight)).float()))[0]


def previewer(pipeline: Pipeline) -> Palette | Sketch:
    """What draws previews: the recipe's tiny decoder, or one that lies near the model's files, else the linear map.

    Raises:
        BadFile, BadWeights: the recipe's cannot be read, or does not fit.
    """
    if isinstance(pipeline.decoder, TinyDecoder):
        return Sketch(pipeline, pipeline.decoder)
    given = pipeline.recipe.preview_decoder
    place = tiny_near(pipeline.bundle.source) if given is None else Path(given).expanduser()
    if place is None:
        return Palette(pipeline)
    return Sketch(pipeline, fitting_tiny(place, pipeline.autoencoder.shape))


def tiny_near(source: str) -> Path | None:
    """TAEF1's file beside a model's, or where ComfyUI keeps it."""
    path = Path(source).expanduser()
    if not path.exists():
        return None
    folder = path if path.is_dir() else path.parent
    around = (folder, folder / APPROXIMATE, folder.parent / APPROXIMATE)
    found = [
        file for place in around for file in sorted(place.glob("taef1*.safetensors")) if "encoder" not in file.name
    ]
    return next(iter(found), None)


def _with_one(latent: Float[Tensor, "C h w"]) -> Float[Tensor, "N K"]:
    """A row of channels and a 1 for each cell."""
    flat = latent.flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
