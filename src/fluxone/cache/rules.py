"""When a step may be guessed, and what the guess is made of: one row a rule.

    signal     a tensor that changes as the trunk's result does: found before the trunk runs, or by its first block
    residual   what the skipped part added when it was last computed; a guess adds it again, or follows its changes

Source: TeaCache (Liu et al. 2024, "Timestep Embedding Tells"), First Block Cache (chengzeyi/ParaAttention), TaylorSeer
(Liu et al. 2025, "From Reusing to Forecasting").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fluxone.errors import BadRequest, pick
from fluxone.nn.layers import normalise
from fluxone.nn.transformer import Flux, Modulation

Signal = Callable[[Flux, Tensor, Modulation], Tensor]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way of caching.

    Attributes:
        blocks: how many blocks are always computed before it is decided.
        signal: of the picture's tokens before the trunk and the modulation; None is what the first blocks add.
        every: guess all but every so many steps, whatever the signal: for rules without one. 0: by the signal.
        order: how many changes of the residual a guess goes along: 0 repeats it.
        limit: what the signal may have changed by, in all, since the trunk was last computed; or `every`.
    """

    blocks: int = 0
    signal: Signal | None = None
    every: bool = False
    order: int = 0
    limit: float


def modulated(model: Flux, img: Tensor, modulation: Modulation) -> Tensor:
    """What the first block's attention sees of the picture."""
    shift, scale = modulation.double[0][0][:, :2, None].unbind(1)
    return normalise(img, shift, scale)


RULES: dict[str, Rule] = {
    "first-block": Rule(blocks=1, limit=0.1),
    "teacache": Rule(signal=modulated, limit=0.3),
    "taylor": Rule(every=True, order=2, limit=3),
}
WARM = 2  # steps at the beginning that are always computed; and the last one is
MOST = 4  # guesses in a row, at most


def read(text: str) -> tuple[Rule, float]:
    """`NAME` or `NAME:LIMIT` as a rule and its limit.

    Raises:
        UnknownName: there is no such rule.
        BadRequest: the limit is no number above 0.
    """
    name, _, number = text.partition(":")
    rule = pick(RULES, name, "cache")
    try:
        limit = float(number) if number else rule.limit
    except ValueError:
        limit = 0.0
    if not 0 < limit < 100:
        raise BadRequest(f"the cache's limit is {number!r}", hint=f"write {name}:{rule.limit:g}, or another number")
    return rule, limit
