"""A worker: one thread, one device, its models; it draws tasks out of the line and advances them step by step.

    round:  order(begun + waiting) -> the first, and with it what can be drawn beside it -> one pass of the network
            in a lane -> a step further each; who is at its end is decoded in a lane, when it is first again

Requests join and leave between steps. Prompts are read, and walks suspended, in the worker's own thread, also while all
lanes compute; what takes long runs in its lanes. Those that share a network have the same adapters.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxone import pixels as px
from fluxone import provenance
from fluxone.errors import FluxoneError
from fluxone.lora.adapters import Strength
from fluxone.lora.load import load_lora
from fluxone.preview import Palette
from fluxone.provenance import Record
from fluxone.sampling.samplers import State
from fluxone.serve.crew import Deserted
from fluxone.serve.lanes import Came, Lanes
from fluxone.serve.line import Line
from fluxone.serve.task import Drawn, Lora, Stopped, Task
from fluxone.serve.walk import Grid, Walk, answers
from fluxone.serve.warming import warm
from fluxone.ultra import TILED, passes

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxone.pipeline import Pipeline
    from fluxone.serve.crew import Crew

log = logging.getLogger("fluxone.serve")

IDLE = 0.5  # s between looks at deadlines when nothing comes


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a worker does at a time.

    Attributes:
        begun: tasks that have begun; more wait.
        batch: pictures in one pass of the network.
        tokens: in one pass of the network, unless a picture alone has more.
        polite: whether a pass takes nobody along who is more work than the first.
        lanes: passes and decodings at a time; 0 does them in the worker's own thread.
        cores: that the lanes share; None leaves it to torch.
    """

    begun: int = 16
    batch: int = 8
    tokens: int = 4096
    polite: bool = False
    lanes: int = 0
    cores: int | None = None


Report = Callable[[int, float], None]  # pictures in a pass of the network, and seconds that it took


