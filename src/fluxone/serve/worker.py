"""A worker: one thread, one device, its models; it draws tasks out of the line and advances them step by step.

    round:  order(begun + waiting) -> the first, and with it what can be drawn beside it -> one pass of the network
            -> a step further each; who is at the end is decoded

Requests join and leave between steps. Only this thread touches the worker's pipelines.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxone import pixels as px
from fluxone import provenance
from fluxone.errors import FluxoneError
from fluxone.lora.adapters import Strength
from fluxone.lora.load import load_lora
from fluxone.preview import Palette
from fluxone.request import Request
from fluxone.sampling.samplers import State
from fluxone.serve.line import Line
from fluxone.serve.task import Drawn, Stopped, Task
from fluxone.serve.walk import Walk, answers

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxone.pipeline import Pipeline

log = logging.getLogger("fluxone.serve")

IDLE = 0.5  # s between looks at deadlines when nothing comes


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a worker does at a time.

    Attributes:
        begun: tasks that have begun; more wait, unless they are shorter.
        batch: pictures in one pass of the network.
        tokens: in one pass of the network, unless a picture alone has more.
    """

    begun: int = 16
    batch: int = 8
    tokens: int = 4096


Report = Callable[[int, float], None]  # pictures in a pass of the network, and seconds that it took


