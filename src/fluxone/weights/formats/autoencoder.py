"""The autoencoder's names: the network's own, as in `ae.safetensors`, and those of diffusers.

Diffusers counts the decoder's levels from the small end, and writes the attention as linear layers.

Source: the published files' headers; huggingface/diffusers, `models/autoencoders/vae.py`.
"""

from __future__ import annotations

from fluxone.weights.keymap import AUTOENCODER, Change, Format, Row

RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut"}
LEVELS = {
    "encoder.down.{n}.block.{m}": "encoder.down_blocks.{n}.resnets.{m}",
    "decoder.up.{r}.block.{m}": "decoder.up_blocks.{r}.resnets.{m}",
    "encoder.mid.block_1": "encoder.mid_block.resnets.0",
    "encoder.mid.block_2": "encoder.mid_block.resnets.1",
    "decoder.mid.block_1": "decoder.mid_block.resnets.0",
    "decoder.mid.block_2": "decoder.mid_block.resnets.1",
}
ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OTHERS = {
    "encoder.down.{n}.downsample.conv": "encoder.down_blocks.{n}.downsamplers.0.conv",
    "decoder.up.{r}.upsample.conv": "decoder.up_blocks.{r}.upsamplers.0.conv",
    "encoder.mid.attn_1.norm": "encoder.mid_block.attentions.0.group_norm",
    "decoder.mid.attn_1.norm": "decoder.mid_block.attentions.0.group_norm",
    "encoder.conv_in": "encoder.conv_in",
    "decoder.conv_in": "decoder.conv_in",
    "encoder.norm_out": "encoder.conv_norm_out",
    "decoder.norm_out": "decoder.conv_norm_out",
    "encoder.conv_out": "encoder.conv_out",
    "decoder.conv_out": "decoder.conv_out",
    "quant_conv": "quant_conv",
    "post_quant_conv": "post_quant_conv",
}
ROWS = (
    *(Row(f"{native}.*", (f"{other}.*",)) for native, other in OTHERS.items()),
    *(
        Row(f"{level}.{leaf}.*", (f"{other_level}.{other_leaf}.*",))
        for level, other_level in LEVELS.items()
        for leaf, other_leaf in RESNET.items()
    ),
    *(
        Row(f"{side}.mid.attn_1.{leaf}.*", (f"{side}.mid_block.attentions.0.{other}.*",), change=Change.FLAT)
        for side in ("encoder", "decoder")
        for leaf, other in ATTENTION.items()
    ),
)

NATIVE = Format(
    name="bfl autoencoder", part=AUTOENCODER, marks=("decoder.conv_in.weight", "encoder.mid.block_1.conv1.weight")
)
DIFFUSERS = Format(
    name="diffusers autoencoder",
    part=AUTOENCODER,
    marks=("decoder.conv_in.weight", "encoder.mid_block.resnets.0.conv1.weight"),
    rows=ROWS,
)
