"""The text encoders' names: the network's own, as Hugging Face publishes them, a shorter form, llama.cpp's.

Source: the published files' headers; huggingface/transformers, `models/t5` and `models/clip`; ggml-org/llama.cpp,
`gguf-py/gguf/tensor_mapping.py`.
"""

from __future__ import annotations

from fluxone.weights.keymap import CLIP, T5, Format, Row

# What a CLIP file holds beyond the text encoder: the projection after it, the picture's half, a table of 0, 1, 2...
CLIP_IGNORED = (
    r"text_projection\.weight",
    r"logit_scale",
    r"visual_projection\.weight",
    r"vision_model\..*",
    r"(text_model\.)?embeddings\.position_ids",
)

T5_BLOCK, T5_BLOCK_GGUF = "encoder.block.{n}.layer.", "enc.blk.{n}."
T5_GGUF_ROWS = (
    Row("shared.*", ("token_embd.*",)),
    Row("encoder.final_layer_norm.*", ("enc.output_norm.*",)),
    *(
        Row(f"{T5_BLOCK}{native}.*", (f"{T5_BLOCK_GGUF}{other}.*",))
        for native, other in (
            ("0.SelfAttention.q", "attn_q"),
            ("0.SelfAttention.k", "attn_k"),
            ("0.SelfAttention.v", "attn_v"),
            ("0.SelfAttention.o", "attn_o"),
            ("0.SelfAttention.relative_attention_bias", "attn_rel_b"),
            ("0.layer_norm", "attn_norm"),
            ("1.DenseReluDense.wi_0", "ffn_gate"),
            ("1.DenseReluDense.wi_1", "ffn_up"),
            ("1.DenseReluDense.wo", "ffn_down"),
            ("1.layer_norm", "ffn_norm"),
        )
    ),
)
# llama.cpp's names, of T5 v1.1; whole T5s have a decoder besides.
T5_GGUF = Format(
    name="t5 of llama.cpp",
    part=T5,
    marks=("token_embd.weight", "enc.blk.0.attn_q.weight"),
    rows=T5_GGUF_ROWS,
    ignored=(r"dec\..*", r"output\.weight"),
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
