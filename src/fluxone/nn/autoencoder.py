"""FLUX.1's image autoencoder, with the parameter names of the published `ae.safetensors`.

    pixels (B 3 H W) in -1..1  --encoder-->  mean, logvar (B 16 h w)  --(mean - shift) * scale-->  latent
    latent  --/ scale + shift-->  decoder  -->  pixels                       h = H / 8, w = W / 8 (cells)

It knows nothing of files, of packing into tokens, or of rounding a picture's size to whole cells.

Source: black-forest-labs/flux, `modules/autoencoder.py` (the architecture and the names).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.nn import channels_last, graphs
from fluxone.nn.attention import Attend, sdpa
from fluxone.nn.tiling import LEAST, Sheet, sheet, sweep
from fluxone.shapes import AutoEncoderShape

EPS = 1e-6
TILE = 512  # px: side of a tile, where nobody says another
LOGVAR = (-30.0, 20.0)  # bounds of the posterior's logarithm of variance. Source: diffusers

Features = Float[Tensor, "B _ _ _"]
Normalise = Callable[[nn.GroupNorm, Tensor], Tensor]


def plain(norm: nn.GroupNorm, x: Features) -> Features:
    """Normalise by the statistics of `x` itself."""
    if channels_last.helps(x):
        return channels_last.group_norm(x, norm, silu=False)
    out: Tensor = norm(x)
    return out


def activated(layer: nn.GroupNorm, x: Features, norm: Normalise = plain) -> Features:
    """Normalise, then SiLU."""
    if norm is plain and channels_last.helps(x):
        return channels_last.group_norm(x, layer, silu=True)
    return F.silu(norm(layer, x))


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inside: int, outside: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inside, eps=EPS)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outside, eps=EPS)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else None

    def first(self, x: Features, norm: Normalise = plain) -> Features:
        """Return the features between the two convolutions."""
        out: Tensor = self.conv1(activated(self.norm1, x, norm))
        return out

    def second(self, h: Features, x: Features, norm: Normalise = plain) -> Features:
        """Return the block's features, of those between and those before."""
        out: Tensor = self.conv2(activated(self.norm2, h, norm))
        return out + (x if self.nin_shortcut is None else self.nin_shortcut(x))

    def forward(self, x: Features) -> Features:
        return self.fewer(x) if channels_last.helps(x) else self.second(self.first(x), x)

    def fewer(self, x: Features) -> Features:
        """Do the same in fewer passes: biases go with the norm and the sum that follow them."""
        h = channels_last.bare(self.conv1, channels_last.group_norm(x, self.norm1, silu=True))
        h = channels_last.group_norm(h, self.norm2, silu=True, before=self.conv1.bias)
        bias, beside = cast("Tensor", self.conv2.bias), x
        if self.nin_shortcut is not None:
            beside = channels_last.bare(self.nin_shortcut, x)
            bias = bias + cast("Tensor", self.nin_shortcut.bias)
        return channels_last.added(channels_last.bare(self.conv2, h), beside, bias)

    def sweep(self, x: Sheet, size: int) -> Sheet:
        """Do the same tile by tile; `x` is used up."""
        h = sweep(x, lambda part: self.first(part, x.normalise), size=size)
        return sweep(h, lambda part, before: self.second(part, before, h.normalise), size=size, beside=x)


class AttentionBlock(nn.Module):
    """One head of attention over all cells. `attend` may be replaced."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)
        self.attend: Attend = sdpa

    def forward(self, x: Features) -> Features:
        h = plain(self.norm, x).flatten(2).transpose(1, 2)
        q, k, v = (pointwise(part, h)[:, None] for part in (self.q, self.k, self.v))
        h = pointwise(self.proj_out, self.attend(q, k, v)[:, 0])
        return h.transpose(1, 2).reshape(x.shape) + x


def pointwise(conv: nn.Conv2d, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
    """Return a 1x1 convolution of cells in a row, as the matrix product that it is."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


class Middle(nn.Module):
    """Residual block, attention, residual block, at the resolution of the latent."""

    def __init__(self, channels: int, groups: int, *, attention: bool) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, groups)
        self.attn_1 = AttentionBlock(channels, groups) if attention else None
        self.block_2 = ResBlock(channels, channels, groups)

    def forward(self, x: Features) -> Features:
        x = self.block_1(x)
        out: Tensor = self.block_2(x if self.attn_1 is None else self.attn_1(x))
        return out