@dataclass(kw_only=True)
class Begun:
    """A task that has begun. `walk` is None until it is prepared; `record` is of the picture to come."""

    walk: Walk | None = None
    record: Record | None = None
    alone: bool = False  # it failed in a batch

    @property
    def walked(self) -> bool:
        """Whether nothing but decoding is left."""
        return self.walk is not None and self.walk.ask is None


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass of a network that is under way."""

    model: str
    loras: tuple[Lora, ...]
    alone: bool


class Worker(threading.Thread):
    """Draws on one device, or on several that share its models.

    Args:
        load: makes its pipelines; called in its own thread.
        report: called after each pass of the network.
        crew: the processes that share its models; it uses no lanes then.
    """

    def __init__(
        self, name: str, load: Callable[[], Mapping[str, Pipeline]], line: Line, room: Room, report: Report, *,
        crew: Crew | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name=name, daemon=True)
        self.load, self.line, self.room, self.report, self.crew = load, line, room, report, crew
        self.pipelines: Mapping[str, Pipeline] = {}
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.begun: dict[Task, Begun] = {}
        self.lanes = Lanes(room.lanes, room.cores, line.changed)
        self._busy: set[Task] = set()  # in a lane
        self._passes: list[Pass] = []
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
                warm(pipeline)
            if any(pipeline.on_device.mode != "none" for pipeline in self.pipelines.values()):
                self.lanes = Lanes(0, None, self.line.changed)  # parts come and go: one use at a time
        except BaseException as error:  # noqa: BLE001 whatever it is, the server is to say it
            self.error = error
            self.ready.set()
        else:
            self.ready.set()
            self._work()
        if self.crew is not None:
            self.crew.close()

    def _work(self) -> None:
        while not self._stopping.is_set() or (self.begun and time.monotonic() < self._drain_until):
            self.lanes.settle()
            if batch := self._choose():
                self._round(batch)
            elif self.crew is not None:
                self._tend(self.crew)
        self.lanes.close()
        self.lanes.settle()
        for task in [*self.begun, *(self.line.waiting if self.error else ())]:
            self._end(task, error=Stopped("the server was stopped"))

    def _tend(self, crew: Crew) -> None:
        try:
            crew.tend()
        except Deserted as error:
            self._give_up(error)

    def _give_up(self, error: Deserted) -> None:
        """Draw no more: what was accepted is another server's."""
        log.error("%s", error)
        self.error = error
        self._stopping.set()

    def _choose(self) -> list[Task]:
        """The tasks of the next pass of the network, those that wait taken out of the line."""
        with self.line.changed:
            self._sweep()
            batch = self._beside() if self.lanes.free else self._ahead()
            if not batch and self.lanes.settled:
                self.line.changed.wait(IDLE)
            fresh = [task for task in batch if task not in self.begun]
            self.line.take(fresh)
            self.begun.update({task: Begun() for task in fresh})
            return batch

    def _beside(self) -> list[Task]:
        """The first task that can be drawn now, and those that can beside it."""
        able = self._able()
        ordered = self.line.choose(able, self._busy) if able else []
        batch = ordered[:1]
        for task in ordered[1:] if batch and not self._single(batch[0]) else []:
            fits = len(batch) < self.room.batch and (len(batch) + 1) * batch[0].size <= self.room.tokens
            if self.room.polite and task.work > batch[0].work:
                continue
            if fits and task.wanted.batch_key == batch[0].wanted.batch_key and not self._single(task):
                batch.append(task)
        return batch

    def _ahead(self) -> list[Task]:
        """While all lanes compute: the task that will be first, if its prompt is still to be read."""
        ordered = self.line.order(self._able())
        if not ordered or ordered[0] in self.begun or self.line.apart(ordered[0], self._busy):
            return []
        return ordered[:1]

    def _able(self) -> list[Task]:
        """What could be worked on now."""
        room = len(self.begun) < self.room.begun and not self._stopping.is_set()
        ours = [task for task in self.line.waiting if task.wanted.model in self.pipelines] if room else []
        mine = [task for task in self.begun if task not in self._busy]
        return [task for task in (*mine, *ours) if self._may(task)]

    def _may(self, task: Task) -> bool:
        """Whether the network that it needs is free, or used in a way that it can share."""
        wanted, begun = task.wanted, self.begun.get(task)
        if begun is not None and begun.walked:
            return True
        walk = None if begun is None else begun.walk
        alone = walk is not None and walk.ask is not None and walk.ask.alone
        using = [one for one in self._passes if one.model == wanted.model]
        return all(one.loras == wanted.loras and not one.alone and not alone for one in using)

    def _single(self, task: Task) -> bool:
        begun = self.begun.get(task)
        return begun is not None and (begun.alone or begun.walked)

    def _sweep(self) -> None:
        for task in [*self.begun, *self.line.waiting]:
            if task not in self._busy and (error := task.over()):
                self._end(task, error=error)

    def _round(self, batch: list[Task]) -> None:
        """Prepare those that have just begun, and take all one step further."""
        for task in [task for task in batch if self.begun[task].walk is None]:
            with self._blamed(task):
                self._begin(task)
        if not self.lanes.free:
            return
        walks = {
            begun.walk: task
            for task in batch
            if (begun := self.begun.get(task)) and begun.walk and begun.walk.ask and task not in self._busy
        }
        if walks:
            self._advance(walks)
        elif (begun := self.begun.get(batch[0])) and begun.walked and begun.walk:
            self._decode(batch[0], begun.walk, begun.walk.x, begun.walk.grid, self._finish)

    def _advance(self, walks: dict[Walk, Task]) -> None:
        tasks, first = list(walks.values()), next(iter(walks))
        alone = first.ask is not None and first.ask.alone
        now = Pass(model=tasks[0].wanted.model, loras=tasks[0].wanted.loras, alone=alone)
        if alone and any(one.model == now.model for one in self._passes):
            return  # it was prepared beside a pass, and waits for its end
        self._adapt(tasks[0])
        self._passes.append(now)
        self._busy.update(tasks)

        def then(came: Came[list[tuple[Walk, State]]]) -> None:
            self._passes.remove(now)
            self._busy.difference_update(tasks)
            if came.value is None:
                self._failed(tasks, came.error)
            else:
                self._answered(walks, came.value, came.seconds)

        self.lanes.run(lambda: answers(list(walks)), then)

    def _failed(self, tasks: Sequence[Task], error: Exception | None) -> None:
        if isinstance(error, Deserted):
            return self._give_up(error)
        if len(tasks) == 1:
            return self._fail(tasks[0], error)
        for task in tasks:  # one of them may be to blame, or all together were too much
            self.begun[task].alone = True
        return None

    def _answered(self, walks: Mapping[Walk, Task], answered: Sequence[tuple[Walk, State]], seconds: float) -> None:
        self.report(len(answered), seconds)
        for walk, velocity in answered:
            task = walks[walk]
            self.line.spent(task, velocity.shape[1], seconds / len(answered))
            with self._blamed(task):
                self._adapt(task)  # a walk that goes on with another may read its prompt
                walk.answer(velocity)
                self._follow(task, walk)

    @contextmanager
    def _blamed(self, task: Task) -> Iterator[None]:
        """What goes wrong in here ends this task, and nothing else."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 the worker outlives every request
            self._fail(task, error)

    def _fail(self, task: Task, error: Exception | None) -> None:
        foreseen = isinstance(error, FluxoneError)
        told = {"told": {"job": task.wanted.id}}
        log.warning("job %s failed: %s", task.wanted.id, error, exc_info=None if foreseen else error, extra=told)
        self._end(task, error=error)

    def _begin(self, task: Task) -> None:
        pipeline, begun = self.pipelines[task.wanted.model], self.begun[task]
        self._adapt(task)
        task.begun = time.monotonic()
        request = task.wanted.request
        job = pipeline.prepare(request)
        task.steps = max(1, sum(steps for _, steps in passes(pipeline, request)) * (1 + len(request.then)))
        task.palette = self._palettes[task.wanted.model]
        begun.record = self._record(task)
        begun.walk = Walk(pipeline, job)

    def _follow(self, task: Task, walk: Walk) -> None:
        """Show how far it is."""
        before, task.done = task.done, walk.taken
        if walk.step is not None:
            task.seen = (walk.step.clean, walk.stepped)
        if walk.ask is not None and task.done > before and task.seen is not None and self._due(task):
            self._decode(task, walk, *task.seen, self._show)

    def _decode(
        self, task: Task, walk: Walk, x: State, grid: Grid, then: Callable[[Task, Image], None]
    ) -> None:
        request = task.wanted.request
        self._busy.add(task)

        def work() -> Image:
            (image,) = px.to_images(px.unit(walk.pipeline.decode(x, grid, tiled=request.ultra in TILED)))
            return walk.pipeline.finish(image, request)

        def made(came: Came[Image]) -> None:
            self._busy.discard(task)
            if came.value is None:
                self._fail(task, came.error)
            else:
                then(task, came.value)

        self.lanes.run(work, made)

    def _finish(self, task: Task, image: Image) -> None:
        record = self.begun[task].record
        assert record is not None, "it was prepared"
        self._end(task, drawn=Drawn(image=image, record=record, seconds=time.monotonic() - task.put))

    def _show(self, task: Task, image: Image) -> None:
        task.partial.append(image)
        task.watch(task)

    def _due(self, task: Task) -> bool:
        """Whether an unfinished picture is to be shown now: they come evenly over the steps."""
        wanted = task.wanted.partials
        return len(task.partial) < wanted and task.done * (wanted + 1) >= task.steps * (len(task.partial) + 1)

    def _record(self, task: Task) -> Record:
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
        if (begun := self.begun.pop(task, None)) and begun.walk:
            begun.walk.close()
        self.line.left(task)
        task.end(drawn=drawn, error=error)
