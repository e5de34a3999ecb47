"""The encoder of an IP-Adapter's pictures: found near the adapter or given, and how pictures go through it.

Given are its file or folder, or the network itself; and with either what brings pictures to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.errors import BadWeights, MissingParts
from fluxone.pixels import Picture
from fluxone.shapes import IpAdapterShape
from fluxone.steering.pictures import as_image, black, clip_pixels, siglip_pixels
from fluxone.weights.extractor import extract_with
from fluxone.weights.vision import load_clip_vision, load_siglip_pooled

FOLDER = "image_encoder"  # where diffusers' repositories have it
FILES = "clip_vision"  # where ComfyUI keeps them


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A picture encoder.

    Attributes:
        network: pixels to vectors `out` wide.
        size: px of its pictures each way.
        pixels: how a picture is brought to it.
    """

    network: nn.Module
    size: int
    out: int
    pixels: Callable[[Picture, int], Tensor]

    def vectors(self, pictures: Sequence[Picture] | None, device: torch.device) -> Float[Tensor, "P E"]:
        """The vectors of pictures, float32 on the CPU; of a black one if there are none."""
        several: list[Picture] = [black(self.size)] if pictures is None else list(pictures)
        weight = next(self.network.parameters())
        pixels = torch.cat([self.pixels(picture, self.size) for picture in several]).to(device, weight.dtype)
        out: Tensor = self.network(pixels)
        return out.float().cpu()


@dataclass(frozen=True, kw_only=True)
class Given:
    """What an adapter's pictures are to be seen with.

    Attributes:
        network: the encoder, or its file or folder; None is looked for near the adapter.
        extractor: what brings pictures to it (`weights.extractor`); None is our own way.
        dtype: in which it computes; None is the model's.
    """

    network: Path | nn.Module | None = None
    extractor: object = None
    dtype: torch.dtype | None = None

    def over(self, kept: Given) -> Given:
        """This, and where it says no network what is said elsewhere: an extractor belongs to its network."""
        if self.network is not None:
            return self
        extractor = kept.extractor if self.extractor is None else self.extractor
        return Given(network=kept.network, extractor=extractor, dtype=self.dtype or kept.dtype)


OPEN = Given()


def clip(place: Path | nn.Module, dtype: torch.dtype) -> Encoder:
    """CLIP's, as XLabs' adapters want it."""
    network = load_clip_vision(place, dtype)
    return Encoder(network=network, size=network.shape.size, out=network.shape.out, pixels=clip_pixels)


def siglip(place: Path | nn.Module, dtype: torch.dtype) -> Encoder:
    """SigLIP's with its head, as InstantX's adapters want it."""
    network = load_siglip_pooled(place, dtype)
    return Encoder(network=network, size=network.shape.size, out=network.shape.hidden, pixels=siglip_pixels)


# Whether an adapter has a layer between vector and tokens -> its encoder, and what that is usually called.
KINDS: dict[bool, tuple[Callable[[Path | nn.Module, torch.dtype], Encoder], str]] = {
    False: (clip, "openai/clip-vit-large-patch14"),
    True: (siglip, "google/siglip-so400m-patch14-384"),
}


def find_encoder(shape: IpAdapterShape, adapter: Path, given: Given, dtype: torch.dtype) -> Encoder | None:
    """The encoder that an adapter wants: the given one, else one near its file, else None.

    Raises:
        BadFile, BadWeights: the given one cannot be read, or gives vectors of another width.
        BadRequest: the feature extractor does not fit it.
    """
    found = _find(shape, adapter, given.network, given.dtype or dtype)
    if found is None or given.extractor is None:
        return found
    extract = extract_with(given.extractor, found.size)
    return replace(found, pixels=lambda picture, size: extract(as_image(picture)))


def _find(shape: IpAdapterShape, adapter: Path, given: Path | nn.Module | None, dtype: torch.dtype) -> Encoder | None:
    load, usual = KINDS[shape.deep]
    if given is not None:
        found = load(given, dtype)
        if found.out != shape.image:
            name = f"the given {type(given).__name__}" if isinstance(given, nn.Module) else given
            raise BadWeights(
                f"{name} makes {found.out} numbers of a picture, the IP-Adapter takes {shape.image}",
                hint=f"give the encoder that it was trained with, such as {usual}",
            )
        return found
    folder = adapter if adapter.is_dir() else adapter.parent
    near = [around / FOLDER for around in (folder, folder.parent) if (around / FOLDER).is_dir()]
    near += [file for around in (folder, folder.parent) for file in sorted((around / FILES).glob("*.safetensors"))]
    for place in near:
        try:
            found = load(place, dtype)
        except BadWeights:  # an encoder of another kind
            continue
        if found.out == shape.image:
            return found
    return None


def missing(shape: IpAdapterShape, name: str) -> MissingParts:
    """The error of an adapter that is given pictures and has no encoder."""
    return MissingParts(
        f"the IP-Adapter {name!r} has no encoder for its pictures",
        hint=f"give image_encoder, a folder or file of {KINDS[shape.deep][1]}, or the pictures' vectors",
    )
