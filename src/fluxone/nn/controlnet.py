"""ControlNets: short copies of the transformer that look at a picture and add to the streams of its blocks.

    picture --autoencoder, pack--> tokens --pos_embed_input--> +img      (InstantX, Shakker; Union: a mode before txt)
    picture --input_hint_block, pack--> tokens --pos_embed_input--> +img                                      (XLabs)
    img, txt --blocks--> a stream after each --controlnet_blocks--> residual a block --spread--> the transformer's

Names are those of XLabs' files, which speak Black Forest Labs' and which ComfyUI extends to the others. What does not
depend on the noisy picture (`hint`, `words`) is made once a walk.

Source: XLabs-AI/x-flux, `controlnet.py`; huggingface/diffusers, `controlnet_flux.py` and `transformer_flux.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.nn.attention import ATTENTION, Attend
from fluxone.nn.layers import SINUSOID, DoubleBlock, Embedder, SingleBlock
from fluxone.nn.rope import Rotation
from fluxone.nn.tokens import SIDE, pack
from fluxone.nn.transformer import Blocks, Flux, Modulation, block_modulation, streams, vector
from fluxone.shapes import ControlNetShape

HINT = 16  # channels inside XLabs' encoder of pictures
HALVINGS = 3  # a cell is 8 px

Stream = Float[Tensor, "B L C"]


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """What one ControlNet adds to the streams of the transformer's blocks.

    Attributes:
        double, single: one a block of its own; empty where it has none.
        cycle: whether they come round and round (XLabs), else each serves a stretch of blocks.
    """

    double: tuple[Stream, ...]
    single: tuple[Stream, ...]
    cycle: bool = False

    def at(self, own: Sequence[Stream], block: int, blocks: int) -> Stream:
        """Which of `own` is added after a block of the transformer's `blocks`."""
        return own[block % len(own) if self.cycle else block // -(-blocks // len(own))]


class ControlNet(Blocks):
    """The network. `attend` may be replaced, as the transformer's may."""

    def __init__(self, shape: ControlNetShape) -> None:
        super().__init__()
        flux = shape.flux
        self.shape = shape
        self.attend: Attend = ATTENTION["sdpa"]
        self.img_in = nn.Linear(flux.in_channels, flux.hidden)
        self.txt_in = nn.Linear(flux.text_dim, flux.hidden)
        self.time_in = Embedder(SINUSOID, flux.hidden)
        self.guidance_in: Embedder | None = Embedder(SINUSOID, flux.hidden) if flux.guided else None
        self.vector_in = Embedder(flux.vec_dim, flux.hidden)
        self.double_blocks = nn.ModuleList(
            DoubleBlock(flux.hidden, flux.heads, flux.mlp) for _ in range(flux.double_blocks)
        )
        self.single_blocks = nn.ModuleList(
            SingleBlock(flux.hidden, flux.heads, flux.mlp) for _ in range(flux.single_blocks)
        )
        self.controlnet_blocks = nn.ModuleList(nn.Linear(flux.hidden, flux.hidden) for _ in range(flux.double_blocks))
        self.controlnet_single_blocks = nn.ModuleList(
            nn.Linear(flux.hidden, flux.hidden) for _ in range(flux.single_blocks)
        )
        self.pos_embed_input = nn.Linear(SIDE**2 * shape.hint or flux.in_channels, flux.hidden)
        self.controlnet_mode_embedder = nn.Embedding(shape.modes, flux.hidden) if shape.modes else None
        self.input_hint_block = hint_encoder(shape.hint) if shape.hint else None

    def vector(
        self,
        sigma: Float[Tensor, " N"],
        guidance: Float[Tensor, " N"] | None,
        pooled: Float[Tensor, "N V"],
        *,
        rounding: torch.dtype | None = None,
    ) -> Float[Tensor, "N C"]:
        """Return `vec`, as `Flux.vector` does."""
        return vector(self, sigma, guidance, pooled, rounding=rounding)

    def modulation(self, vec: Float[Tensor, "N C"]) -> Modulation:
        """Return the modulation of every block; that of a last layer, which it lacks, is zeros."""
        active = F.silu(vec)
        return block_modulation(self, active, active.new_zeros(len(active), 2, active.shape[1]))

    def hint(self, picture: Float[Tensor, "B ..."]) -> Stream:
        """Return what its picture adds to the image's tokens: of pixels in -1..1 (XLabs), or of packed latents."""
        if self.input_hint_block is not None:
            picture = pack(self.input_hint_block(picture))
        out: Tensor = self.pos_embed_input(picture)
        return out

    def words(self, txt: Float[Tensor, "B T D"], mode: int | None) -> Float[Tensor, "B N C"]:
        """Return the text's stream, behind the embedding of the mode where it has modes."""
        out: Tensor = self.txt_in(txt)
        if self.controlnet_mode_embedder is None:
            return out
        assert mode is not None, "check the mode first"
        row = self.controlnet_mode_embedder.weight[mode].expand(len(txt), 1, -1)
        return torch.cat((row, out), dim=1)

    def forward(
        self,
        img: Float[Tensor, "B L I"],
        hint: Stream,
        words: Float[Tensor, "B N C"],
        pe: Rotation,
        modulation: Modulation,
        scale: float,
    ) -> Residuals:
        """Return the residuals at one noise level, times `scale`."""
        start = self.img_in(img) + hint
        after = list(streams(self, start, words, modulation, pe))
        double = [out(x) * scale for out, x in zip(self.controlnet_blocks, after, strict=False)]
        rest = after[len(double) :]
        single = [out(x) * scale for out, x in zip(self.controlnet_single_blocks, rest, strict=True)]
        return Residuals(double=tuple(double), single=tuple(single), cycle=self.shape.hint > 0)


def hint_encoder(channels: int) -> nn.Sequential:
    """Return XLabs' encoder of pictures: eight pixels each way become one cell of `channels`."""
    layers: list[nn.Module] = [nn.Conv2d(3, HINT, 3, padding=1), nn.SiLU()]
    for _ in range(HALVINGS):
        layers += [nn.Conv2d(HINT, HINT, 3, padding=1), nn.SiLU()]
        layers += [nn.Conv2d(HINT, HINT, 3, padding=1, stride=2), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(HINT, channels, 3, padding=1))


@contextmanager
def added(model: Flux, all_residuals: Sequence[Residuals], text: int) -> Iterator[None]:
    """A context in which every block of the network is followed by its residuals, one ControlNet after the other.

    They are as many as the image's own tokens; references after those are left as they are. Blocks that were compiled
    run uncompiled in here, since compiled ones do not look for hooks.

    Args:
        text: tokens before the image's in the blocks of one stream.
    """
    with ExitStack() as stack:
        for blocks, kind, start in ((model.double_blocks, "double", 0), (model.single_blocks, "single", text)):
            for i, block in enumerate(blocks):
                own = [(each, getattr(each, kind)) for each in all_residuals]
                rows = [each.at(residuals, i, len(blocks)) for each, residuals in own if residuals]
                if rows:
                    stack.enter_context(plain(block))
                    stack.callback(block.register_forward_hook(_adding(rows, start)).remove)
        yield


@contextmanager
def plain(block: nn.Module) -> Iterator[None]:
    """A context in which the block runs uncompiled."""
    compiled = block._compiled_call_impl
    block._compiled_call_impl = None
    try:
        yield
    finally:
        block._compiled_call_impl = compiled


def _adding(rows: Sequence[Stream], start: int) -> Callable[[nn.Module, Any, Any], None]:
    """A hook that adds to the block's result in place: it is new, and nobody else has it yet."""

    def add(block: nn.Module, args: Any, result: Any) -> None:
        stream: Tensor = result[0] if isinstance(result, tuple) else result
        for row in rows:
            stream[:, start : start + row.shape[1]] += row

    return add
