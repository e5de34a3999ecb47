"""Names with underscores: kohya's sd-scripts, and those who write diffusers' names in its manner.

CLIP is `lora_te1`, T5 `lora_te2`. The query, key and value of a file trained with `split_qkv` are in one matrix
again, whose up is zero outside of three blocks; only files saved by other means have `lora_down.0` and so on.

Source: kohya-ss/sd-scripts, `networks/lora_flux.py`; Nerogar/OneTrainer; bghira/SimpleTuner.
"""

from __future__ import annotations

from fluxone.lora.formats.format import Format
from fluxone.lora.names import BFL, CLIP_NAMES, DIFFUSERS, T5_NAMES, Table

ENCODERS = (
    Table(prefix="lora_te1_", names=CLIP_NAMES, joint="_"),
    Table(prefix="lora_te_", names=CLIP_NAMES, joint="_"),
    Table(prefix="lora_te2_", names=T5_NAMES, joint="_"),
)
LYCORIS_ENCODERS = (
    Table(prefix="lycoris_te1_", names=CLIP_NAMES, joint="_"),
    Table(prefix="lycoris_te2_", names=T5_NAMES, joint="_"),
)

KOHYA = Format(
    name="kohya",
    title="kohya sd-scripts",
    own=(Table(prefix="lora_unet_", names=BFL, joint="_"),),
    shared=ENCODERS,
    alone=True,
)
KOHYA_DIFFUSERS = Format(
    name="kohya-diffusers",
    title="kohya with diffusers' names",
    own=(Table(prefix="lora_unet_", names=DIFFUSERS, joint="_"),),
    shared=ENCODERS,
)
ONETRAINER = Format(
    name="onetrainer",
    title="OneTrainer",
    own=(Table(prefix="lora_transformer_", names=DIFFUSERS, joint="_"),),
    shared=ENCODERS,
)
LYCORIS = Format(
    name="lycoris",
    title="LyCORIS / SimpleTuner",
    own=(
        Table(prefix="lycoris_", names=DIFFUSERS, joint="_"),
        Table(prefix="lycoris_", names=BFL, joint="_"),
    ),
    shared=(*ENCODERS, *LYCORIS_ENCODERS),
)
