"""Fine-tuning on the command line: what is asked for, what will be done, a bar while it is, and the files."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fluxone.cli import console
from fluxone.cli.progress import Progress
from fluxone.errors import BadRequest, UnknownName
from fluxone.recipe import Recipe

if TYPE_CHECKING:
    from fluxone.tune.plan import Plan
    from fluxone.tune.trainer import Tick

WHAT = ("lora", "character", "style", "product")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The command line's words."""

    what: str
    folder: Path
    out: Path
    model: str
    name: str
    class_word: str
    given: dict[str, Any]
    recipe: dict[str, Any]
    vram: float | None
    start: str | None
    prompts: tuple[str, ...]
    fresh: bool
    logo: Path | None = None


def go(asked: Asked, *, dry_run: bool, quiet: bool) -> None:
    """Do it, or say what would be done."""
    here = os.environ.get("LOCAL_RANK")
    device = f"cuda:{here}" if here is not None and asked.recipe["device"] == "cuda" else asked.recipe["device"]
    recipe = Recipe(**asked.recipe | {"device": device})
    from fluxone.parallel import leave
    from fluxone.train.group import join
    from fluxone.tune import plan as plans
    from fluxone.tune.workflow import carry_out

    _check(asked.given)
    group = join(device or "cpu")
    quiet = quiet or not group.first
    wish = plans.Wish(**{**vars(asked), "recipe": recipe})
    bar = _Bar(quiet)
    with _pausing(bar) as stop:
        plan = plans.prepare(wish, plans.Told(line=bar.line))
        if dry_run:
            _tell(plan)
            return
        for finding in plan.findings:
            bar.line(f"notice: {finding}")
        told = plans.Told(line=bar.line, tick=bar.tick, stop=stop)
        outcome = carry_out(plan, told, group)
    leave()
    bar.clear()
    if outcome is None:
        return
    for written in outcome.written:
        console.result(str(written.path))
    console.result(str(asked.out / "report.html"))


def _check(given: dict[str, Any]) -> None:
    """Refuse a setting that there is none of."""
    from dataclasses import fields

    from fluxone.tune.settings import Settings

    known = {field.name: str(field.type) for field in fields(Settings)}
    for name, value in given.items():
        if name not in known:
            raise UnknownName(f"there is no setting {name!r}", hint=f"known are {', '.join(known)}")
        if known[name] in ("int", "float") and not isinstance(value, int | float):
            raise BadRequest(f"{name} is {value!r}", hint="give a number")
        if known[name].startswith("tuple"):
            given[name] = tuple(value) if isinstance(value, list | tuple) else (value,)


def _tell(plan: Plan) -> None:
    """What would be done, as lines of result."""
    from fluxone.tune.beside import numbers

    settings = plan.settings
    console.result(f"{len(plan.trained)} pictures are trained on, {len(plan.held)} held out")
    for finding in plan.findings:
        console.result(f"{finding.level}: {finding}")
    console.table([("SETTING", "VALUE", "WHY"), *((r.name, str(r.value), r.why) for r in plan.reasons)])
    layers = len(plan.deltas)
    console.result(f"{settings.kind} beside {layers} layers, {numbers(plan.deltas):,} numbers")
    console.result(f"memory: {plan.memory}")
    console.result(f"{settings.steps} steps of {settings.batch}, looked at {settings.looks} times")
    for ending in ("", "-kohya"):
        console.result(f"writes {plan.wish.out / plan.title}{ending}.safetensors")
    console.result(f"writes {plan.wish.out / 'report.html'}")


class _Bar:
    """A bar of steps with the time left, and lines around it."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.progress: Progress | None = None

    def tick(self, tick: Tick, steps: int) -> None:
        """One more step."""
        if self.progress is None:
            self.progress = Progress(steps - tick.step + 1, sys.stderr, quiet=self.quiet)
        self.progress.step()

    def line(self, text: str) -> None:
        """A line above the bar."""
        self.clear()
        if not self.quiet:
            console.notice(text)

    def clear(self) -> None:
        """Wipe the bar."""
        if self.progress is not None:
            self.progress.clear()


@contextmanager
def _pausing(bar: _Bar) -> Iterator[Any]:
    """A context in which the first Ctrl-C lets the step end and saves; the second ends at once."""
    pressed: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)
        bar.line("pausing after this step; the same command goes on from there")

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