class Downsample(nn.Module):
    """Half the resolution; one row and column of zeros at the bottom and right only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Features) -> Features:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Twice the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Features) -> Features:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """The residual blocks of one resolution."""

    def __init__(self, inside: int, outside: int, blocks: int, groups: int) -> None:
        super().__init__()
        sizes = [inside] + [outside] * blocks
        self.block = nn.ModuleList(ResBlock(a, b, groups) for a, b in pairwise(sizes))

    def forward(self, x: Features) -> Features:
        for block in self.block:
            x = block(x)
        return x

    def sweep(self, x: Sheet, size: int) -> Sheet:
        """Do the same tile by tile; `x` is used up."""
        for block in cast("Iterable[ResBlock]", self.block):
            x = block.sweep(x, size)
        return x


class DownLevel(Level):
    """One resolution of the encoder, and the way down."""

    def __init__(self, inside: int, outside: int, blocks: int, groups: int, *, last: bool) -> None:
        super().__init__(inside, outside, blocks, groups)
        self.downsample = None if last else Downsample(outside)

    def forward(self, x: Features) -> Features:
        x = super().forward(x)
        return x if self.downsample is None else self.downsample(x)

    def sweep(self, x: Sheet, size: int) -> Sheet:
        x = super().sweep(x, size)
        return x if self.downsample is None else sweep(x, self.downsample, size=size, down=2)


class UpLevel(Level):
    """One resolution of the decoder, and the way up."""

    def __init__(self, inside: int, outside: int, blocks: int, groups: int, *, last: bool) -> None:
        super().__init__(inside, outside, blocks, groups)
        self.upsample = None if last else Upsample(outside)

    def forward(self, x: Features) -> Features:
        x = super().forward(x)
        return x if self.upsample is None else self.upsample(x)

    def sweep(self, x: Sheet, size: int) -> Sheet:
        x = super().sweep(x, size)
        return x if self.upsample is None else sweep(x, self.upsample, size=size, up=2)


class Encoder(nn.Module):
    """Pixels to twice the latent's channels: mean, then logarithm of the variance."""

    def __init__(self, shape: AutoEncoderShape) -> None:
        super().__init__()
        wide = shape.channels
        inside = (wide[0], *wide[:-1])
        self.conv_in = nn.Conv2d(shape.colours, wide[0], 3, padding=1)
        self.down = nn.ModuleList(
            DownLevel(a, b, shape.blocks, shape.groups, last=i == len(wide) - 1)
            for i, (a, b) in enumerate(zip(inside, wide, strict=True))
        )
        self.mid = Middle(wide[-1], shape.groups, attention=shape.attention)
        self.norm_out = nn.GroupNorm(shape.groups, wide[-1], eps=EPS)
        self.conv_out = nn.Conv2d(wide[-1], 2 * shape.latent, 3, padding=1)

    def end(self, x: Features) -> Features:
        """Return the middle and the way out, all at the resolution of the latent."""
        out: Tensor = self.conv_out(activated(self.norm_out, self.mid(x)))
        return out

    def forward(self, pixels: Features) -> Features:
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        return self.end(x)

    def sweep(self, pixels: Features, size: int) -> Features:
        """Do the same in tiles of `size` px, down to the middle."""
        x = sweep(sheet(pixels), self.conv_in, size=size)
        for i, level in enumerate(cast("Iterable[DownLevel]", self.down)):
            x = level.sweep(x, size >> i)
        return self.end(x.values.to(x.device))


def straight(decoder: Decoder, z: Features) -> Features:
    """Decode in one go."""
    x = decoder.begin(z)
    for level in reversed(decoder.up):
        x = level(x)
    return decoder.end(x)


class Decoder(nn.Module):
    """Latent (unscaled) to pixels. `walk` may be replaced: processes can share it (`parallel.bands`)."""

    def __init__(self, shape: AutoEncoderShape) -> None:
        super().__init__()
        wide = shape.channels
        inside = (*wide[1:], wide[-1])
        self.conv_in = nn.Conv2d(shape.latent, wide[-1], 3, padding=1)
        self.mid = Middle(wide[-1], shape.groups, attention=shape.attention)
        self.up = nn.ModuleList(
            UpLevel(a, b, shape.blocks + 1, shape.groups, last=i == 0)
            for i, (a, b) in enumerate(zip(inside, wide, strict=True))
        )
        self.norm_out = nn.GroupNorm(shape.groups, wide[0], eps=EPS)
        self.conv_out = nn.Conv2d(wide[0], shape.colours, 3, padding=1)
        self.walk: Callable[[Decoder, Features], Features] = straight

    def begin(self, z: Features) -> Features:
        """Return the way in and the middle, all at the resolution of the latent."""
        out: Tensor = self.mid(self.conv_in(z))
        return out

    def end(self, x: Features, norm: Normalise = plain) -> Features:
        """Return the pixels of the last features."""
        out: Tensor = self.conv_out(activated(self.norm_out, x, norm))
        return out

    def forward(self, z: Features) -> Features:
        return self.walk(self, z)

    def sweep(self, z: Features, size: int) -> Features:
        """Do the same in tiles of `size` px, from the middle on."""
        x = sheet(self.begin(z))
        levels = list(cast("Iterable[UpLevel]", self.up))
        for i, level in reversed(list(enumerate(levels))):
            x = level.sweep(x, size >> i)
        pixels = sweep(x, lambda part: self.end(part, x.normalise), size=size)
        return pixels.values.to(z.device)


