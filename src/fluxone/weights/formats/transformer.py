"""The transformer's names: the network's own, as published, and those of diffusers.

Source: the published files' headers; huggingface/diffusers, `models/transformers/transformer_flux.py`.
"""

from __future__ import annotations

from fluxone.weights.keymap import TRANSFORMER, Change, Format, Row

DOUBLE, DOUBLE_OTHER = "double_blocks.{n}.", "transformer_blocks.{n}."
SINGLE, SINGLE_OTHER = "single_blocks.{n}.", "single_transformer_blocks.{n}."

GLOBAL_ROWS = (
    Row("img_in.*", ("x_embedder.*",)),
    Row("txt_in.*", ("context_embedder.*",)),
    Row("time_in.in_layer.*", ("time_text_embed.timestep_embedder.linear_1.*",)),
    Row("time_in.out_layer.*", ("time_text_embed.timestep_embedder.linear_2.*",)),
    Row("guidance_in.in_layer.*", ("time_text_embed.guidance_embedder.linear_1.*",)),
    Row("guidance_in.out_layer.*", ("time_text_embed.guidance_embedder.linear_2.*",)),
    Row("vector_in.in_layer.*", ("time_text_embed.text_embedder.linear_1.*",)),
    Row("vector_in.out_layer.*", ("time_text_embed.text_embedder.linear_2.*",)),
    Row("final_layer.linear.*", ("proj_out.*",)),
    Row("final_layer.adaLN_modulation.1.*", ("norm_out.linear.*",), change=Change.SWAP),  # shift, scale
)
DOUBLE_ROWS = (
    Row("img_mod.lin.*", ("norm1.linear.*",)),
    Row("txt_mod.lin.*", ("norm1_context.linear.*",)),
    Row("img_attn.qkv.*", ("attn.to_q.*", "attn.to_k.*", "attn.to_v.*")),
    Row("txt_attn.qkv.*", ("attn.add_q_proj.*", "attn.add_k_proj.*", "attn.add_v_proj.*")),
    Row("img_attn.norm.query_norm.scale", ("attn.norm_q.weight",)),
    Row("img_attn.norm.key_norm.scale", ("attn.norm_k.weight",)),
    Row("txt_attn.norm.query_norm.scale", ("attn.norm_added_q.weight",)),
    Row("txt_attn.norm.key_norm.scale", ("attn.norm_added_k.weight",)),
    Row("img_attn.proj.*", ("attn.to_out.0.*",)),
    Row("txt_attn.proj.*", ("attn.to_add_out.*",)),
    Row("img_mlp.0.*", ("ff.net.0.proj.*",)),
    Row("img_mlp.2.*", ("ff.net.2.*",)),
    Row("txt_mlp.0.*", ("ff_context.net.0.proj.*",)),
    Row("txt_mlp.2.*", ("ff_context.net.2.*",)),
)
SINGLE_ROWS = (
    Row("modulation.lin.*", ("norm.linear.*",)),
    Row("linear1.*", ("attn.to_q.*", "attn.to_k.*", "attn.to_v.*", "proj_mlp.*")),
    Row("linear2.*", ("proj_out.*",)),
    Row("norm.query_norm.scale", ("attn.norm_q.weight",)),
    Row("norm.key_norm.scale", ("attn.norm_k.weight",)),
)


def _inside(native: str, other: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(Row(native + row.native, tuple(other + name for name in row.other), change=row.change) for row in rows)


ROWS = GLOBAL_ROWS + _inside(DOUBLE, DOUBLE_OTHER, DOUBLE_ROWS) + _inside(SINGLE, SINGLE_OTHER, SINGLE_ROWS)

NATIVE = Format(name="bfl transformer", part=TRANSFORMER, marks=("img_in.weight", "vector_in.in_layer.weight"))
DIFFUSERS = Format(
    name="diffusers transformer",
    part=TRANSFORMER,
    marks=("x_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"),
    rows=ROWS,
    width="img_in.weight",
)
