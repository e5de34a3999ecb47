"""What a short request waits for beside long ones, in lanes whose time is counted, not measured.

A step of a picture takes one unit of time on all cores, two on half of them; so does decoding.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest

from fluxone.pipeline import Pipeline
from fluxone.serve.lanes import Came
from fluxone.serve.line import APART, PATIENCE, TURN, Line
from fluxone.serve.task import Task, Wanted
from fluxone.serve.walk import Walk
from fluxone.serve.worker import Room, Worker
from unit.serve.test_engine import SMALL, wanted
from unit.tiny import pipeline

SHORT, LONG = 4, 20
POLITE = Room(batch=2, polite=True, lanes=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("tiny"))


class Counted:
    """Lanes in which work is done at once, and its time is counted: `Lanes` to a worker."""

    def __init__(self, count: int) -> None:
        self.count, self.now, self.busy = count, 0.0, 0
        self.running: list[tuple[float, int, Callable[[], None]]] = []
        self.settled = False  # nobody waits here for what is to come
        self.widest = 0
        self._order = itertools.count()

    @property
    def free(self) -> bool:
        return self.busy < self.count

    def run(self, work: Callable[[], object], then: Callable[[Came], None]) -> None:
        assert self.free, "work waits in the line, where it can be overtaken"
        self.busy += 1
        self.widest = max(self.widest, self.busy)
        value = work()
        pictures = len(value) if isinstance(value, list) else 1
        came = Came(value=value, error=None, seconds=1.0)
        heapq.heappush(self.running, (self.now + pictures * self.busy, next(self._order), lambda: then(came)))

    def advance(self) -> None:
        """Go on to the next end of something."""
        self.now, _, then = heapq.heappop(self.running)
        self.busy -= 1
        then()


class Clock:
    """A worker, and when its tasks came and ended."""

    def __init__(self, model: Pipeline, room: Room = POLITE) -> None:
        self.line = Line(1000)
        self.worker = Worker("w", dict, self.line, room, lambda pictures, seconds: None)
        self.worker.pipelines, self.worker._own = {"tiny": model}, {"tiny": {}}
        self.worker._palettes = dict.fromkeys(["tiny"])
        self.lanes = self.worker.lanes = Counted(room.lanes)
        self.took: dict[str, float] = {}

    def put(self, wish: Wanted, watch: Callable[[Task], None] = lambda task: None) -> Task:
        began = self.lanes.now

        def ended(task: Task) -> None:
            if task.ended.is_set():
                self.took[task.wanted.id] = self.lanes.now - began
                watch(task)

        task = Task(wish, ended)
        self.line.put(task)
        return task

    def until(self, over: Callable[[], bool]) -> None:
        """Go on until it is over, or nothing is left to do."""
        while not over():
            if batch := self.worker._choose():
                self.worker._round(batch)
            elif self.lanes.running:
                self.lanes.advance()
            else:
                return


def test_a_short_request_beside_long_ones_takes_as_long_as_alone_and_one_pass(model: Pipeline) -> None:
    alone = Clock(model)
    alone.put(wanted(model, 1, steps=SHORT))
    alone.until(lambda: bool(alone.took))
    assert alone.took == {"1": SHORT + 1}, "its steps and decoding, on all cores"
    clock, numbers = Clock(model), itertools.count(100)

    def again(task: Task) -> None:
        clock.put(wanted(model, next(numbers), steps=LONG), again)

    for _ in range(8):
        again(None)
    worst = 0.0
    for n in range(12):
        since = clock.lanes.now
        clock.until(lambda since=since, n=n: clock.lanes.now >= since + 3 + 0.4 * n)
        clock.put(wanted(model, n, steps=SHORT))
        clock.until(lambda n=n: str(n) in clock.took)
        worst = max(worst, clock.took[str(n)])
    # Two passes of two long ones each, on half the cores, are under way when it comes. It waits for the first to end,
    # and its own first step shares the cores with the other. Where it shares them all the time it takes 10 to 12.
    assert worst <= SHORT + 1 + 3
    assert any(int(name) >= 100 for name in clock.took), "long ones came to their end meanwhile"


def test_lanes_are_shared_by_equals(model: Pipeline) -> None:
    clock = Clock(model)
    for n in range(4):
        clock.put(wanted(model, n, steps=SHORT + n))
    clock.until(lambda: len(clock.took) == 4)
    assert clock.lanes.widest == 2
    assert max(clock.took.values()) == clock.lanes.now <= (4 * SHORT + 6 + 4) * 1.3


def test_what_is_much_more_work_waits_apart(model: Pipeline) -> None:
    clock = Clock(model)
    short = clock.put(wanted(model, 1, steps=SHORT))
    clock.until(lambda: short in clock.worker._busy)
    clock.put(wanted(model, 2, steps=round(APART * SHORT)))
    clock.until(lambda: "1" in clock.took)
    assert clock.took["1"] == SHORT + 1
    urgent, later = Clock(model), Clock(model)
    for clock, priority in ((urgent, 1), (later, 0)):
        clock.put(wanted(model, 1, steps=SHORT))
        clock.until(lambda clock=clock: bool(clock.lanes.running))
        clock.put(wanted(model, 2, steps=LONG, priority=priority))
        clock.until(lambda clock=clock: len(clock.took) == 2)
    assert urgent.took["1"] > later.took["1"] == SHORT + 1, "what has priority shares the cores at once"


def test_a_long_request_among_short_ones_comes_to_its_end(model: Pipeline) -> None:
    clock, numbers = Clock(model), itertools.count(100)
    long = clock.put(wanted(model, 1, steps=6))

    def again(task: Task) -> None:
        clock.put(wanted(model, next(numbers), steps=2), again)

    for _ in range(5):
        again(None)
    clock.until(lambda: long.overtaken > PATIENCE * long.work)
    assert clock.lanes.now >= PATIENCE * 6 / 2, "it has been patient"
    patient, done = clock.lanes.now, long.done
    clock.until(lambda: "1" in clock.took)
    passes = (6 - done + 1) * (TURN + 1)
    assert clock.lanes.now - patient <= 2 * passes * 2, "every so many passes, of two pictures at most, are its own"
    clock.until(lambda: len(clock.took) > 3)


def test_a_prompt_is_read_while_all_lanes_compute(model: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(model)
    for n in range(2):
        clock.put(wanted(model, n, steps=LONG + n, resolution=SMALL))
        clock.until(lambda n=n: len(clock.lanes.running) == n + 1)
    read: list[float] = []
    prepare = Pipeline.prepare
    monkeypatch.setattr(Pipeline, "prepare", lambda *told: read.append(clock.lanes.now) or prepare(*told))
    came = clock.lanes.now
    clock.put(wanted(model, 2, steps=SHORT))
    clock.put(wanted(model, 3, steps=SHORT))
    clock.until(lambda: "2" in clock.took)
    assert read[0] == came, "no lane was free"
    assert isinstance(next(iter(clock.worker.begun.values())).walk, Walk)
