"""A trunk for one walk that skips what it can guess; whatever it remembers ends with the walk.

    first blocks -> signal -> guess?  yes: img + guess of what the rest adds    no: the rest, and remember what it adds

Nothing waits for the device. The change of the signal is copied to the host beside the computation and read a step
later, when it has long arrived; whether a step is guessed is decided by the changes up to the step before and, for
the step itself, by the last of them once more. So the decision is the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor

from fluxone.cache.rules import MOST, WARM, Rule, read
from fluxone.nn.rope import Rotation
from fluxone.nn.transformer import Flux, Modulation, streams
from fluxone.sampling.samplers import State, Velocity

Number = Callable[[], float]
TINY = 1e-12

class Cached:
    """The runner of one side of a walk, with the prompt or with the negative one: a `Trunk`.

    Args:
        steps: of the walk; the last is always computed.

    Attributes:
        computed, guessed: how many steps were.
    """

    def __init__(self, rule: Rule, limit: float, steps: int) -> None:
        self.rule, self.limit, self.steps = rule, limit, steps
        self.computed = self.guessed = 0
        self._signal: Tensor | None = None
        self._latest: Number = lambda: 0.0  # how much the signal changed in the step before
        self._since: list[Number] = []  # its changes in the steps that were guessed since the last computed one
        self._residuals: list[tuple[int, Tensor]] = []  # what was skipped added, the newest first, with the step
        self._row = 0  # guesses in a row

    def __call__(self, model: Flux, img: Tensor, txt: Tensor, modulation: Modulation, pe: Rotation) -> Tensor:
        """The picture's stream after all blocks, or a guess of it."""
        blocks = streams(model, img, txt, modulation, pe)
        start = img
        for img in islice(blocks, self.rule.blocks):  # noqa: B007  # the stream goes on
            pass
        guess = self._decide()
        if not self.rule.every:
            self._note(img - start if self.rule.signal is None else self.rule.signal(model, img, modulation), guess)
        step = self.computed + self.guessed
        if guess:
            self._row += 1
            self.guessed += 1
            return img + along(self._residuals, step)
        after = img
        for after in blocks:  # noqa: B007  # the last counts
            pass
        self._row = 0
        self.computed += 1
        self._residuals = [(step, after - img), *self._residuals[: self.rule.order]]
        return after

    def _decide(self) -> bool:
        if not WARM <= self.computed + self.guessed < self.steps - 1:
            return False
        if self.rule.every:
            return self._row < round(self.limit) - 1
        return self._row < MOST and sum(change() for change in self._since) + self._latest() < self.limit

    def _note(self, signal: Tensor, guess: bool) -> None:
        """Send the signal's change on its way."""
        if self._signal is not None:
            change = (signal - self._signal).abs().mean() / self._signal.abs().mean().clamp(min=TINY)
            self._latest = later(change)
            self._since = [*self._since, self._latest] if guess else []
        self._signal = signal


def along(known: Sequence[tuple[int, Tensor]], step: int) -> Tensor:
    """The value at a step of the polynomial through those that are known, the newest first (Newton's form)."""
    times, rows = [time for time, _ in known], [value for _, value in known]
    for order in range(1, len(rows)):
        for place in range(len(rows) - 1, order - 1, -1):
            rows[place] = (rows[place] - rows[place - 1]) / (times[place] - times[place - order])
    total, factor = rows[0], 1.0
    for order in range(1, len(rows)):
        factor *= step - times[order - 1]
        total = total + factor * rows[order]
    return total


def later(value: Tensor) -> Number:
    """A number on its way to the host; asking for it waits until it is there."""
    if value.device.type != "cuda":
        return lambda: float(value)
    there = torch.empty((), dtype=torch.float32, pin_memory=True)
    there.copy_(value.float(), non_blocking=True)
    event = torch.cuda.current_stream(value.device).record_event()

    def arrived() -> float:
        event.synchronize()
        return float(there)

    return arrived


def guessing(model: Flux, velocity: Velocity, text: str | None, steps: int) -> Velocity:
    """The velocity of one side of a walk, with steps guessed by a recipe's words; None computes all.

    Raises:
        UserError: the words name no rule, or no limit.
    """
    if text is None:
        return velocity
    runner = Cached(*read(text), steps)

    def at(x: State, sigma: float) -> State:
        before, model.trunk = model.trunk, runner
        try:
            return velocity(x, sigma)
        finally:
            model.trunk = before

    return at
