"""Which checkpoint at which strength: the most alike of those that copy nothing, leak little and leave the rest alone.

limits --all kept--> the highest score          --none kept--> the least beyond them, and which
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fluxone.tune.looks import Look

STRENGTHS = (0.7, 0.85, 1.15)  # that the best checkpoints are tried at besides 1
PATIENCE = 3  # looks without improvement after which a run may stop
BETTER = 0.02  # of the score, that counts as one


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a choice must keep to.

    Attributes:
        copied: share of pictures that are copies; leak, drift: as in `looks`.
        shy: how much drift takes off the score, so that of two that are as alike the calmer is taken.
    """

    copied: float = 0.1
    leak: float = 0.35
    drift: float = 0.6
    shy: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and why."""

    look: Look
    reason: str


# A style is meant to be in every picture that is asked for with it; without a name it must change the rest.
LIMITS: dict[str, Limits] = {
    "lora": Limits(),
    "character": Limits(),
    "product": Limits(),
    "style": Limits(leak=2.0, drift=1.2, shy=0.1),
}


def score(look: Look, limits: Limits) -> float:
    """The higher the better."""
    return min(look.identity, 1.0) - limits.shy * look.drift - look.copied


def excess(look: Look, limits: Limits) -> float:
    """How far beyond the limits; 0 within them."""
    over = (look.copied - limits.copied, look.leak - limits.leak, look.drift - limits.drift)
    return sum(max(0.0, value) for value in over)


def choose(looks: Sequence[Look], limits: Limits) -> Choice:
    """The best of several looks."""
    within = [look for look in looks if excess(look, limits) == 0]
    best = max(within, key=lambda look: score(look, limits), default=None)
    if best is not None:
        left = len(looks) - len(within)
        beyond = f"; {left} others copy, leak or drift too much" if left else ""
        return Choice(look=best, reason=f"the best score, {score(best, limits):.2f}, of {len(looks)} looks{beyond}")
    best = min(looks, key=lambda look: (excess(look, limits), -score(look, limits)))
    told = [
        f"{name} {value:.2f} over {limit:.2f}"
        for name, value, limit in (
            ("copied", best.copied, limits.copied),
            ("leak", best.leak, limits.leak),
            ("drift", best.drift, limits.drift),
        )
        if value > limit
    ]
    return Choice(look=best, reason=f"none keeps to the limits; this is the least beyond them: {', '.join(told)}")


def leading(looks: Sequence[Look], limits: Limits, count: int = 2) -> list[Look]:
    """The looks at strength 1 whose checkpoints are worth trying at others."""
    full = [look for look in looks if look.strength == 1]
    return sorted(full, key=lambda look: (excess(look, limits), -score(look, limits)))[:count]


def stalled(looks: Sequence[Look], limits: Limits) -> bool:
    """Whether the score has not improved for `PATIENCE` looks while copies or drift grew."""
    full = [look for look in looks if look.strength == 1]
    if len(full) <= PATIENCE:
        return False
    before, late = full[:-PATIENCE], full[-PATIENCE:]
    best = max(score(look, limits) for look in before)
    worse = late[-1].copied > before[-1].copied or late[-1].drift > before[-1].drift
    return worse and all(score(look, limits) < best + BETTER for look in late)
