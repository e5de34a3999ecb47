"""The bar, the plain lines, and the time left."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from fluxone.cli.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ticking(seconds: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += seconds


def walked(stream: io.StringIO, total: int, pace: float, *, quiet: bool = False) -> str:
    clock = ticking(pace)
    progress = Progress(total, stream, quiet=quiet, clock=lambda: next(clock))
    for _ in range(total):
        progress.step()
    progress.clear()
    return stream.getvalue()


def test_elsewhere_a_line_now_and_then() -> None:
    assert walked(io.StringIO(), 8, 2.0).splitlines() == [
        "step 1/8",
        "step 4/8, 8.0 s left",
        "step 7/8, 2.0 s left",
        "step 8/8",
    ]


def test_on_a_terminal_one_line_that_is_wiped() -> None:
    shown = walked(Terminal(), 4, 30.0)
    lines = shown.split("\r\x1b[2K")
    assert lines[1].endswith(" step 1/4")
    assert lines[2].endswith(" step 2/4, 1 min 0 s left")
    assert lines[2].count("█") == 15
    assert lines[4].count("█") == 30
    assert lines[5] == ""
    assert "\n" not in shown


def test_quiet_is_quiet() -> None:
    assert walked(Terminal(), 3, 1.0, quiet=True) == ""
    assert walked(io.StringIO(), 3, 1.0, quiet=True) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (60, "1 min 0 s"), (7500, "2 h 5 min")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words
