"""The parts of FLUX.1's blocks: embedding of a number, modulation, normalisation, two streams, one stream.

Names of parameters are those of the published files. Queries, keys and values come out of one matrix, and
of a single block also the input of its MLP: `linear1 = [q | k | v | mlp]`.

Source: black-forest-labs/flux, `modules/layers.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.nn.attention import Attend
from fluxone.nn.rope import Rotation, rotate

EPS = 1e-6
SINUSOID = 256  # numbers that sigma and guidance are spread over
MAX_PERIOD = 10000.0

Stream = Float[Tensor, "B N C"]


def sinusoid(x: Float[Tensor, " N"], size: int = SINUSOID) -> Float[Tensor, "N S"]:
    """Return cosines, then sines, of x at geometrically falling frequencies, float32."""
    half = size // 2
    powers = -math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=x.device) / half
    angles = x.float()[:, None] * powers.exp()
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def normalise(x: Stream, shift: Float[Tensor, "#B 1 C"], scale: Float[Tensor, "#B 1 C"]) -> Stream:
    """Return the layer norm of x, scaled and shifted by the modulation."""
    return (1 + scale) * F.layer_norm(x, x.shape[-1:], eps=EPS) + shift


class Embedder(nn.Module):
    """A vector to the width of the network."""

    def __init__(self, inside: int, hidden: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(inside, hidden)
        self.out_layer = nn.Linear(hidden, hidden)

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N C"]:
        out: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return out


class Modulator(nn.Module):
    """silu(vec) to `count` vectors of the network's width, triples of (shift, scale, gate)."""

    def __init__(self, hidden: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.lin = nn.Linear(hidden, count * hidden)

    def forward(self, active: Float[Tensor, "N C"]) -> Float[Tensor, "N K C"]:
        out: Tensor = self.lin(active)
        return torch.unflatten(out, -1, (self.count, -1))


class Scale(nn.Module):
    """The learned scale of an RMS norm."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))


class QKNorm(nn.Module):
    """RMS norm of queries and keys, a head at a time, in float32 (or wider)."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_norm = Scale(head_dim)
        self.key_norm = Scale(head_dim)

    def forward(self, qk: Float[Tensor, "B N 2 H D"]) -> Float[Tensor, "B N 2 H D"]:
        scale = torch.stack((self.query_norm.scale, self.key_norm.scale))[:, None]
        qk = qk.to(torch.promote_types(qk.dtype, torch.float32))
        return F.rms_norm(qk, qk.shape[-1:], eps=EPS) * scale


def attention(qk: Float[Tensor, "B N 2 H D"], v: Float[Tensor, "B N H D"], pe: Rotation, attend: Attend) -> Stream:
    """Rotate queries and keys, attend, and put the heads side by side."""
    q, k = rotate(qk, pe).to(v.dtype).transpose(1, 3).unbind(2)
    return attend(q, k, v.transpose(1, 2)).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """One stream's own weights for the attention that the two streams do together."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.norm = QKNorm(hidden // heads)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, x: Stream) -> tuple[Float[Tensor, "B N 2 H D"], Float[Tensor, "B N H D"]]:
        qkv: Tensor = self.qkv(x)
        qkv = torch.unflatten(qkv, -1, (3, self.heads, -1))
        return self.norm(qkv[:, :, :2]), qkv[:, :, 2]


def mlp(hidden: int, inner: int) -> nn.Sequential:
    """Return the MLP of one stream of a double block."""
    return nn.Sequential(nn.Linear(hidden, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, hidden))


class DoubleBlock(nn.Module):
    """Image and text side by side, each with its own weights, attending together (text first)."""

    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.img_mod = Modulator(hidden, 6)
        self.img_attn = SelfAttention(hidden, heads)
        self.img_mlp = mlp(hidden, inner)
        self.txt_mod = Modulator(hidden, 6)
        self.txt_attn = SelfAttention(hidden, heads)
        self.txt_mlp = mlp(hidden, inner)

    def forward(
        self,
        img: Float[Tensor, "B L C"],
        txt: Float[Tensor, "B T C"],
        modulation: tuple[Float[Tensor, "#B 6 C"], Float[Tensor, "#B 6 C"]],
        pe: Rotation,
        attend: Attend,
    ) -> tuple[Float[Tensor, "B L C"], Float[Tensor, "B T C"]]:
        img_mod, txt_mod = (rows[:, :, None].unbind(1) for rows in modulation)
        img_qk, img_v = self.img_attn(normalise(img, img_mod[0], img_mod[1]))
        txt_qk, txt_v = self.txt_attn(normalise(txt, txt_mod[0], txt_mod[1]))
        mixed = attention(torch.cat((txt_qk, img_qk), dim=1), torch.cat((txt_v, img_v), dim=1), pe, attend)
        txt_part, img_part = mixed[:, : txt.shape[1]], mixed[:, txt.shape[1] :]
        img = img + img_mod[2] * self.img_attn.proj(img_part)
        img = img + img_mod[5] * self.img_mlp(normalise(img, img_mod[3], img_mod[4]))
        txt = txt + txt_mod[2] * self.txt_attn.proj(txt_part)
        txt = txt + txt_mod[5] * self.txt_mlp(normalise(txt, txt_mod[3], txt_mod[4]))
        return img, txt


class SingleBlock(nn.Module):
    """Text and image in one stream; attention and MLP in parallel, out of one matrix and into one."""

    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.sizes = (3 * hidden, inner)
        self.modulation = Modulator(hidden, 3)
        self.linear1 = nn.Linear(hidden, 3 * hidden + inner)
        self.linear2 = nn.Linear(hidden + inner, hidden)
        self.norm = QKNorm(hidden // heads)
        self.activation = nn.GELU(approximate="tanh")

    def forward(self, x: Stream, modulation: Float[Tensor, "#B 3 C"], pe: Rotation, attend: Attend) -> Stream:
        shift, scale, gate = modulation[:, :, None].unbind(1)
        qkv, wide = self.linear1(normalise(x, shift, scale)).split(self.sizes, dim=-1)
        qkv = qkv.unflatten(-1, (3, self.heads, -1))
        mixed = attention(self.norm(qkv[:, :, :2]), qkv[:, :, 2], pe, attend)
        out: Tensor = self.linear2(torch.cat((mixed, self.activation(wide)), dim=-1))
        return x + gate * out


class FinalLayer(nn.Module):
    """The way out; its modulation is (shift, scale)."""

    def __init__(self, hidden: int, outside: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, outside)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))

    def modulate(self, active: Float[Tensor, "N C"]) -> Float[Tensor, "N 2 C"]:
        """Return the modulation of silu(vec)."""
        out: Tensor = self.adaLN_modulation[1](active)
        return torch.unflatten(out, -1, (2, -1))

    def forward(self, x: Stream, modulation: Float[Tensor, "#B 2 C"]) -> Float[Tensor, "B N O"]:
        shift, scale = modulation[:, :, None].unbind(1)
        out: Tensor = self.linear(normalise(x, shift, scale))
        return out
