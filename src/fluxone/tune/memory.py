"""How much memory a run takes, said before it starts: an estimate from shapes, part by part.

weights      by parameters and what they are packed in; of blocks that come and go, three at a time
adapter      4 bytes a number, 4 of its gradient, what the optimizer remembers
activations  what every block keeps for the way back, and packed weights in numbers, which lead it; with checkpointing
             one stream a block, and one block whole; of a picture that several processes share, a part of the tokens
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fluxone.lora.delta import Delta
from fluxone.plan import HELD
from fluxone.quant.apply import SCHEMES
from fluxone.shapes import FluxShape
from fluxone.tune.beside import numbers
from fluxone.tune.optimizers import BYTES
from fluxone.tune.settings import Settings
from fluxone.tune.swap import chosen

GIB = 2**30
# Numbers that a block keeps for the way back, in widths of the network a token: norms, q, k, v, heads, MLP, products.
DOUBLE_KEPT, SINGLE_KEPT = 34.0, 22.0
WHOLE_KEPT = 3.0  # of all tokens of a picture that is shared: before the first block, after the last, and normed
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
    h = shape.hidden
    packed = sum(blocks(shape))
    other = shape.double_blocks * 12 * h * h + shape.single_blocks * 3 * h * h + 2 * h * h
    other += h * (shape.in_channels + shape.text_dim + shape.vec_dim + 512 + shape.out_channels) + 4 * h * h
    return packed, other


def blocks(shape: FluxShape) -> list[int]:
    """Numbers in the layers of each block that quantizing packs, in their order."""
    h, inner = shape.hidden, shape.mlp
    double, single = 2 * (4 * h * h + 2 * h * inner), h * (3 * h + inner) + (h + inner) * h
    return [double] * shape.double_blocks + [single] * shape.single_blocks


def estimate(
    shape: FluxShape, deltas: Sequence[Delta], settings: Settings, *, tokens: int, text: int, quant: str | None,
    width: int,
) -> Memory:  # fmt: skip
    """What training takes on the device of one process; where weights are in rows, as if it had all of them.

    Args:
        tokens, text: of a picture (references too) and its words.
        width: bytes of a number that is not packed.
    """
    scheme = None if quant is None else SCHEMES[quant]
    bits = scheme.bits if scheme is not None and scheme.bits else 8 * width
    learnt, sizes = numbers(deltas), blocks(shape)
    rows, shared = settings.micro or settings.batch, settings.context > 1
    unit = rows * shape.hidden * width * (math.ceil(tokens / settings.context) + text)
    ends = rows * shape.hidden * width * tokens * WHOLE_KEPT if shared else 0
    twice = settings.checkpointing or settings.swap > 0
    kept = shape.double_blocks + shape.single_blocks + DOUBLE_KEPT if twice else (
        shape.double_blocks * DOUBLE_KEPT + shape.single_blocks * SINGLE_KEPT
    )  # fmt: skip
    unpacked = 0 if scheme is None or not scheme.unpacks else width * (max(sizes) if twice else sum(sizes))
    return Memory(
        weights=_weights(shape, settings.swap, bits / 8, width) / GIB,
        adapter=learnt * (8 + BYTES[settings.optimizer]) / GIB,
        activations=(kept * unit + ends + unpacked) / GIB,
    )


def _weights(shape: FluxShape, swap: int, each: float, width: int) -> float:
    """Bytes on the device; where blocks come and go, what makes modulation does so too, and of both a few are there."""
    sizes, other = blocks(shape), parameters(shape)[1]
    if not swap:
        return sum(sizes) * each + other * width
    away = [sizes[i] for i in chosen(len(sizes), swap)]
    largest = 6 * shape.hidden**2  # what makes the modulation of one stream of a double block
    modulators = shape.double_blocks * 2 * largest + shape.single_blocks * largest // 2
    there = sum(sizes) - sum(away) + sum(sorted(away)[-HELD:])
    return there * each + (other - modulators + HELD * largest) * width
