"""The table of formats: how each part of a model is named in each kind of file."""

from __future__ import annotations

from fluxone.weights.formats import autoencoder, comfy, encoders, transformer
from fluxone.weights.keymap import Format

FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        transformer.NATIVE,
        transformer.DIFFUSERS,
        autoencoder.NATIVE,
        autoencoder.DIFFUSERS,
        encoders.T5_NATIVE,
        encoders.T5_GGUF,
        encoders.CLIP_NATIVE,
        encoders.CLIP_BARE,
        comfy.TRANSFORMER,
        comfy.AUTOENCODER,
        comfy.T5_ENCODER,
        comfy.CLIP_ENCODER,
    )
}
