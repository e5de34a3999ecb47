"""A walk that stops wherever it needs the network, so that several can be answered by one pass.

    sampler --(bound, x, sigma)--> Ask   ...the network, for many walks at once...   answer(velocity) --> next Ask

Samplers are written as if they called the network; here they are suspended inside that call, each on a stack of its
own. A walk belongs to the thread that began it; the network may be asked by another. It goes through all jobs that
follow each other: both passes of ultra, and edits in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

from fluxone.job import Job, through
from fluxone.sampling.guidance import Bound, together
from fluxone.sampling.samplers import State, Step, Velocity

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline

Grid = tuple[int, int]  # rows and columns of tokens


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a walk waits for: the velocity of `x` at `sigma`.

    Attributes:
        steered: what gives it instead of the network alone, where ControlNets or IP-Adapters steer the walk.
    """

    bound: Bound
    x: State
    sigma: float
    steered: Velocity | None = None

    @property
    def alone(self) -> bool:
        """Whether the network is changed for the time of the call, so that nobody else can use it meanwhile."""
        return self.steered is not None or self.bound.inputs.mixing is not None


class Walk:
    """The walk of one job and of those that follow it.

    Attributes:
        ask: what it waits for; None at its end.
        x, grid: where it is, as tokens, and their rows and columns.
        step, stepped: the last step that it took, and the grid of that.
    """

    def __init__(self, pipeline: Pipeline, job: Job) -> None:
        self.pipeline, self.job = pipeline, job
        self.x, self.grid = job.x, job.grid
        self.step: Step | None = None
        self.stepped: Grid = job.grid
        self.taken = 0
        self._inside = greenlet(self._run)
        self.ask: Ask | None = self._inside.switch()

    def answer(self, velocity: State) -> None:
        """Go on to the next ask, or to the end.

        Raises:
            BrokenModel: what the network said is not finite.
        """
        self.ask = self._inside.switch(velocity)

    def close(self) -> None:
        """Give it up."""
        if not self._inside.dead:
            self._inside.throw()

    def _run(self) -> None:
        for step in through(self.job, self._leg):
            self.step, self.x, self.stepped = step, step.x, self.grid
            self.taken += 1

    def _leg(self, job: Job) -> Iterator[Step]:
        self.x, self.grid = job.x, job.grid
        bounds = self.pipeline.bind(job)
        with self._steered(job, bounds) as steered:
            asking = [self._asking(bound, one) for bound, one in zip(bounds, steered, strict=True)]
            yield from self.pipeline.stride(job, asking)

    def _steered(self, job: Job, bounds: Sequence[Bound]) -> AbstractContextManager[Sequence[Velocity | None]]:
        if not job.steer:
            return nullcontext([None] * len(bounds))
        return self.pipeline.steering.at(job, bounds, self.pipeline.profile.rounding(self.pipeline.dtype))

    def _asking(self, bound: Bound, steered: Velocity | None) -> Velocity:
        def at(x: State, sigma: float) -> State:
            parent = getcurrent().parent
            assert parent is not None, "a walk runs inside its own stack"
            velocity: State = parent.switch(Ask(bound=bound, x=x, sigma=sigma, steered=steered))
            return velocity

        return at


def answers(walks: Sequence[Walk]) -> list[tuple[Walk, State]]:
    """What the network says to the first walk, and to those others that it can take beside it; one pass."""
    asks = [(walk, walk.ask) for walk in walks if walk.ask is not None]
    if not asks:
        return []
    pipeline, (first, ask) = walks[0].pipeline, asks[0]
    with pipeline.using("transformer"):
        if ask.steered is not None:
            return [(first, ask.steered(ask.x, ask.sigma))]
        alike = [(walk, one) for walk, one in asks if one.steered is None and one.bound.shape == ask.bound.shape]
        velocities = together(pipeline.transformer, [(one.bound, one.x, one.sigma) for _, one in alike])
    return [(walk, velocity) for (walk, _), velocity in zip(alike, velocities, strict=True)]
