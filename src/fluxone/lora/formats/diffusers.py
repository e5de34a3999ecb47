"""Diffusers' names, with dots: diffusers and PEFT themselves, ai-toolkit, Hyper-SD and most published files.

Source: huggingface/diffusers, `loaders/lora_pipeline.py`; published files' headers.
"""

from __future__ import annotations

from fluxone.lora.formats.format import Format
from fluxone.lora.names import CLIP_NAMES, DIFFUSERS, T5_NAMES, Table

PREFIXES = (
    "transformer.",
    "",
    "base_model.model.",
    "base_model.model.transformer.",
    "transformer.base_model.model.",
    "diffusion_model.",
    "unet.",
)
ENCODERS = (
    Table(prefix="text_encoder.", names=CLIP_NAMES, bare="text_model."),
    Table(prefix="text_encoder_2.", names=T5_NAMES),
)

FORMAT = Format(
    name="diffusers",
    title="diffusers / PEFT",
    own=tuple(Table(prefix=prefix, names=DIFFUSERS) for prefix in PREFIXES),
    shared=ENCODERS,
    alone=True,
)
