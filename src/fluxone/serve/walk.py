"""A walk that stops wherever it needs the network, so that several can be answered by one pass.

    sampler --(bound, x, sigma)--> Ask   ...the network, for many walks at once...   answer(velocity) --> next Ask

Samplers are written as if they called the network; here they are suspended inside that call, each on a stack of its
own. A walk belongs to the thread that began it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

from fluxone.errors import BadRequest
from fluxone.job import Job
from fluxone.sampling.guidance import Bound, together
from fluxone.sampling.samplers import State, Step, Velocity

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a walk waits for: the velocity of `x` at `sigma`."""

    bound: Bound
    x: State
    sigma: float


class Walk:
    """The walk of one job.

    Attributes:
        ask: what it waits for; None at its end.
        step: the last step that it took.
    """

    def __init__(self, pipeline: Pipeline, job: Job) -> None:
        if job.steer:  # what steers one walk would have to be added to its own rows of the pass alone
            raise BadRequest("the server draws without ControlNets and IP-Adapters", hint="use the command line")
        self.pipeline, self.job = pipeline, job
        self.x = job.x
        self.step: Step | None = None
        self.taken = 0
        self._bounds = pipeline.bind(job)
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
        for step in self.pipeline.stride(self.job, [self._asking(bound) for bound in self._bounds]):
            self.step, self.x = step, step.x
            self.taken += 1

    def _asking(self, bound: Bound) -> Velocity:
        def at(x: State, sigma: float) -> State:
            parent = getcurrent().parent
            assert parent is not None, "a walk runs inside its own stack"
            velocity: State = parent.switch(Ask(bound=bound, x=x, sigma=sigma))
            return velocity

        return at


def answers(walks: Sequence[Walk]) -> list[tuple[Walk, State]]:
    """What the network says to the first walk, and to those others that it can take beside it; one pass."""
    asks = [(walk, walk.ask) for walk in walks if walk.ask is not None]
    if not asks:
        return []
    pipeline, first = walks[0].pipeline, asks[0][1].bound
    alike = [(walk, ask) for walk, ask in asks if ask.bound.shape == first.shape]
    with pipeline.using("transformer"):
        velocities = together(pipeline.transformer, [(ask.bound, ask.x, ask.sigma) for _, ask in alike])
    return [(walk, velocity) for (walk, _), velocity in zip(alike, velocities, strict=True)]
