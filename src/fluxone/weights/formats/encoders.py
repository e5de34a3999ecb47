"""The text encoders' names: the network's own, as Hugging Face publishes them, and their shorter form.

Source: the published files' headers; huggingface/transformers, `models/t5` and `models/clip`.
"""

from __future__ import annotations

from fluxone.weights.keymap import CLIP, T5, Format

# What a CLIP file holds beyond the text encoder: the projection after it, the picture's half, a table of 0, 1, 2...
CLIP_IGNORED = (
    r"text_projection\.weight",
    r"logit_scale",
    r"visual_projection\.weight",
    r"vision_model\..*",
    r"(text_model\.)?embeddings\.position_ids",
)

T5_NATIVE = Format(
    name="t5",
    part=T5,
    marks=("encoder.block.0.layer.0.SelfAttention.q.weight",),
    aliases={"encoder.embed_tokens.weight": "shared.weight"},
)
CLIP_NATIVE = Format(
    name="clip", part=CLIP, marks=("text_model.embeddings.token_embedding.weight",), ignored=CLIP_IGNORED
)
CLIP_BARE = Format(
    name="clip of transformers 5",
    part=CLIP,
    marks=("embeddings.token_embedding.weight",),
    native_prefix="text_model.",
    ignored=CLIP_IGNORED,
)
