"""The encoder of an IP-Adapter's pictures: found near the adapter or given, and how pictures go through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.errors import BadWeights, MissingParts
from fluxone.nn.clip_vision import ClipVisionEncoder
from fluxone.pixels import Picture
from fluxone.shapes import IpAdapterShape
from fluxone.steering.pictures import black, clip_pixels
from fluxone.weights.beside import load_clip_vision

FOLDER = "image_encoder"  # where diffusers' repositories have it
FILES = "clip_vision"  # where ComfyUI keeps them
USUAL = "openai/clip-vit-large-patch14"


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A picture encoder."""

    network: ClipVisionEncoder

    def vectors(self, pictures: Sequence[Picture] | None, device: torch.device) -> Float[Tensor, "P E"]:
        """The vectors of pictures, float32 on the CPU; of a black one if there are none."""
        size = self.network.shape.size
        several = [black(size)] if pictures is None else list(pictures)
        weight = self.network.visual_projection.weight
        pixels = torch.cat([clip_pixels(picture, size) for picture in several]).to(device, weight.dtype)
        out: Tensor = self.network(pixels)
        return out.float().cpu()


def find_encoder(shape: IpAdapterShape, adapter: Path, given: Path | None, dtype: torch.dtype) -> Encoder | None:
    """The encoder that an adapter wants: the given one, else one near its file, else None.

    Raises:
        BadFile, BadWeights: the given one cannot be read, or gives vectors of another width.
    """
    folder = adapter if adapter.is_dir() else adapter.parent
    near = [around / FOLDER for around in (folder, folder.parent)]
    near += [file for around in (folder, folder.parent) for file in sorted((around / FILES).glob("*.safetensors"))]
    for place in [given] if given is not None else [place for place in near if place.exists()]:
        network = load_clip_vision(place, dtype)
        if network.shape.out == shape.image:
            return Encoder(network=network)
        if given is not None:
            raise BadWeights(
                f"{place} makes {network.shape.out} numbers of a picture, the IP-Adapter takes {shape.image}",
                hint=f"give the encoder that it was trained with, such as {USUAL}",
            )
    return None


def missing(name: str) -> MissingParts:
    """The error of an adapter that is given pictures and has no encoder."""
    return MissingParts(
        f"the IP-Adapter {name!r} has no encoder for its pictures",
        hint=f"give image_encoder, a folder or file of {USUAL}, or the pictures' vectors",
    )
