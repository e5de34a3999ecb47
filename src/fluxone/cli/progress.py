"""How far the work is and how long it still takes: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

PLAIN_EVERY = 5.0  # seconds between plain lines
BAR = 30  # characters


class Progress:
    """Counts steps up to `total` and tells the stream; nothing if `quiet`.

    The first step is not counted into the pace: it pays for what happens only once.
    """

    def __init__(
        self, total: int, stream: TextIO, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self.stream = stream
        self.quiet = quiet
        self.live = stream.isatty()
        self._clock = clock
        self._done = 0
        self._first = 0.0
        self._spoke = -PLAIN_EVERY
        self._drawn = False

    def step(self) -> None:
        """One more step is done."""
        now = self._clock()
        self._done += 1
        if self._done == 1:
            self._first = now
        if self.quiet:
            return
        if self.live:
            self._draw(self._bar(now))
        elif self._done in (1, self.total) or now - self._spoke >= PLAIN_EVERY:
            self._spoke = now
            self._write(f"{self._count()}{self._left(now)}\n")

    def clear(self) -> None:
        """Wipe the bar, so that other lines can be written where it was."""
        if self._drawn:
            self._write("\r\x1b[2K")
            self._drawn = False

    def _draw(self, line: str) -> None:
        self._write(f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}")
        self._drawn = True

    def _bar(self, now: float) -> str:
        full = BAR * self._done // self.total
        return f"{'█' * full}{'░' * (BAR - full)} {self._count()}{self._left(now)}"

    def _count(self) -> str:
        return f"step {self._done}/{self.total}"

    def _left(self, now: float) -> str:
        if self._done < 2 or self._done == self.total:
            return ""
        pace = (now - self._first) / (self._done - 1)
        return f", {duration(pace * (self.total - self._done))} left"

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.8 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
