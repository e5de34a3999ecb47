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

    @property
    def causal(self) -> bool:
        """Whether a position attends only to those before it."""
        return True


@dataclass(frozen=True, kw_only=True)
class ControlNetShape:
    """A ControlNet: a short network of FLUX.1's blocks, and the way in of its picture. Defaults are a plain Union's.

    Attributes:
        flux: its blocks and embedders; `in_channels` are those of the noise.
        modes: kinds of pictures that it tells apart (Union), 0 if it knows one.
        hint: channels that its own encoder of pictures gives for each cell (XLabs'); 0 if pictures are encoded by
            the autoencoder.
    """

    flux: FluxShape = FluxShape(double_blocks=5, single_blocks=10)
    modes: int = 0
    hint: int = 0


@dataclass(frozen=True, kw_only=True)
class ClipVisionShape:
    """The CLIP picture encoder. Defaults are CLIP-L/14's."""

    hidden: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    size: int = 224
    patch: int = 14
    out: int = 768
    activation: str = "quick_gelu"
    eps: float = 1e-5

    @property
    def causal(self) -> bool:
        """Whether a position attends only to those before it."""
        return False


@dataclass(frozen=True, kw_only=True)
class SiglipShape:
    """The SigLIP picture encoder, without its head. Defaults are so400m-patch14-384's."""

    hidden: int = 1152
    layers: int = 27
    heads: int = 16
    mlp: int = 4304
    size: int = 384
    patch: int = 14
    activation: str = "gelu_pytorch_tanh"
    eps: float = 1e-6

    @property
    def tokens(self) -> int:
        """Patches of a picture; what does not fill one at the right and bottom is not seen."""
        return (self.size // self.patch) ** 2

    @property
    def causal(self) -> bool:
        """Whether a position attends only to those before it."""
        return False


@dataclass(frozen=True, kw_only=True)
class Intake:
    """How a picture is brought to its encoder.

    Attributes:
        height, width: px; the picture is stretched to them.
        filter: as PIL numbers its filters; 3 is bicubic.
        mean, spread: of each colour of 0..1, taken off and divided by.
    """

    height: int = 384
    width: int = 384
    filter: int = 3
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    spread: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class ReduxShape:
    """The embedder of Redux: from the picture encoder's tokens to the text's. Defaults are the published one's."""

    image: int = 1152
    text: int = 4096


@dataclass(frozen=True, kw_only=True)
class IpAdapterShape:
    """An IP-Adapter. Defaults are XLabs'.

    Attributes:
        image: width of the picture encoder's vector.
        tokens: that one picture becomes, each `context` wide.
        blocks: of the transformer's blocks, double ones first, how many it works in.
        deep: whether a layer lies between vector and tokens (InstantX).
        inside: whether it is added to what the attention gives, before that is projected, with keys normalised
            (InstantX); else to what the double block gives (XLabs).
    """

    hidden: int = 3072
    image: int = 768
    context: int = 4096
    tokens: int = 4
    blocks: int = 19
    deep: bool = False
    inside: bool = False


@dataclass(frozen=True, kw_only=True)
class TinyShape:
    """A tiny decoder of latents. Defaults are TAEF1's.

    Attributes:
        decoder: residual blocks of each level, from the latent on.
        scale, shift: what it takes for a latent is `latent / scale + shift` of ours.
    """

    latent: int = 16
    channels: int = 64
    decoder: tuple[int, ...] = (3, 3, 3, 1)
    scale: float = 1.0
    shift: float = 0.0

    @property
    def factor(self) -> int:
        """Pixels a cell, each way."""
        return int(2 ** (len(self.decoder) - 1))
