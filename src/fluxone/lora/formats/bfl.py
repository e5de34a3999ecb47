"""The network's own names, with dots, under whatever prefix the tool has.

Source: black-forest-labs/flux, `modules/lora.py` (control LoRA); comfyanonymous/ComfyUI, `lora.py`; published
files' headers.
"""

from __future__ import annotations

from fluxone.lora.formats.format import Format
from fluxone.lora.names import BFL, CLIP_NAMES, SPLIT, T5_NAMES, XLABS, Table

COMFY_ENCODERS = (
    Table(prefix="text_encoders.clip_l.transformer.", names=CLIP_NAMES),
    Table(prefix="text_encoders.t5xxl.transformer.", names=T5_NAMES),
    Table(prefix="text_encoders.", names=CLIP_NAMES),
)

CONTROL = Format(name="bfl", title="Black Forest Labs, as their control LoRAs", own=(Table(prefix="", names=BFL),))
COMFY = Format(
    name="comfy",
    title="ComfyUI, ai-toolkit: diffusion_model.*",
    own=(Table(prefix="diffusion_model.", names=BFL), Table(prefix="model.diffusion_model.", names=BFL)),
    shared=COMFY_ENCODERS,
    alone=True,
)
FAL = Format(
    name="fal", title="fal: PEFT around the original network", own=(Table(prefix="base_model.model.", names=BFL),)
)
ONETRAINER = Format(
    name="onetrainer-bfl",
    title="OneTrainer with the original names",
    own=(Table(prefix="transformer.", names=SPLIT), Table(prefix="transformer.", names=BFL)),
    shared=(
        Table(prefix="text_encoder_1.", names=CLIP_NAMES),
        Table(prefix="text_encoder_2.", names=T5_NAMES),
        Table(prefix="clip_l.", names=CLIP_NAMES),
        Table(prefix="t5.", names=T5_NAMES),
    ),
)
FORMER = (Table(prefix="", names=XLABS), Table(prefix="diffusion_model.", names=XLABS))
XLABS_FORMAT = Format(name="xlabs", title="XLabs: attention processors", own=FORMER)
