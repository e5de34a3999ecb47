"""How much memory a run takes, said before it starts: an estimate from shapes, part by part.

weights      by parameters and what they are packed in           text encoders   while captions are read, then gone
adapter      4 bytes a number, 4 of its gradient, what the optimizer remembers
activations  what every block keeps for the way back; with checkpointing one stream a block, and one block whole
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fluxone.lora.delta import Delta
from fluxone.quant.apply import SCHEMES
from fluxone.shapes import FluxShape
from fluxone.tune.beside import numbers
from fluxone.tune.optimizers import BYTES
from fluxone.tune.settings import Settings

GIB = 2**30
# Numbers that a block keeps for the way back, in widths of the network a token: norms, q, k, v, heads, MLP, products.
DOUBLE_KEPT, SINGLE_KEPT = 34.0, 22.0
SLACK = 0.6  # GiB: the runtime's own


@dataclass(frozen=True, kw_only=True)
class Memory:
    """GiB of the device, by part."""

    weights: float
    adapter: float
    activations: float

    @property
    def whole(self) -> float:
        """All together, with what the runtime takes."""
        return self.weights + self.adapter + self.activations + SLACK

    def __str__(self) -> str:
        return (
            f"about {self.whole:.1f} GiB: weights {self.weights:.1f}, adapter {self.adapter:.1f}, "
            f"activations {self.activations:.1f}"
        )


def parameters(shape: FluxShape) -> tuple[int, int]:
    """Numbers in the layers that quantizing packs, and in all others."""
    h, inner = shape.hidden, shape.mlp
    packed = shape.double_blocks * 2 * (4 * h * h + 2 * h * inner)
    packed += shape.single_blocks * (h * (3 * h + inner) + (h + inner) * h)
    other = shape.double_blocks * 12 * h * h + shape.single_blocks * 3 * h * h + 2 * h * h
    other += h * (shape.in_channels + shape.text_dim + shape.vec_dim + 512 + shape.out_channels) + 4 * h * h
    return packed, other


def estimate(
    shape: FluxShape, deltas: Sequence[Delta], settings: Settings, *, tokens: int, text: int, quant: str | None,
    width: int,
) -> Memory:  # fmt: skip
    """What training takes on the device.

    Args:
        tokens, text: of a picture (references too) and its words.
        width: bytes of a number that is not packed.
    """
    packed, other = parameters(shape)
    bits = SCHEMES[quant].bits if quant is not None and SCHEMES[quant].bits else 8 * width
    learnt = numbers(deltas)
    rows = (settings.micro or settings.batch) * (tokens + text)
    unit = rows * shape.hidden * width
    double, single = shape.double_blocks * DOUBLE_KEPT, shape.single_blocks * SINGLE_KEPT
    if settings.checkpointing:
        kept = unit * (shape.double_blocks + shape.single_blocks + DOUBLE_KEPT)
    else:
        kept = unit * (double + single)
    return Memory(
        weights=(packed * bits / 8 + other * width) / GIB,
        adapter=learnt * (8 + BYTES[settings.optimizer]) / GIB,
        activations=kept / GIB,
    )
