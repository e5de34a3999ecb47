"""An adapter that makes a model of its own out of another: merged into the weights when that is loaded.

Whoever works with the model later sees no adapter: it cannot be switched off with others, costs nothing a step, and is
quantized and compiled with the rest.
"""

from __future__ import annotations

from dataclasses import replace

from fluxone.lora.adapters import Adapters, Strength
from fluxone.lora.load import load_lora
from fluxone.variants import Variant
from fluxone.weights.identify import condition
from fluxone.weights.keymap import CLIP, T5, TRANSFORMER
from fluxone.weights.load import Bundle
from fluxone.weights.shipped import shipped


def joined(bundle: Bundle, row: Variant) -> Bundle:
    """The model that a row's adapter makes of its base.

    Args:
        bundle: the base, as it was loaded for that row.

    Raises:
        BadFile: the adapter is not there.
        BadWeights: it is broken, or made for another network.
    """
    lora = load_lora(shipped(row))
    flux = bundle.transformer
    parts = {TRANSFORMER: flux, T5: bundle.t5, CLIP: bundle.clip}
    modules = {name: module for name, module in parts.items() if module is not None}
    adapters = Adapters(modules, width=flux.shape.hidden, dtype=next(flux.parameters()).dtype)
    adapters.load(lora, row.name)
    adapters.use({row.name: Strength(scale=row.scale)})
    adapters.fuse()
    adapters.clear(keep_fused=True)
    flux.shape = replace(flux.shape, in_channels=flux.img_in.in_features)
    kind = condition(flux.shape, bundle.autoencoder.shape.factor)
    variant = replace(bundle.variant, shape=flux.shape)
    hashes = {**bundle.hashes, f"lora {row.name}": f"{lora.hash} at {row.scale:g}"}
    return replace(bundle, variant=variant if kind is None else variant.taking(kind), hashes=hashes, source=row.name)