class AutoEncoder(nn.Module):
    """Pixels to latents and back.

    `tile` (px) bounds the memory on the device: see `nn.tiling`. The result is that of the whole picture but for
    the last rounding, without gradients. As an attribute it holds where a call names none. `sliced` encodes and
    decodes the pictures of a batch one by one, which changes nothing but the memory.
    """

    def __init__(self, shape: AutoEncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.sliced = False
        self.tile: int | None = None
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.quant_conv = nn.Conv2d(2 * shape.latent, 2 * shape.latent, 1) if shape.quant else None
        self.post_quant_conv = nn.Conv2d(shape.latent, shape.latent, 1) if shape.post_quant else None

    def enable_tiling(self) -> None:
        """Encode and decode in tiles, as scripts written for diffusers ask for."""
        self.tile = TILE

    def disable_tiling(self) -> None:
        """Encode and decode in one piece."""
        self.tile = None

    def enable_slicing(self) -> None:
        """Encode and decode the pictures of a batch one by one."""
        self.sliced = True

    def disable_slicing(self) -> None:
        """Encode and decode all pictures of a batch at once."""
        self.sliced = False

    def moments(self, pixels: Float[Tensor, "B K H W"]) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Return mean and logarithm of the variance of the posterior, unscaled. Sides are whole cells, -1..1."""
        mean, logvar = self._posterior(self.encoder(pixels)).chunk(2, dim=1)
        return mean, logvar

    def encode(self, pixels: Float[Tensor, "B K H W"], *, tile: int | None = None) -> Float[Tensor, "B C h w"]:
        """Return the latents of pixels in -1..1: the mean of the posterior, shifted and scaled."""
        return self._scaled(self._whole(pixels, tile).chunk(2, dim=1)[0])

    def sample(
        self, pixels: Float[Tensor, "B K H W"], draw: Callable[[Tensor], Tensor], *, tile: int | None = None
    ) -> Float[Tensor, "B C h w"]:
        """Return the latents of pixels in -1..1: a sample of the posterior, shifted and scaled.

        Args:
            draw: noise like the tensor that it is given.
        """
        mean, logvar = self._whole(pixels, tile).chunk(2, dim=1)
        return self._scaled(mean + (0.5 * logvar.clamp(*LOGVAR)).exp() * draw(mean))

    def decode(self, latent: Float[Tensor, "B C h w"], *, tile: int | None = None) -> Float[Tensor, "B K H W"]:
        """Return the pixels, about -1..1, of latents as the transformer makes them."""
        return self.decode_raw(latent / self.shape.scale + self.shape.shift, tile=tile)

    def decode_raw(self, z: Float[Tensor, "B C h w"], *, tile: int | None = None) -> Float[Tensor, "B K H W"]:
        """Return the pixels of unscaled latents, such as `moments` gives."""

        size = self._tile(tile, z.shape, self.shape.factor)

        def one(x: Tensor) -> Tensor:
            x = x if self.post_quant_conv is None else self.post_quant_conv(x)
            out: Tensor = self.decoder(x) if size is None else self.decoder.sweep(x, size)
            return out

        return self._each(one, z, in_rows=size is not None or self.decoder.walk is not straight)

    def _posterior(self, features: Features) -> Features:
        """Mean and logarithm of variance, one after the other."""
        return features if self.quant_conv is None else self.quant_conv(features)

    def _each(self, work: Callable[[Tensor], Tensor], x: Tensor, *, in_rows: bool) -> Tensor:
        """Convolutions round differently in other layouts: a picture does not depend on its own, and gets one here.

        Args:
            in_rows: channels first, whatever the device would like; so it is where torch's compiler decides, too.
        """
        called = (self.encoder._compiled_call_impl, self.decoder._compiled_call_impl)
        in_rows = in_rows or not all(way is None or isinstance(way, graphs.Recorded) for way in called)
        layout = torch.contiguous_format if in_rows else channels_last.layout(x)
        x = x.contiguous(memory_format=layout)
        out = torch.cat([work(row) for row in torch.split(x, 1)]) if self.sliced and len(x) > 1 else work(x)
        return out if layout is torch.contiguous_format else out.contiguous()

    def _whole(self, pixels: Float[Tensor, "B K H W"], tile: int | None) -> Float[Tensor, "B _ h w"]:
        size = self._tile(tile, pixels.shape, 1)

        def one(x: Tensor) -> Tensor:
            features: Tensor = self.encoder(x) if size is None else self.encoder.sweep(x, size)
            return self._posterior(features)

        return self._each(one, pixels, in_rows=size is not None)

    def _scaled(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return self.shape.scale * (z - self.shape.shift)

    def _tile(self, tile: int | None, sides: torch.Size, px: int) -> int | None:
        """Return the side of a tile, px in whole cells, or None where one tile is the whole. px: of a position."""
        tile = self.tile if tile is None else tile
        if tile is None or px * max(sides[-2:]) <= tile:
            return None
        return max(tile, LEAST) // self.shape.factor * self.shape.factor
