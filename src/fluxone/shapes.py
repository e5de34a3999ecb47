"""The numbers that make a network of FLUX.1's architecture: the real one, the mini, or any other.

A shape knows no files and no tensors. `to_config` and `from_config` of the formats read and write the
published `config.json` files.
"""

from __future__ import annotations

from dataclasses import dataclass

# Names of the activations that text encoders may have; the functions are in `nn.activations`.
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish")


@dataclass(frozen=True, kw_only=True)
class FluxShape:
    """The diffusion transformer. Defaults are FLUX.1-dev's.

    Source: black-forest-labs/flux, `util.py`.
    """

    in_channels: int = 64
    out_channels: int = 64
    hidden: int = 3072
    heads: int = 24
    axes: tuple[int, ...] = (16, 56, 56)  # rotary dimensions of (reference index, row, column)
    double_blocks: int = 19
    single_blocks: int = 38
    mlp_ratio: float = 4.0
    text_dim: int = 4096
    vec_dim: int = 768
    theta: float = 10000.0
    guided: bool = True

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def mlp(self) -> int:
        return int(self.hidden * self.mlp_ratio)


@dataclass(frozen=True, kw_only=True)
class AutoEncoderShape:
    """The image autoencoder. Defaults are FLUX.1's `ae.safetensors`.

    Attributes:
        blocks: residual blocks a level in the encoder; the decoder has one more.
        attention: whether the middle has attention.
        quant, post_quant: whether a 1x1 convolution follows the encoder, or goes before the decoder.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    latent: int = 16
    groups: int = 32
    colours: int = 3
    scale: float = 0.3611
    shift: float = 0.1159
    attention: bool = True
    quant: bool = False
    post_quant: bool = False

    @property
    def factor(self) -> int:
        """Pixels a cell, each way."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True, kw_only=True)
class T5Shape:
    """The T5 encoder. Defaults are those of T5-XXL v1.1, whose feed-forward layers are gated.

    Attributes:
        activation: one of `ACTIVATIONS`.
        gated: whether a second way in is multiplied with the activated one.
    """

    vocab: int = 32128
    hidden: int = 4096
    layers: int = 24
    heads: int = 64
    head_dim: int = 64
    mlp: int = 10240
    activation: str = "gelu_new"
    gated: bool = True
    buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """The CLIP text encoder. Defaults are CLIP-L/14's."""

    vocab: int = 49408
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    positions: int = 77
    eos: int = 49407
    activation: str = "quick_gelu"
    eps: float = 1e-5
