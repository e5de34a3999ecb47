"""Threads that compute for a worker, so that passes of the network, decoding and preparing overlap.

    run(work, then)   work in a lane  ...  then(what it came to), in the worker's own thread, when that calls `settle`

PyTorch lets go of Python's lock inside its operations. On a CPU two passes with half of the cores each are faster than
one pass with all of them, the more so the smaller the network; a lane that is alone has all cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Came(Generic[T]):
    """What work came to: its result, or the error; and the seconds that it took."""

    value: T | None
    error: Exception | None
    seconds: float


class Lanes:
    """Lanes of one worker.

    Args:
        count: 0 computes in the worker's own thread.
        cores: that the lanes share; None leaves the number of torch's threads alone.
        changed: notified when something is done.
    """

    def __init__(self, count: int, cores: int | None, changed: threading.Condition) -> None:
        self.count, self.cores, self.changed = count, cores, changed
        self.busy = 0
        self._done: list[Callable[[], None]] = []
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lane") if count else None

    @property
    def free(self) -> bool:
        """Whether work would begin at once."""
        return self.busy < max(1, self.count)

    @property
    def settled(self) -> bool:
        """Whether `settle` has nothing to do."""
        return not self._done

    def run(self, work: Callable[[], T], then: Callable[[Came[T]], None]) -> None:
        """Let work be done, and let it be known."""
        self.busy += 1
        if self._pool is None:
            self._work(work, then)
        else:
            self._pool.submit(self._work, work, then)

    def settle(self) -> None:
        """Let all be known that is done."""
        with self.changed:
            done, self._done = self._done, []
        for one in done:
            self.busy -= 1
            one()

    def close(self) -> None:
        """Wait for the end of what is being done."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _work(self, work: Callable[[], T], then: Callable[[Came[T]], None]) -> None:
        if self.cores is not None and self._pool is not None:
            threads = max(1, self.cores // max(1, min(self.busy, self.count)))
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
        began = time.perf_counter()
        try:
            value, error = work(), None
        except Exception as found:  # noqa: BLE001 the worker outlives every request
            value, error = None, found
        came = Came(value=value, error=error, seconds=time.perf_counter() - began)
        with self.changed:
            self._done.append(lambda: then(came))
            self.changed.notify_all()
