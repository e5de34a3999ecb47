"""Which scenes a suite asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fluxone.storybook import Scene

Keep = Callable[[Scene], bool]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which scenes are asked for.

    Attributes:
        kinds: kinds of scene, in the weights that the world gives them, or in these.
        keep: which of them.
        styled: share of them in a style of the world's.
        sized: share of the lone things that are called small or big.
    """

    kinds: tuple[str, ...]
    keep: Keep = lambda scene: True
    weights: Mapping[str, float] | None = None
    styled: float = 0.0
    sized: float = 0.0
