"""Shapes of networks worked out from the shapes of their tensors, for files that come without a config.

What no tensor's shape tells is taken from the row of a known model, or guessed by a rule that is written here:

- rotary axes: those of the row of `VARIANTS` with the same numbers, else (16, 56, 56) scaled to the head
- CLIP's heads: 64 dimensions each, as in every published CLIP; its end token: the last of the vocabulary
- T5's activation: GELU where it is gated (v1.1), else ReLU (v1.0)
- the autoencoder's groups, scale and shift: FLUX.1's
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from fluxone.errors import BadWeights
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.variants import VARIANTS

Shapes = Mapping[str, tuple[int, ...]]

CLIP_HEAD = 64
CONFIG = "put the model's config.json beside the file"
LOG = logging.getLogger("fluxone")


def count(names: Iterable[str], pattern: str) -> int:
    """How many numbers there are at the pattern's group, 0 if no name matches.

    Where one is left out, its neighbours' names will be more than the network has: a file's numbers are never
    believed to be counts, for they can be as large as their writer wished.
    """
    found = re.compile(pattern)
    return len({match[1] for name in names if (match := found.match(name))})


def flux(shapes: Shapes, file: object) -> FluxShape:
    """Work out the transformer's shape.

    Raises:
        BadWeights: a tensor that tells a size is missing, or sizes contradict each other.
    """
    hidden, in_channels = _matrix(shapes, "img_in.weight", file)
    out_channels, _ = _matrix(shapes, "final_layer.linear.weight", file)
    _, text_dim = _matrix(shapes, "txt_in.weight", file)
    _, vec_dim = _matrix(shapes, "vector_in.in_layer.weight", file)
    double = count(shapes, r"double_blocks\.(\d+)\.")
    single = count(shapes, r"single_blocks\.(\d+)\.")
    norms = ("double_blocks.0.img_attn.norm.query_norm.scale", "single_blocks.0.norm.query_norm.scale")
    head_dim = next((shapes[name][0] for name in norms if len(shapes.get(name, ())) == 1), 0)
    if head_dim == 0 or hidden % head_dim:
        raise BadWeights(f"{file}: heads of {head_dim} do not divide a width of {hidden}", hint=CONFIG)
    mlp = 4 * hidden
    if double:
        mlp, _ = _matrix(shapes, "double_blocks.0.img_mlp.0.weight", file)
    elif single:
        mlp = _matrix(shapes, "single_blocks.0.linear1.weight", file)[0] - 3 * hidden
    shape = FluxShape(
        in_channels=in_channels,
        out_channels=out_channels,
        hidden=hidden,
        heads=hidden // head_dim,
        double_blocks=double,
        single_blocks=single,
        mlp_ratio=mlp / hidden,
        text_dim=text_dim,
        vec_dim=vec_dim,
        guided="guidance_in.in_layer.weight" in shapes,
    )
    return replace(shape, axes=_axes(shape, file))


def autoencoder(shapes: Shapes, file: object) -> AutoEncoderShape:
    """Work out the autoencoder's shape.

    Raises:
        BadWeights: a tensor that tells a size is missing, or FLUX.1's groups do not fit.
    """
    levels = count(shapes, r"encoder\.down\.(\d+)\.")
    usual = AutoEncoderShape()
    channels = tuple(_sizes(shapes, f"encoder.down.{level}.block.0.conv1.weight", file)[0] for level in range(levels))
    if not channels or any(size % usual.groups for size in channels):
        raise BadWeights(f"{file}: {channels} channels are not groups of {usual.groups}", hint=CONFIG)
    return replace(
        usual,
        channels=channels,
        blocks=count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        latent=_sizes(shapes, "decoder.conv_in.weight", file)[1],
        attention="encoder.mid.attn_1.q.weight" in shapes,
        quant="quant_conv.weight" in shapes,
        post_quant="post_quant_conv.weight" in shapes,
    )


def t5(shapes: Shapes, file: object) -> T5Shape:
    """Work out the T5 encoder's shape.

    Raises:
        BadWeights: a tensor that tells a size is missing.
    """
    layer = "encoder.block.0.layer"
    vocab, hidden = _matrix(shapes, "shared.weight", file)
    dense = f"{layer}.1.DenseReluDense"
    gated = f"{dense}.wi_0.weight" in shapes
    buckets, heads = _matrix(shapes, f"{layer}.0.SelfAttention.relative_attention_bias.weight", file)
    return T5Shape(
        vocab=vocab,
        hidden=hidden,
        layers=count(shapes, r"encoder\.block\.(\d+)\."),
        heads=heads,
        head_dim=_matrix(shapes, f"{layer}.0.SelfAttention.q.weight", file)[0] // heads,
        mlp=_matrix(shapes, f"{dense}.{'wi_0' if gated else 'wi'}.weight", file)[0],
        activation="gelu_new" if gated else "relu",
        gated=gated,
        buckets=buckets,
    )


def clip(shapes: Shapes, file: object) -> ClipShape:
    """Work out the CLIP text encoder's shape.

    Raises:
        BadWeights: a tensor that tells a size is missing, or the width is not a multiple of 64.
    """
    vocab, hidden = _matrix(shapes, "text_model.embeddings.token_embedding.weight", file)
    if hidden % CLIP_HEAD:
        raise BadWeights(f"{file}: CLIP's width is {hidden}, not a multiple of {CLIP_HEAD}", hint=CONFIG)
    return ClipShape(
        vocab=vocab,
        hidden=hidden,
        layers=count(shapes, r"text_model\.encoder\.layers\.(\d+)\."),
        heads=hidden // CLIP_HEAD,
        mlp=_matrix(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", file)[0],
        positions=_matrix(shapes, "text_model.embeddings.position_embedding.weight", file)[0],
        eos=vocab - 1,
    )


def _axes(shape: FluxShape, file: object) -> tuple[int, ...]:
    for row in VARIANTS.values():
        if replace(shape, axes=row.shape.axes, in_channels=row.shape.in_channels, guided=row.shape.guided) == row.shape:
            return row.shape.axes
    usual = FluxShape()
    if shape.head_dim == usual.head_dim:
        return usual.axes
    side = shape.head_dim * usual.axes[1] // usual.head_dim // 2 * 2
    axes = (shape.head_dim - 2 * side, side, side)
    if shape.head_dim % 2 or min(axes) < 2:
        raise BadWeights(f"{file}: heads of {shape.head_dim} tell nothing of their rotary axes", hint=CONFIG)
    LOG.warning("%s has heads of %d; its rotary axes are guessed as %s: %s if not", file, shape.head_dim, axes, CONFIG)
    return axes


def _sizes(shapes: Shapes, name: str, file: object) -> tuple[int, ...]:
    if name not in shapes:
        raise BadWeights(f"{file} lacks {name}", hint="the file is incomplete, or of another model")
    if len(shapes[name]) < 2 or 0 in shapes[name]:
        raise BadWeights(f"{file}: {name} has shape {shapes[name]}", hint="two sizes above zero are needed")
    return shapes[name]


def _matrix(shapes: Shapes, name: str, file: object) -> tuple[int, int]:
    rows, columns, *_ = _sizes(shapes, name, file)
    return rows, columns
