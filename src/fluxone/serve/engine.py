"""The engine: one line, and a worker a device. It knows pipelines and tasks, no HTTP, no database.

    submit(task)  ...  task.drawn, or task.error
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fluxone.errors import pick
from fluxone.request import Request
from fluxone.serve.line import Line
from fluxone.serve.task import Stopped, Task
from fluxone.serve.worker import Report, Room, Worker
from fluxone.variants import Variant

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline
    from fluxone.serve.crew import Crew

WAITING = 256  # tasks
DRAIN = 30.0  # s

Load = Callable[[], Mapping[str, "Pipeline"]]


class Drawing(Protocol):
    """What the rest of the server needs of an engine."""

    def variants(self) -> Mapping[str, Variant]:
        """Name of each model -> its row."""

    def beside(self, model: str) -> Beside:
        """What works beside a model."""

    def resolve(self, model: str, request: Request) -> Request:
        """The request with the model's defaults, checked."""

    def submit(self, task: Task, *, always: bool = False) -> None:
        """Draw it, some time."""

    def state(self) -> State:
        """How it is."""

    def stop(self, drain: float) -> None:
        """Draw no more."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Networks beside a model.

    Attributes:
        controlnets: how many; each needs a picture.
        modes: whether they are to be told what their pictures show.
        looks: whether there is an IP-Adapter, which takes image prompts.
    """

    controlnets: int = 0
    modes: bool = False
    looks: bool = False


@dataclass(frozen=True, kw_only=True)
class State:
    """How an engine is at a moment.

    Attributes:
        trouble: why it will never be ready, if so.
    """

    ready: bool
    trouble: str | None = None
    waiting: int = 0
    begun: int = 0


class Engine:
    """Workers on one line.

    Args:
        loads: one a device: makes the pipelines of its worker, by name. All have the same.
        waiting: tasks that the line holds.
        report: called after each pass of a network with the pictures in it and the seconds it took.
        crew: processes that share the models of the one worker there is.
    """

    def __init__(
        self,
        loads: Sequence[Load],
        *,
        waiting: int = WAITING,
        room: Room | None = None,
        report: Report = lambda pictures, seconds: None,
        crew: Crew | None = None,
    ) -> None:
        self.line = Line(waiting)
        self.workers = [
            Worker(f"worker-{i}", load, self.line, room or Room(), report, crew=crew) for i, load in enumerate(loads)
        ]
        self._stopped = False

    def start(self) -> None:
        """Load and warm up, in the background."""
        for worker in self.workers:
            worker.start()

    def wait_ready(self, seconds: float | None = None) -> None:
        """Wait until all have loaded.

        Raises:
            FluxoneError: one could not.
        """
        for worker in self.workers:
            worker.ready.wait(seconds)
            if worker.error is not None:
                raise worker.error

    def variants(self) -> Mapping[str, Variant]:
        """Name of each model -> its row; empty until the first worker has loaded."""
        return {name: pipeline.variant for name, pipeline in self.workers[0].pipelines.items()}

    def beside(self, model: str) -> Beside:
        """What works beside a model."""
        steering = pick(self.workers[0].pipelines, model, "model").steering
        nets = [loaded.net.shape for loaded in steering.controlnets.values()]
        modes = any(getattr(shape, "modes", 0) for shape in nets)
        return Beside(controlnets=len(nets), modes=modes, looks=bool(steering.adapters))

    def resolve(self, model: str, request: Request) -> Request:
        """The request with the model's defaults, checked.

        Raises:
            UserError: no such model, or a request that it cannot draw.
        """
        return pick(self.workers[0].pipelines, model, "model").resolve(request)

    def submit(self, task: Task, *, always: bool = False) -> None:
        """Let a picture wait to be drawn.

        Args:
            always: even if the line is full.

        Raises:
            Busy: the line is full.
            Stopped: the engine was stopped, or its workers have ended.
        """
        if self._stopped or all(worker.error for worker in self.workers):
            raise Stopped("the server is stopping", hint="try again when it is back")
        self.line.put(task, always=always)

    def state(self) -> State:
        """How it is."""
        trouble = next((str(worker.error) for worker in self.workers if worker.error), None)
        return State(
            ready=trouble is None and all(worker.ready.is_set() for worker in self.workers),
            trouble=trouble,
            waiting=len(self.line.waiting),
            begun=sum(len(worker.begun) for worker in self.workers),
        )

    def stop(self, drain: float = DRAIN) -> None:
        """Finish what has begun, for `drain` seconds at most; all other tasks end with `Stopped`."""
        self._stopped = True
        for worker in self.workers:
            worker.stop(drain)
        until = time.monotonic() + drain + 5
        for worker in self.workers:
            if worker.is_alive():
                worker.join(max(0.1, until - time.monotonic()))
        with self.line.changed:
            rest = list(self.line.waiting)
        for task in rest:
            self.line.left(task)
            task.end(error=Stopped("the server was stopped"))