class Worker(threading.Thread):
    """Draws on one device.

    Args:
        load: makes its pipelines; called in its own thread.
        report: called after each pass of the network.
    """

    def __init__(
        self, name: str, load: Callable[[], Mapping[str, Pipeline]], line: Line, room: Room, report: Report
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.load, self.line, self.room, self.report = load, line, room, report
        self.pipelines: Mapping[str, Pipeline] = {}
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.begun: dict[Task, Walk | None] = {}  # no walk yet: to be prepared
        self._palettes: dict[str, Palette] = {}
        self._own: dict[str, dict[str, Strength]] = {}  # adapters that the models were loaded with
        self._stopping = threading.Event()
        self._drain_until = 0.0

    def stop(self, drain: float) -> None:
        """Begin nothing more; end after what has begun is done, or after `drain` seconds."""
        self._drain_until = time.monotonic() + drain
        self._stopping.set()
        with self.line.changed:
            self.line.changed.notify_all()

    def run(self) -> None:
        """Load, warm up, and draw until told to stop."""
        try:
            self.pipelines = self.load()
            for name, pipeline in self.pipelines.items():
                self._palettes[name] = Palette(pipeline)
                self._own[name] = dict(pipeline.adapters.active)
                if not any(kind.wide for kind in pipeline.variant.takes):  # those others need pictures
                    pipeline(Request(steps=1))
        except BaseException as error:  # noqa: BLE001 whatever it is, the server is to say it
            self.error = error
            self.ready.set()
            return
        self.ready.set()
        while not self._stopping.is_set() or (self.begun and time.monotonic() < self._drain_until):
            batch = self._choose()
            if batch:
                self._round(batch)
        for task in list(self.begun):
            self._end(task, error=Stopped("the server was stopped"))

    def _choose(self) -> list[Task]:
        """The tasks of the next pass of the network, those that wait taken out of the line."""
        with self.line.changed:
            self._sweep()
            room = len(self.begun) < self.room.begun and not self._stopping.is_set()
            ours = [task for task in self.line.waiting if task.wanted.model in self.pipelines] if room else []
            ordered = self.line.order([*self.begun, *ours])
            if not ordered:
                self.line.changed.wait(IDLE)
                return []
            first, batch = ordered[0], [ordered[0]]
            for task in ordered[1:]:
                fits = len(batch) < self.room.batch and (len(batch) + 1) * first.size <= self.room.tokens
                if fits and task.wanted.batch_key == first.wanted.batch_key:
                    batch.append(task)
            fresh = [task for task in batch if task not in self.begun]
            self.line.take(fresh)
            self.begun.update(dict.fromkeys(fresh))
            return batch

    def _sweep(self) -> None:
        for task in [*self.begun, *self.line.waiting]:
            if error := task.over():
                self._end(task, error=error)

    def _round(self, batch: list[Task]) -> None:
        """Prepare those that have just begun, and take all one step further."""
        for task in [task for task in batch if self.begun[task] is None]:
            with self._blamed(task):
                self._begin(task)
        self._advance([task for task in batch if self.begun.get(task)])

    def _advance(self, tasks: list[Task]) -> None:
        walks = {walk: task for task in tasks if (walk := self.begun[task]) is not None}
        if not walks:
            return
        began = time.perf_counter()
        try:
            self._adapt(tasks[0])
            answered = answers(list(walks))
        except Exception as error:  # noqa: BLE001 the worker outlives every request
            if len(tasks) == 1:
                return self._fail(tasks[0], error)
            for task in tasks:  # one of them may be to blame, or all together were too much
                self._advance([task])
            return None
        seconds = time.perf_counter() - began
        self.report(len(answered), seconds)
        for walk, velocity in answered:
            task = walks[walk]
            self.line.spent(task, seconds, len(answered))
            with self._blamed(task):
                walk.answer(velocity)
                self._follow(task, walk)
        return None

    @contextmanager
    def _blamed(self, task: Task) -> Iterator[None]:
        """What goes wrong in here ends this task, and nothing else."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 the worker outlives every request
            self._fail(task, error)

    def _fail(self, task: Task, error: Exception) -> None:
        foreseen = isinstance(error, FluxoneError)
        log.warning("request %s failed: %s", task.wanted.id, error, exc_info=None if foreseen else error)
        self._end(task, error=error)

    def _begin(self, task: Task) -> None:
        pipeline = self.pipelines[task.wanted.model]
        self._adapt(task)
        job = pipeline.prepare(task.wanted.request)
        task.steps, task.grid = max(1, len(job.sigmas) - 1), job.grid
        task.palette = self._palettes[task.wanted.model]
        walk = self.begun[task] = Walk(pipeline, job)
        if walk.ask is None:
            self._follow(task, walk)

    def _follow(self, task: Task, walk: Walk) -> None:
        """Show how far it is; finish it at its end."""
        before, task.done = task.done, walk.taken
        if walk.step is not None:
            task.clean = walk.step.clean
        if walk.ask is None:
            self._adapt(task)
            image = self._picture(walk, task, walk.x)
            self._end(task, drawn=Drawn(image=image, record=self._record(task), seconds=time.monotonic() - task.put))
        elif task.done > before and task.clean is not None and self._due(task):
            task.partial.append(self._picture(walk, task, task.clean))
            task.watch(task)

    def _due(self, task: Task) -> bool:
        """Whether an unfinished picture is to be shown now: they come evenly over the steps."""
        wanted = task.wanted.partials
        return len(task.partial) < wanted and task.done * (wanted + 1) >= task.steps * (len(task.partial) + 1)

    def _picture(self, walk: Walk, task: Task, x: State) -> Image:
        (image,) = px.to_images(px.unit(walk.pipeline.decode(x, task.grid)))
        return walk.pipeline.finish(image, task.wanted.request)

    def _record(self, task: Task) -> provenance.Record:
        pipeline = self.pipelines[task.wanted.model]
        return provenance.record(
            task.wanted.request,
            model=pipeline.variant.name,
            source=pipeline.bundle.source,
            hashes=pipeline.hashes,
            recipe=pipeline.recipe,
        )

    def _adapt(self, task: Task) -> None:
        """Let exactly the task's adapters work, beside those that the model was loaded with."""
        adapters = self.pipelines[task.wanted.model].adapters
        for file, _ in task.wanted.loras:
            if file not in adapters.loaded:
                adapters.load(load_lora(file), file)
        asked = {file: Strength(scale=scale) for file, scale in task.wanted.loras}
        adapters.use({**self._own[task.wanted.model], **asked})

    def _end(self, task: Task, *, drawn: Drawn | None = None, error: BaseException | None = None) -> None:
        if walk := self.begun.pop(task, None):
            walk.close()
        self.line.left(task)
        task.end(drawn=drawn, error=error)

