"""The names of networks that work beside a model: ControlNets, IP-Adapters, picture encoders, Redux, tiny decoders.

Source: the published files' headers: XLabs-AI/flux-controlnet-*, InstantX and Shakker-Labs' Union, XLabs-AI/
flux-ip-adapter, InstantX/FLUX.1-dev-IP-Adapter, openai/clip-vit-large-patch14, google/siglip-so400m-patch14-384,
black-forest-labs/FLUX.1-Redux-dev, madebyollin/taef1; huggingface/diffusers, `controlnet_flux.py` and
`loaders/ip_adapter.py`.
"""

from __future__ import annotations

from fluxone.weights.formats import transformer
from fluxone.weights.keymap import Format, Row

CONTROLNET, IP_ADAPTER, CLIP_VISION, TINY = "controlnet", "IP-Adapter", "picture encoder", "tiny decoder"
SIGLIP, SIGLIP_POOLED, REDUX = "SigLIP picture encoder", "SigLIP picture encoder with its head", "Redux"

# What a SigLIP holds beyond the patches' tokens: the head after them, the text's half, a table of 0, 1, 2...
SIGLIP_POOLED_IGNORED = (
    r"(vision_model\.)?embeddings\.position_ids",
    r"text_model\..*",
    r"logit_scale",
    r"logit_bias",
)
SIGLIP_IGNORED = (r"(vision_model\.)?head\..*", *SIGLIP_POOLED_IGNORED)

HINT_ROWS = (
    Row("input_hint_block.0.*", ("input_hint_block.conv_in.*",)),
    *(Row(f"input_hint_block.{2 * i + 2}.*", (f"input_hint_block.blocks.{i}.*",)) for i in range(6)),
    Row("input_hint_block.14.*", ("input_hint_block.conv_out.*",)),
)
CONTROLNET_ROWS = (
    Row("pos_embed_input.*", ("controlnet_x_embedder.*",)),
    Row("controlnet_blocks.{n}.*", ("controlnet_blocks.{n}.*",)),
    Row("controlnet_single_blocks.{n}.*", ("controlnet_single_blocks.{n}.*",)),
    Row("controlnet_mode_embedder.*", ("controlnet_mode_embedder.*",)),
    *HINT_ROWS,
    *transformer.ROWS,
)
XLABS_ROWS = (
    Row("image_proj.proj.*", ("ip_adapter_proj_model.proj.*",)),
    Row("image_proj.norm.*", ("ip_adapter_proj_model.norm.*",)),
    Row("ip_adapter.{n}.to_k_ip.*", ("double_blocks.{n}.processor.ip_adapter_double_stream_k_proj.*",)),
    Row("ip_adapter.{n}.to_v_ip.*", ("double_blocks.{n}.processor.ip_adapter_double_stream_v_proj.*",)),
)
MOST_LAYERS = 40  # of a tiny decoder, which has 20
# In the author's own files the bend of the latent is layer 0.
TINY_ROWS = tuple(
    row
    for i in range(MOST_LAYERS)
    for row in (
        Row(f"decoder.layers.{i}.*", (f"{i + 1}.*",)),
        Row(f"decoder.layers.{i}.conv.{{m}}.*", (f"{i + 1}.conv.{{m}}.*",)),
    )
)

BESIDE: dict[str, Format] = {
    row.name: row
    for row in (
        Format(
            name="bfl controlnet",
            part=CONTROLNET,
            marks=("controlnet_blocks.0.weight", "pos_embed_input.weight", "img_in.weight"),
        ),
        Format(
            name="diffusers controlnet",
            part=CONTROLNET,
            marks=("controlnet_x_embedder.weight", "x_embedder.weight"),
            rows=CONTROLNET_ROWS,
            width="img_in.weight",
        ),
        Format(
            name="instantx ip-adapter",
            part=IP_ADAPTER,
            marks=("image_proj.norm.weight", "ip_adapter.0.to_k_ip.weight"),
        ),
        Format(
            name="xlabs ip-adapter",
            part=IP_ADAPTER,
            marks=(
                "ip_adapter_proj_model.norm.weight",
                "double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight",
            ),
            rows=XLABS_ROWS,
        ),
        Format(
            name="clip vision",
            part=CLIP_VISION,
            marks=("vision_model.embeddings.class_embedding", "visual_projection.weight"),
            ignored=(
                r"text_model\..*",
                r"text_projection\.weight",
                r"logit_scale",
                r"vision_model\.embeddings\.position_ids",
            ),
        ),
        Format(
            name="siglip",
            part=SIGLIP,
            marks=("vision_model.embeddings.patch_embedding.bias", "vision_model.post_layernorm.weight"),
            ignored=SIGLIP_IGNORED,
        ),
        Format(
            name="siglip of transformers 5",
            part=SIGLIP,
            marks=("embeddings.patch_embedding.bias", "post_layernorm.weight"),
            native_prefix="vision_model.",
            ignored=SIGLIP_IGNORED,
        ),
        Format(
            name="pooled siglip",
            part=SIGLIP_POOLED,
            marks=("vision_model.embeddings.patch_embedding.bias", "vision_model.head.probe"),
            ignored=SIGLIP_POOLED_IGNORED,
        ),
        Format(
            name="pooled siglip of transformers 5",
            part=SIGLIP_POOLED,
            marks=("embeddings.patch_embedding.bias", "head.probe"),
            native_prefix="vision_model.",
            ignored=SIGLIP_POOLED_IGNORED,
        ),
        Format(name="redux", part=REDUX, marks=("redux_up.weight", "redux_down.weight")),
        Format(
            name="diffusers tiny decoder",
            part=TINY,
            marks=("decoder.layers.0.weight",),
            ignored=(r"encoder\..*",),
        ),
        Format(name="taesd tiny decoder", part=TINY, marks=("1.weight", "3.conv.0.weight"), rows=TINY_ROWS),
        Format(
            name="comfy tiny decoder",
            part=TINY,
            marks=("1.weight", "3.conv.0.weight"),
            rows=TINY_ROWS,
            prefix="taesd_decoder.",
            ignored=(r"taesd_encoder\..*", r"vae_(scale|shift)"),
        ),
    )
}
