"""The line in which tasks wait, and the order in which they are worked on.

    first by priority; then by owner, who is behind with its share; then by the work that it is, least first; among
    equals whoever has least left

So a request of four steps never waits behind one of twenty-eight, whoever came first and however near its end, nor
shares the cores with it: what is far more work is not begun beside it. Who was overtaken by several times its own work
has a turn every few choices, so that nobody is passed for ever. Work is counted in tokens.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from fluxone.errors import FluxoneError
from fluxone.serve.task import Task

BURST = 64  # steps that one owner may be ahead of another before shares count
PATIENCE = 2.0  # times its own work by which a task is overtaken before it has turns
TURN = 16  # every so many choices one goes to the task that came first, of those that are out of patience
APART = 2.0  # times the work of another from which a task waits for it rather than sharing its cores
LEAST_WAIT = 1  # s


class Busy(FluxoneError):
    """The line is full.

    Attributes:
        retry_after: s, after which there is likely to be room.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, hint=f"try again in {retry_after} s")
        self.retry_after = retry_after


class Line:
    """Tasks that nobody has begun yet, shared by all workers.

    Args:
        limit: tasks that may wait.

    Attributes:
        changed: held by whoever looks at the line; notified when something came.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: list[Task] = []
        self.changed = threading.Condition()
        self.speed = 0.0  # tokens a second, lately, of one worker
        self._choices = 0  # since the last turn
        self._came = 0
        self._used: dict[str, float] = {}
        self._live: Counter[str] = Counter()
        self._all: dict[Task, None] = {}  # waiting or begun

    def put(self, task: Task, *, always: bool = False) -> None:
        """Let a task wait.

        Args:
            always: even if the line is full: it was accepted before.

        Raises:
            Busy: the line is full.
        """
        with self.changed:
            if len(self.waiting) >= self.limit and not always:
                raise Busy(f"{len(self.waiting)} requests are waiting", self.wait())
            owner = task.wanted.owner
            if not self._live[owner]:
                others = [self._used[name] for name, count in self._live.items() if count and name != owner]
                self._used[owner] = max(self._used.get(owner, 0.0), min(others, default=0.0))
            self._live[owner] += 1
            self._came += 1
            task.came = self._came
            self._all[task] = None
            self.waiting.append(task)
            self.changed.notify_all()

    def wait(self) -> int:
        """Seconds until a place in the line is likely to be free."""
        with self.changed:
            shortest = min((task.left for task in self.waiting), default=0.0)
        return LEAST_WAIT if not self.speed else max(LEAST_WAIT, round(shortest / self.speed + 0.5))

    def order(self, tasks: Collection[Task]) -> list[Task]:
        """The tasks, those to be worked on first in front."""
        return sorted(tasks, key=self._rank(tasks))

    def _rank(self, tasks: Collection[Task]) -> Callable[[Task], tuple[float, float, float, float]]:
        quantum = BURST * max((task.size for task in tasks), default=1.0)
        least = min((self._used.get(task.wanted.owner, 0.0) for task in tasks), default=0.0)

        def rank(task: Task) -> tuple[float, float, float, float]:
            ahead = (self._used.get(task.wanted.owner, 0.0) - least) // quantum
            return -task.wanted.priority, ahead, task.work, task.left

        return rank

    def choose(self, tasks: Collection[Task], beside: Collection[Task] = ()) -> list[Task]:
        """The tasks in order for the next pass of a network; none if the first is to wait for those beside it."""
        ordered = self.order(tasks)
        passed = [task for task in ordered if task.overtaken > PATIENCE * task.work]
        if passed and self._choices >= TURN - 1:
            self._choices = 0
            oldest = min(passed, key=lambda task: (-task.wanted.priority, task.came))
            return [oldest, *(task for task in ordered if task is not oldest)]
        if not ordered or self.apart(ordered[0], beside):
            return []
        self._choices += 1
        return ordered

    def apart(self, task: Task, beside: Collection[Task]) -> bool:
        """Whether a task is to wait for others that are being worked on: they go first, and are far less work."""
        rank = self._rank([task, *beside])
        return any(rank(other)[:2] <= rank(task)[:2] and APART * other.work <= task.work for other in beside)

    def take(self, tasks: Sequence[Task]) -> None:
        """Begin with these: they wait no more."""
        self.waiting = [task for task in self.waiting if task not in tasks]

    def spent(self, task: Task, tokens: float, seconds: float) -> None:
        """Count what a task had of a pass of a network: its tokens, and its share of the seconds."""
        with self.changed:
            task.spent += tokens
            for other in self._all:
                if other.came < task.came:
                    other.overtaken += tokens
            owner = task.wanted.owner
            self._used[owner] = self._used.get(owner, 0.0) + tokens
            now = tokens / max(seconds, 1e-6)
            self.speed = now if not self.speed else 0.9 * self.speed + 0.1 * now

    def left(self, task: Task) -> None:
        """Forget a task that has ended; owners without any are forgotten with it, but not their share of today."""
        with self.changed:
            self.waiting = [other for other in self.waiting if other is not task]
            self._all.pop(task, None)
            self._live[task.wanted.owner] -= 1
            if not +self._live:
                self._live.clear()
                self._used.clear()
