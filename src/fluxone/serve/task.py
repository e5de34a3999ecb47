"""One picture on its way through the engine: what is wanted, how far it is, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxone.errors import FluxoneError
from fluxone.geometry import Resolution
from fluxone.provenance import Record
from fluxone.request import PICTURES, Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxone.preview import Palette
    from fluxone.sampling.samplers import State

Lora = tuple[str, float]  # file, strength
LARGER = 8  # times a step of ultra's first pass, one of its second: four times the picture, in tiles that overlap


class Cancelled(FluxoneError):
    """Somebody took the request back."""


class Expired(FluxoneError):
    """The request's deadline passed before its picture was there."""


class Stopped(FluxoneError):
    """The engine stopped before the picture was there."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A picture to be drawn.

    Attributes:
        model: name of a loaded model.
        request: resolved by that model, for one picture.
        owner: whose share of the device it uses; each owner gets as much as any other.
        priority: higher goes first.
        deadline: by `time.monotonic`, s.
        partials: unfinished pictures to be decoded on the way.
    """

    id: str
    model: str
    request: Request
    loras: tuple[Lora, ...] = ()
    owner: str = ""
    priority: int = 0
    deadline: float | None = None
    partials: int = 0

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Equal where pictures can be drawn side by side: whatever their prompts, seeds, steps and guidance."""
        request = self.request
        pictures = [getattr(request, name) or () for name in PICTURES]
        sizes = [[one.size for one in (group if isinstance(group, tuple) else (group,))] for group in pictures]
        how = (request.text_tokens, request.layout, request.auto_resize, request.expand, request.frame, str(sizes))
        return (self.model, self.loras, request.resolution, request.ultra, *how)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A finished picture and what made it."""

    image: Image
    record: Record
    seconds: float


Watch = Callable[["Task"], None]


class Task:
    """A picture in the engine. The worker writes, everybody else reads and may cancel.

    Args:
        watch: called by the worker when the task has ended, and after each unfinished picture; must be quick.

    Attributes:
        steps, done: noise levels to go down, and those that are behind it.
        put, begun: when it came, and when a worker began with it, by `time.monotonic`.
        came: its number in the line; overtaken: work of those that came later, done while it was there, in tokens.
        spent: work that it has cost so far, in tokens.
        seen: the picture as the model saw it during the last step, as tokens, with their rows and columns.
        partial: unfinished pictures, decoded.
        drawn, error: one of them when it has ended.
    """

    def __init__(self, wanted: Wanted, watch: Watch = lambda task: None) -> None:
        self.wanted = wanted
        self.watch = watch
        self.steps = steps_of(wanted.request)
        self.done = 0
        self.came = 0
        self.overtaken = 0.0
        self.spent = 0.0
        self.seen: tuple[State, tuple[int, int]] | None = None
        self.palette: Palette | None = None
        self.partial: list[Image] = []
        self.drawn: Drawn | None = None
        self.error: BaseException | None = None
        self.put = self.begun = time.monotonic()
        self.ended = threading.Event()
        self.cancelled = self.given = False

    @property
    def size(self) -> float:
        """Work of a step, in tokens; of ultra, of a step of its first pass."""
        request = self.wanted.request
        resolution = request.resolution or Resolution(height=16, width=16)
        passes = 2 if request.cfg > 1 else 1
        return passes * resolution.width * resolution.height / (256 if request.ultra is None else 1024)

    @property
    def work(self) -> float:
        """All work that it is, in tokens, about."""
        request = self.wanted.request
        first = (request.steps or 1) * (1 + len(request.then))
        second = 0 if request.ultra is None else LARGER * max(0, self.steps - first)
        return self.size * (first + second)

    @property
    def left(self) -> float:
        """Work that is left, in tokens, about."""
        return max(1.0, self.work - self.spent)

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return min(1.0, self.done / max(1, self.steps))

    def preview(self) -> Image | None:
        """The unfinished picture, one pixel a cell; None before the first step."""
        from fluxone.nn.tokens import unpack

        seen = self.seen
        if seen is None or self.palette is None:
            return None
        return self.palette.picture(unpack(seen[0], *seen[1])[0])

    def cancel(self) -> None:
        """Ask for it to be given up before its next step."""
        self.cancelled = True

    def give(self) -> None:
        """Leave it to another server, which has taken it."""
        self.given = True

    def over(self) -> FluxoneError | None:
        """Why it is to be given up, if it is."""
        if self.given:
            return Stopped("another server draws it")
        if self.cancelled:
            return Cancelled("the request was cancelled")
        if self.wanted.deadline is not None and time.monotonic() > self.wanted.deadline:
            return Expired("the request's deadline passed", hint="ask for fewer steps, or later")
        return None

    def end(self, *, drawn: Drawn | None = None, error: BaseException | None = None) -> None:
        """Say what came of it, once."""
        if self.ended.is_set():
            return
        self.drawn, self.error = drawn, error
        self.seen = None
        self.ended.set()
        self.watch(self)


def steps_of(request: Request) -> int:
    """Noise levels that a resolved request goes down, in all its walks; of a picture to start from, at most."""
    steps = request.steps or 1
    again = 0 if request.ultra is None else max(1, round(steps * (request.ultra_strength or 0.0)))
    return steps * (1 + len(request.then)) + again
