"""FLUX.1's diffusion transformer, with the parameter names of the published files.

    sigma, guidance, pooled --vector--> vec --modulation--> Modulation      (once for a whole schedule)
    img, txt, Rotation, Modulation --predict--> velocity                    (once a step)

Modulation is data, not work: every adaLN modulation depends on (sigma, guidance, pooled) alone, so a schedule's
can be made before its loop, and the 27 % of the weights that make it (`Flux.modulators`) can then leave the device.

Source: black-forest-labs/flux, `model.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fluxone.nn.attention import ATTENTION, Attend
from fluxone.nn.layers import SINUSOID, DoubleBlock, Embedder, FinalLayer, Modulator, SingleBlock, sinusoid
from fluxone.nn.rope import Rotation, rotation
from fluxone.shapes import FluxShape

TIME = 1000  # sigma and guidance are counted in thousandths inside the embedding, and nowhere else


@dataclass(frozen=True, kw_only=True)
class Modulation:
    """Shift, scale and gate of every block, for N settings of (sigma, guidance, pooled).

    Attributes:
        double: a block's image rows and text rows: shift, scale, gate of the attention, then of the MLP.
        single: a block's shift, scale, gate.
        final: shift, scale of the last layer.
    """

    double: tuple[tuple[Float[Tensor, "N 6 C"], Float[Tensor, "N 6 C"]], ...]
    single: tuple[Float[Tensor, "N 3 C"], ...]
    final: Float[Tensor, "N 2 C"]

    def each(self, change: Callable[[Tensor], Tensor]) -> Modulation:
        """Return the modulation with `change` made to each of its tensors."""
        return Modulation(
            double=tuple((change(img), change(txt)) for img, txt in self.double),
            single=tuple(change(rows) for rows in self.single),
            final=change(self.final),
        )

    def rows(self, index: int | slice | Tensor) -> Modulation:
        """Return some of the N settings; one row serves a batch of any size."""
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return self.each(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Modulation:
        """Return the modulation on a device."""
        return self.each(lambda tensor: tensor.to(device))


Trunk = Callable[["Flux", Tensor, Tensor, Modulation, Rotation], Tensor]


class Blocks(nn.Module):
    """What has FLUX.1's blocks and embedders: the network, and the ControlNets beside it."""

    time_in: Embedder
    guidance_in: Embedder | None
    vector_in: Embedder
    double_blocks: nn.ModuleList
    single_blocks: nn.ModuleList
    attend: Attend


def trunk(
    model: Flux, img: Float[Tensor, "B L C"], txt: Float[Tensor, "B T C"], modulation: Modulation, pe: Rotation
) -> Float[Tensor, "B L C"]:
    """Run all blocks and return the image's stream."""
    return reduce(lambda _, after: after, streams(model, img, txt, modulation, pe), img)


def streams(
    model: Blocks, img: Float[Tensor, "B L C"], txt: Float[Tensor, "B T C"], modulation: Modulation, pe: Rotation
) -> Iterator[Float[Tensor, "B L C"]]:
    """Yield the image's stream after each block: the one loop over blocks of the project."""
    for double, pair in zip(model.double_blocks, modulation.double, strict=True):
        img, txt = double(img, txt, pair, pe, model.attend)
        yield img
    both = torch.cat((txt, img), dim=1)
    for single, rows in zip(model.single_blocks, modulation.single, strict=True):
        both = single(both, rows, pe, model.attend)
        yield both[:, txt.shape[1] :]


def vector(
    model: Blocks,
    sigma: Float[Tensor, " N"],
    guidance: Float[Tensor, " N"] | None,
    pooled: Float[Tensor, "N V"],
    *,
    rounding: torch.dtype | None = None,
) -> Float[Tensor, "N C"]:
    """Return `vec`: see `Flux.vector`."""

    def embed(embedder: Embedder, x: Tensor) -> Tensor:
        x = x.float() if rounding is None else x.to(rounding)
        out: Tensor = embedder(sinusoid(TIME * x).to(pooled.dtype))
        return out

    vec = embed(model.time_in, sigma)
    if model.guidance_in is not None:
        if guidance is None:
            raise ValueError("this network embeds guidance, and was given none")
        vec = vec + embed(model.guidance_in, guidance)
    pooled_part: Tensor = model.vector_in(pooled)
    return vec + pooled_part


