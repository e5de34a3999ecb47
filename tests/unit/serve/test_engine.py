"""The engine: the same pictures as a pipeline's own, in fair order, and nobody's trouble is another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fluxone.errors import BrokenModel
from fluxone.geometry import Resolution
from fluxone.nn.controlnet import ControlNet
from fluxone.pipeline import Pipeline
from fluxone.request import Region, Request
from fluxone.serve.engine import Engine
from fluxone.serve.line import BURST, PATIENCE, TURN, Busy, Line
from fluxone.serve.task import Cancelled, Expired, Stopped, Task, Wanted
from fluxone.serve.walk import Walk, answers
from fluxone.serve.worker import Room
from fluxone.shapes import ControlNetShape
from fluxone.variants import Kind
from unit.test_regions import half
from unit.tiny import TINY, pipeline

SMALL = Resolution(height=32, width=32)
WIDE = Resolution(height=32, width=48)
LARGE = Resolution(height=64, width=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("tiny"), replace(TINY, takes=(Kind.REFERENCE,)))


@pytest.fixture
def start(model: Pipeline) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def go(*, passes: list[int] | None = None, **options: object) -> Engine:
        def report(pictures: int, seconds: float) -> None:
            if passes is not None:
                passes.append(pictures)

        engine = Engine([lambda: {"tiny": model}], report=report, **options)  # type: ignore[arg-type]
        engines.append(engine)
        engine.start()
        engine.wait_ready(60)
        return engine

    yield go
    for engine in engines:
        engine.stop(0)


def wanted(model: Pipeline, number: int = 0, **fields: object) -> Wanted:
    own = {name: fields.pop(name) for name in ("owner", "priority", "deadline", "partials") if name in fields}
    request = Request(**{"prompt": "a red car", "resolution": SMALL, "seed": number, **fields})  # type: ignore[arg-type]
    return Wanted(id=str(number), model="tiny", request=model.resolve(request), **own)  # type: ignore[arg-type]


def submit(engine: Engine, wish: Wanted, watch: Callable[[Task], None] = lambda task: None) -> Task:
    task = Task(wish, watch)
    engine.submit(task)
    return task


def held(engine: Engine) -> threading.Condition:
    """Nobody chooses while this is held, so all that is put meanwhile is there at once."""
    return engine.line.changed


@pytest.mark.parametrize("lanes", [0, 2])
def test_many_at_once_are_what_each_is_alone(model: Pipeline, start: Callable[..., Engine], lanes: int) -> None:
    passes: list[int] = []
    engine = start(passes=passes, room=Room(lanes=lanes, cores=2 if lanes else None))
    fox = Image.effect_noise((32, 32), 60).convert("RGB")
    wishes = [
        wanted(model, 1, steps=4),
        wanted(model, 2, steps=7, prompt="a fox in the snow", guidance=1.5),
        wanted(model, 3, steps=5, sampler="dpmpp_2m"),
        wanted(model, 4, steps=3, sampler="heun", resolution=WIDE),
        wanted(model, 5, steps=4, sampler="euler_ancestral"),
        wanted(model, 6, steps=4, cfg=3.0, negative="blur"),
        wanted(model, 7, steps=3, references=(fox,), auto_resize=False),
        wanted(model, 8, steps=3, references=(fox.rotate(90),), auto_resize=False, prompt="the house"),
        wanted(model, 9, steps=4, init=fox, strength=0.5),
        wanted(model, 10, steps=4, ultra="tiled", ultra_strength=0.5, resolution=LARGE),
        wanted(model, 11, steps=4, ultra="tiled", ultra_strength=0.5, resolution=LARGE, prompt="the house"),
        wanted(model, 12, steps=3, references=(fox,), auto_resize=False, then=("the house", "snow")),
        wanted(model, 13, steps=4, nag=3.0, negative="blur"),
        wanted(model, 14, steps=4, regions=(Region(prompt="fox", mask=half(255, 0)),)),
    ]
    with held(engine):
        tasks = [submit(engine, wish) for wish in wishes]
    assert all(task.ended.wait(60) for task in tasks)  # before the model is used here: nag changes it for the time
    for task in tasks:
        assert task.error is None
        alone = model(task.wanted.request).images[0]
        drawn = task.drawn.image
        assert np.abs(np.asarray(drawn, dtype=int) - np.asarray(alone, dtype=int)).max() <= 1
        assert task.drawn.record.request.seed == task.wanted.request.seed
        assert task.done == task.steps
    assert tasks[9].steps == 4 + 2
    assert tasks[11].steps == 3 * 3
    assert max(passes) >= 3
    assert sum(passes) > len(passes)


def test_batched_latents_are_equal_to_the_fifth_digit(model: Pipeline) -> None:
    requests = [wanted(model, n, steps=2 + n).request for n in range(3)]
    walks = [Walk(model, model.prepare(request)) for request in requests]
    passes = 0
    while any(walk.ask for walk in walks):
        for walk, velocity in answers(walks):
            walk.answer(velocity)
        passes += 1
    assert passes == 4  # the longest: the others joined its passes
    for walk, request in zip(walks, requests, strict=True):
        *_, last = model.steps(request)
        torch.testing.assert_close(walk.x, last.x, rtol=0, atol=1e-5)


def test_a_short_request_overtakes_a_long_one(model: Pipeline, start: Callable[..., Engine]) -> None:
    engine = start(room=Room(batch=1))
    long = submit(engine, wanted(model, 1, steps=400))
    while long.done < 3:
        time.sleep(0.001)
    at = long.done
    short = submit(engine, wanted(model, 2, steps=4))
    assert short.ended.wait(30)
    assert not long.ended.is_set()
    assert long.done - at < 40, "it waited behind the long one"
    long.cancel()
    assert long.ended.wait(30)
    assert isinstance(long.error, Cancelled)


def line_of(*tasks: Task) -> Line:
    line = Line(limit=100)
    for task in tasks:
        line.put(task)
    return line


def order(line: Line, tasks: list[Task]) -> list[str]:
    return [task.wanted.id for task in line.order(tasks)]


def test_the_order(model: Pipeline) -> None:
    long, short = Task(wanted(model, 1, steps=28)), Task(wanted(model, 2, steps=4))
    first = Task(wanted(model, 3, steps=28, priority=1))
    tasks = [long, short, first]
    line = line_of(*tasks)
    assert order(line, tasks) == ["3", "2", "1"]
    chosen = []
    for _ in range(round(PATIENCE * 28) + 3 * TURN):
        task = line.choose([long, short])[0]
        line.spent(task, task.size, 1.0)
        chosen.append(task.wanted.id)
    assert "1" not in chosen[: round(PATIENCE * 28)], "it is patient for a while"
    assert chosen.count("1") == 3, "then now and again whoever came first, so that nobody waits for ever"


def test_owners_share(model: Pipeline) -> None:
    greedy = [Task(wanted(model, n, steps=4, owner="greedy")) for n in range(40)]
    other = Task(wanted(model, 99, steps=28, owner="other"))
    line = line_of(*greedy, other)
    waiting, drawn = [*greedy, other], []
    while waiting:
        task = line.order(waiting)[0]
        line.spent(task, task.size, 1.0)
        task.done += 1
        if task.done == task.steps:
            waiting.remove(task)
            line.left(task)
            drawn.append(task.wanted.id)
    assert BURST / 4 <= drawn.index("99") <= BURST / 4 + 8, "after the greedy one's burst they take turns"


def test_a_full_line_says_when_to_come_again(model: Pipeline) -> None:
    line = Line(limit=1)
    line.put(Task(wanted(model, 1, steps=4)))
    line.speed = 2.0
    with pytest.raises(Busy) as caught:
        line.put(Task(wanted(model, 2)))
    assert caught.value.retry_after == round(4 * 32 * 32 / 256 / 2 + 0.5)
    line.put(Task(wanted(model, 3)), always=True)
    assert len(line.waiting) == 2


def test_deadlines_and_stopping(model: Pipeline, start: Callable[..., Engine]) -> None:
    engine = start(room=Room(batch=1))
    late = submit(engine, wanted(model, 1, steps=900, deadline=time.monotonic() + 0.2))
    assert late.ended.wait(30)
    assert isinstance(late.error, Expired)
    assert 0 < late.done < 900
    long = [submit(engine, wanted(model, n, steps=900)) for n in (2, 3)]
    while not any(task.done for task in long):
        time.sleep(0.001)
    engine.stop(drain=0)
    assert [type(task.error) for task in long] == [Stopped, Stopped]
    with pytest.raises(Stopped):
        submit(engine, wanted(model, 4))


def test_trouble_ends_one_request(
    model: Pipeline, start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start()
    stride = Pipeline.stride

    def broken(self: Pipeline, job: object, velocities: object) -> object:
        for step in stride(self, job, velocities):  # type: ignore[arg-type]
            if job.guidance == 7.0:  # type: ignore[attr-defined]
                raise BrokenModel("it broke")
            yield step

    monkeypatch.setattr(Pipeline, "stride", broken)
    with held(engine):
        tasks = [submit(engine, wanted(model, n, steps=3, guidance=7.0 if n == 1 else 3.0)) for n in range(3)]
    for task in tasks:
        assert task.ended.wait(30)
    assert [type(task.error) for task in tasks] == [type(None), BrokenModel, type(None)]


def test_a_batch_that_is_too_much_is_drawn_one_by_one(
    model: Pipeline, start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start()
    predict = model.transformer.predict

    def small(img: torch.Tensor, *rest: object) -> torch.Tensor:
        if len(img) > 1:
            raise torch.OutOfMemoryError("too much")
        return predict(img, *rest)

    monkeypatch.setattr(model.transformer, "predict", small)
    with held(engine):
        tasks = [submit(engine, wanted(model, n, steps=2)) for n in range(3)]
    for task in tasks:
        assert task.ended.wait(30)
        assert task.error is None


def test_progress_preview_and_unfinished_pictures(model: Pipeline, start: Callable[..., Engine]) -> None:
    engine = start()
    seen: list[tuple[int, int, tuple[int, int] | None]] = []

    def watch(task: Task) -> None:
        preview = task.preview()
        seen.append((task.done, len(task.partial), None if preview is None else preview.size))

    task = submit(engine, wanted(model, 1, steps=8, partials=3), watch)
    assert task.ended.wait(30)
    assert seen == [(2, 1, (4, 4)), (4, 2, (4, 4)), (6, 3, (4, 4)), (8, 3, None)]
    assert [image.size for image in task.partial] == [(32, 32)] * 3
    assert task.progress == 1


def test_a_model_that_cannot_load_is_trouble() -> None:
    def load() -> dict[str, Pipeline]:
        raise BrokenModel("no such thing")

    engine = Engine([load])
    engine.start()
    with pytest.raises(BrokenModel):
        engine.wait_ready(10)
    assert engine.state().trouble == "no such thing"
    assert not engine.state().ready
    engine.stop(0)


def test_an_adapter_works_for_its_request_alone(
    model: Pipeline, start: Callable[..., Engine], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    name = "transformer.double_blocks.0.img_mlp.0"
    torch.manual_seed(3)
    height, width = model.transformer.double_blocks[0].img_mlp[0].weight.shape
    file = tmp_path / "style.safetensors"
    factors = {f"{name}.lora_A.weight": torch.randn(2, width), f"{name}.lora_B.weight": torch.randn(height, 2)}
    save_file(factors, file)
    engine = start()
    plain = wanted(model, 1, steps=3)
    alone = model(plain.request).images[0]
    with held(engine):
        tasks = [submit(engine, wish) for wish in (plain, replace(plain, id="2", loras=((str(file), 1.0),)))]
    for task in tasks:
        assert task.ended.wait(30)
        assert task.error is None
    one, other = (np.asarray(task.drawn.image, dtype=int) for task in tasks)
    assert np.abs(one - np.asarray(alone, dtype=int)).max() <= 1
    assert np.abs(other - one).max() > 2
    assert "lora" in " ".join(tasks[1].drawn.record.hashes)


def test_a_model_that_is_steered(tmp_path: Path) -> None:
    """A ControlNet changes the network for the time of a call: such requests share no pass, and lanes wait for it."""
    from safetensors.torch import save_file

    steered = pipeline(tmp_path / "words")
    torch.manual_seed(1)
    file = tmp_path / "net.safetensors"
    shape = replace(TINY.shape, double_blocks=1, single_blocks=1)
    save_file(ControlNet(ControlNetShape(flux=shape)).state_dict(), file)
    steered.steering.load_controlnet(file, "net", 2.0)
    passes: list[int] = []
    room = Room(lanes=2, cores=2)
    engine = Engine([lambda: {"tiny": steered}], report=lambda n, s: passes.append(n), room=room)
    engine.start()
    engine.wait_ready(60)
    hint = Image.effect_noise((32, 32), 60).convert("RGB")
    with held(engine):
        tasks = [submit(engine, wanted(steered, n, steps=3, hints=(hint,), cfg=1.0 + n)) for n in range(3)]
    assert all(task.ended.wait(60) for task in tasks)
    engine.stop(0)
    assert set(passes) == {1}
    for task in tasks:
        assert task.error is None
        alone = steered(task.wanted.request).images[0]
        assert np.array_equal(np.asarray(task.drawn.image), np.asarray(alone))
