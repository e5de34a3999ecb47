"""ComfyUI's all-in-one files: the four parts under four prefixes.

Source: the header of Comfy-Org/flux1-dev `flux1-dev-fp8.safetensors`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fluxone.weights.formats import autoencoder, encoders, transformer

CLIP_PREFIX = "text_encoders.clip_l.transformer."
T5_PREFIX = "text_encoders.t5xxl.transformer."

TRANSFORMER = replace(transformer.NATIVE, name="comfy transformer", prefix="model.diffusion_model.")
AUTOENCODER = replace(autoencoder.NATIVE, name="comfy autoencoder", prefix="vae.")
T5_ENCODER = replace(
    encoders.T5_NATIVE, name="comfy t5", prefix=T5_PREFIX, ignored=(r"text_encoders\.t5xxl\.logit_scale",)
)
CLIP_ENCODER = replace(
    encoders.CLIP_NATIVE,
    name="comfy clip",
    prefix=CLIP_PREFIX,
    ignored=(r"text_encoders\.clip_l\.logit_scale", *(re.escape(CLIP_PREFIX) + name for name in encoders.CLIP_IGNORED)),
)