def block_modulation(model: Blocks, active: Float[Tensor, "N C"], final: Float[Tensor, "N 2 C"]) -> Modulation:
    """Return the modulation of every block for N rows of silu(vec), with that of the last layer."""
    doubles = cast("Iterable[DoubleBlock]", model.double_blocks)
    singles = cast("Iterable[SingleBlock]", model.single_blocks)
    return Modulation(
        double=tuple((block.img_mod(active), block.txt_mod(active)) for block in doubles),
        single=tuple(block.modulation(active) for block in singles),
        final=final,
    )


class Flux(Blocks):
    """The network. `trunk` and `attend` may be replaced: caches wrap the first, backends are the second."""

    def __init__(self, shape: FluxShape) -> None:
        super().__init__()
        assert sum(shape.axes) == shape.head_dim, f"axes {shape.axes} do not add up to {shape.head_dim}"
        self.shape = shape
        self.trunk: Trunk = trunk
        self.attend: Attend = ATTENTION["sdpa"]
        self.img_in = nn.Linear(shape.in_channels, shape.hidden)
        self.txt_in = nn.Linear(shape.text_dim, shape.hidden)
        self.time_in = Embedder(SINUSOID, shape.hidden)
        self.guidance_in: Embedder | None = Embedder(SINUSOID, shape.hidden) if shape.guided else None
        self.vector_in = Embedder(shape.vec_dim, shape.hidden)
        self.double_blocks = nn.ModuleList(
            DoubleBlock(shape.hidden, shape.heads, shape.mlp) for _ in range(shape.double_blocks)
        )
        self.single_blocks = nn.ModuleList(
            SingleBlock(shape.hidden, shape.heads, shape.mlp) for _ in range(shape.single_blocks)
        )
        self.final_layer = FinalLayer(shape.hidden, shape.out_channels)

    def vector(
        self,
        sigma: Float[Tensor, " N"],
        guidance: Float[Tensor, " N"] | None,
        pooled: Float[Tensor, "N V"],
        *,
        rounding: torch.dtype | None = None,
    ) -> Float[Tensor, "N C"]:
        """Return `vec`: embedded sigma, plus guidance where the network has it, plus pooled text, in this order.

        Args:
            guidance: ignored by networks without a guidance embedding.
            rounding: type that sigma, guidance and a thousand times them are rounded to; None keeps float32.
        """
        return vector(self, sigma, guidance, pooled, rounding=rounding)

    def modulation(self, vec: Float[Tensor, "N C"]) -> Modulation:
        """Return the modulation of every block for N rows of `vec`: a schedule's, a batch's, or both."""
        active = F.silu(vec)
        return block_modulation(self, active, self.final_layer.modulate(active))

    def modulators(self) -> list[nn.Module]:
        """Return the modules that only `vector` and `modulation` use."""
        parts: list[nn.Module | None] = [
            self.time_in,
            self.vector_in,
            self.guidance_in,
            self.final_layer.adaLN_modulation,
        ]
        parts += [module for module in self.modules() if isinstance(module, Modulator)]
        return [part for part in parts if part is not None]

    def predict(
        self, img: Float[Tensor, "B L I"], txt: Float[Tensor, "B T D"], pe: Rotation, modulation: Modulation
    ) -> Float[Tensor, "B L O"]:
        """Return the velocity of every image token. `pe` covers text, then image; `modulation` has B rows, or 1.

        The two streams keep the type of `img` and `txt`: under autocast, float32 inputs make them float32.
        """
        img, txt = self.img_in(img).to(img.dtype), self.txt_in(txt).to(txt.dtype)
        out: Tensor = self.final_layer(self.trunk(self, img, txt, modulation, pe), modulation.final)
        return out

    def forward(
        self,
        img: Float[Tensor, "B L I"],
        img_ids: Float[Tensor, "*P L 3"],
        txt: Float[Tensor, "B T D"],
        txt_ids: Float[Tensor, "*P T 3"],
        sigma: Float[Tensor, " B"],
        pooled: Float[Tensor, "B V"],
        guidance: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B L O"]:
        """Return the velocity at `sigma`, one a sample: what training calls."""
        pe = rotation(torch.cat((txt_ids, img_ids), dim=-2), self.shape.axes, self.shape.theta)
        return self.predict(img, txt, pe, self.modulation(self.vector(sigma, guidance, pooled)))
