"""The configs of a model's parts wherever they were found, and what of them a layout without configs would lose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fluxone.errors import BadWeights
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.shapes import AutoEncoderShape, FluxShape
from fluxone.variants import VARIANTS, Variant
from fluxone.weights import configs, identify, sizes
from fluxone.weights.keymap import AUTOENCODER, CLIP, T5, TRANSFORMER
from fluxone.weights.locate import Source

READERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    TRANSFORMER: (configs.read_flux, sizes.flux),
    AUTOENCODER: (configs.read_autoencoder, sizes.autoencoder),
    T5: (configs.read_t5, sizes.t5),
    CLIP: (configs.read_clip, sizes.clip),
}
NETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    TRANSFORMER: Flux,
    AUTOENCODER: AutoEncoder,
    T5: T5Encoder,
    CLIP: ClipTextEncoder,
}


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a model's parts are. `shapes` and `configs` by part, of those that are there."""

    found: Source
    shapes: Mapping[str, Any]
    variant: Variant | None  # with its own schedule; None without a transformer

    @classmethod
    def of(cls, found: Source) -> Described:
        """Tell it of a model as it was found; where it has no autoencoder, as with FLUX.1's.

        Raises:
            BadFile, BadWeights: a config or the tensors tell nothing sound.
        """
        shapes = {name: identify.shape_of(part, *READERS[name]) for name, part in found.parts.items()}
        row = None
        if TRANSFORMER in shapes:
            latent = shapes.get(AUTOENCODER, AutoEncoderShape())
            row = identify.variant_of(found, shapes[TRANSFORMER], latent, None)
        return cls(found=found, shapes=shapes, variant=row)

    def wanted(self, name: str) -> dict[str, tuple[int, ...]]:
        """The names and shapes of a part's network."""
        with torch.device("meta"):
            return {key: tuple(tensor.shape) for key, tensor in NETWORKS[name](self.shapes[name]).state_dict().items()}

    def config(self, name: str) -> dict[str, Any]:
        """The config that diffusers or transformers read.

        Raises:
            BadWeights: they have no word for one of its numbers.
        """
        size = self.variant.size if self.variant is not None else 0
        writers: dict[str, Callable[[Any], dict[str, Any]]] = {
            TRANSFORMER: configs.write_flux,
            AUTOENCODER: lambda shape: configs.write_autoencoder(shape, size),
            T5: configs.write_t5,
            CLIP: configs.write_clip,
        }
        return writers[name](self.shapes[name])

    def untold(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The configs of those parts whose tensors do not tell what they are; the schedule if it is not the row's."""
        told = {name: self.config(name) for name in names if not self._tells(name)}
        if TRANSFORMER in names and self.variant is not None:
            own, bare = (configs.write_scheduler(row) for row in (self.variant, self._bare()))
            if own != bare:
                told[identify.SCHEDULE] = own
        return told

    def _tells(self, name: str) -> bool:
        """Whether a part's shape is what its tensors' shapes say."""
        part = self.found.parts[name]
        if part.config is None and identify.noted(part, name) is None:
            return True
        flux = self.shapes.get(TRANSFORMER)
        known = flux is not None and (flux.axes == FluxShape().axes or flux in (row.shape for row in VARIANTS.values()))
        if name == TRANSFORMER and not known:
            return False  # its rotary axes would be a guess
        try:
            return bool(READERS[name][1](identify.native_shapes_of(part), part.place) == self.shapes[name])
        except BadWeights:
            return False

    def _bare(self) -> Variant:
        """The row that the transformer alone speaks for."""
        flux, latent = self.shapes[TRANSFORMER], self.shapes.get(AUTOENCODER, AutoEncoderShape())
        return identify.variant_of(Source(path=self.found.path, layout=""), flux, latent, None)
