"""An engine without networks: pictures of one colour, told by the seed, at once or when they are let go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from PIL import Image

from fluxone.errors import pick
from fluxone.provenance import Record
from fluxone.request import Request, check_pictures, given_by
from fluxone.serve.engine import Beside, State
from fluxone.serve.task import Drawn, Task
from fluxone.variants import MINI, Variant

SMALL = replace(MINI, size=128, raw="krea")  # whatever the mini is made for


class Fake:
    """Attributes: tasks: all that came, in order; held: whether they wait for `go`."""

    def __init__(self, variants: Mapping[str, Variant] | None = None, *, held: bool = False) -> None:
        self.table = dict(variants or {"mini": SMALL})
        self.held = held
        self.nets: dict[str, Beside] = {}
        self.tasks: list[Task] = []
        self.now = State(ready=True)

    def variants(self) -> Mapping[str, Variant]:
        return self.table

    def beside(self, model: str) -> Beside:
        return self.nets.get(model, Beside())

    def resolve(self, model: str, request: Request) -> Request:
        variant = pick(self.table, model, "model")
        check_pictures(variant, given_by(request))
        return request.resolve(variant)

    def submit(self, task: Task, *, always: bool = False) -> None:
        self.tasks.append(task)
        if not self.held:
            self.go(task)

    def go(self, task: Task | None = None, *, error: BaseException | None = None) -> None:
        for one in [task] if task else list(self.tasks):
            if one.over():
                one.end(error=one.over())
            elif error is not None:
                one.end(error=error)
            else:
                one.end(drawn=self.drawn(one))

    def drawn(self, task: Task) -> Drawn:
        request = task.wanted.request
        size = request.frame or request.resolution
        image = Image.new("RGB", (size.width, size.height), colour(request.seed))
        while len(task.partial) < task.wanted.partials:
            task.partial.append(image)
            task.watch(task)
        task.done = task.steps
        return Drawn(image=image, record=Record(request=request, model=task.wanted.model), seconds=0.5)

    def state(self) -> State:
        return self.now

    def stop(self, drain: float) -> None:
        self.held = True


def colour(seed: int) -> tuple[int, int, int]:
    return seed % 251, seed // 251 % 251, 128
