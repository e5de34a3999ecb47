"""One walk, steered: residuals and looks are put into the network for the time of each call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from fluxone.nn.controlnet import ControlNet, Residuals, added
from fluxone.nn.ip_adapter import Looking, looking
from fluxone.nn.rope import Rotation
from fluxone.nn.transformer import Flux
from fluxone.sampling.guidance import Tables
from fluxone.sampling.samplers import State, Velocity
from fluxone.steering.steer import Hint


@dataclass(kw_only=True)
class Guide:
    """A ControlNet in one walk, with all that does not change along it."""

    hint: Hint
    net: ControlNet
    seen: Tensor
    words: Tensor
    pe: Rotation
    tables: Tables


class Walk:
    """What steers one walk; residuals are kept until the place or the noise level changes."""

    def __init__(self, model: Flux, guides: list[Guide], sigmas: Sequence[float]) -> None:
        self.model, self.guides, self.sigmas = model, guides, sigmas
        self._last: tuple[State, float, list[Residuals]] | None = None

    def steered(self, velocity: Velocity, looks: list[Looking], text: int) -> Velocity:
        """The velocity with everything added inside the network for the time of a call; `text` counts its tokens."""

        @torch.inference_mode()
        def at(x: State, sigma: float) -> State:
            with ExitStack() as stack:
                if residuals := self._residuals(x, sigma):
                    stack.enter_context(added(self.model, residuals, text))
                if looks:
                    stack.enter_context(looking(self.model, looks))
                return velocity(x, sigma)

        return at

    def _residuals(self, x: State, sigma: float) -> list[Residuals]:
        if self._last is not None and self._last[0] is x and self._last[1] == sigma:
            return self._last[2]
        steps = len(self.sigmas) - 1
        step = min(max(sum(level >= sigma for level in self.sigmas) - 1, 0), steps - 1)
        found = []
        for guide in self.guides:
            if guide.hint.works(step, steps):
                modulation, scale = guide.tables.at(sigma), guide.hint.scale
                img = x.to(guide.words.dtype)
                found.append(guide.net(img, guide.seen, guide.words, guide.pe, modulation, scale))
        self._last = (x, sigma, found)
        return found
