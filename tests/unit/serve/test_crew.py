"""Two processes share a worker's models: the same pictures as one makes, and nothing is lost with a process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from fluxone.assembly import assemble
from fluxone.errors import BadRequest, UnknownName
from fluxone.geometry import Resolution
from fluxone.lora.load import load_lora
from fluxone.nn.transformer import Flux
from fluxone.parallel import regroup, spread
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from fluxone.request import Region, Request
from fluxone.serve import cluster, crew
from fluxone.serve.engine import Engine
from fluxone.serve.metrics import Metrics
from fluxone.serve.parcel import pack, unpack
from fluxone.serve.run import engine_of
from fluxone.serve.serving import Serving
from fluxone.serve.settings import Settings
from fluxone.serve.task import Cancelled, Stopped, Task, Wanted
from fluxone.weights.save import save_folder
from unit.test_regions import half
from unit.tiny import TINY, bundle

ROOT = Path(__file__).parents[3]
WAIT = 120  # s, on a machine that is busy
LORA = "transformer.double_blocks.0.img_mlp.0"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("crew")
    made = bundle(folder / "words")
    save_folder(
        folder / "tiny", variant=made.variant, transformer=made.transformer, autoencoder=made.autoencoder, t5=made.t5,
        clip=made.clip, tokenizers=dict.fromkeys(("tokenizer", "tokenizer_2"), folder / "words"),
    )  # fmt: skip
    torch.manual_seed(3)
    height, width = made.transformer.double_blocks[0].img_mlp[0].weight.shape
    for name in ("style", "own"):
        factors = {f"{LORA}.lora_A.weight": torch.randn(2, width), f"{LORA}.lora_B.weight": torch.randn(height, 2)}
        save_file(factors, folder / f"{name}.safetensors")
    return Settings(
        models=(str(folder / "tiny"),), recipe={"adapters": [f"{folder / 'own.safetensors'}:0.2,1..0"]},
        devices=("cpu", "cpu"), parallel="ulysses", folder=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(settings: Settings) -> Pipeline:
    return assemble(settings.models[0], Recipe(device="cpu", adapters=tuple(settings.recipe["adapters"])))


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "src"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        engine = engine_of(settings, Metrics())
        engine.start()
        engine.wait_ready(WAIT)
        yield engine
        engine.stop(0)


def wish(alone: Pipeline, number: int, **fields: object) -> Wanted:
    own = {name: fields.pop(name) for name in ("loras",) if name in fields}
    given = {"prompt": "a red car", "resolution": Resolution(height=32, width=32), "steps": 3, "seed": number}
    return Wanted(id=str(number), model="tiny", request=alone.resolve(Request(**{**given, **fields})), **own)


def drawn(engine: Engine, *wishes: Wanted) -> list[Task]:
    with engine.line.changed:
        tasks = [Task(wish) for wish in wishes]
        for task in tasks:
            engine.submit(task)
    assert all(task.ended.wait(WAIT) for task in tasks)
    return tasks


def far(task: Task, alone: Pipeline) -> int:
    """How far a picture is from what one process makes."""
    assert task.error is None
    image = alone(task.wanted.request).images[0]
    return int(np.abs(np.asarray(task.drawn.image, dtype=int) - np.asarray(image, dtype=int)).max())


def test_two_processes_draw_what_one_draws(engine: Engine, alone: Pipeline) -> None:
    wide = Resolution(height=32, width=48)
    tasks = drawn(
        engine, wish(alone, 1, steps=4), wish(alone, 2, prompt="a fox in the snow", guidance=1.5),
        wish(alone, 3, sampler="heun", resolution=wide), wish(alone, 4, cfg=3.0, negative="blur"),
    )  # fmt: skip
    assert [far(task, alone) <= 1 for task in tasks] == [True] * 4


def test_a_lora_is_its_request_s_alone(engine: Engine, alone: Pipeline, settings: Settings) -> None:
    file = str(settings.folder / "style.safetensors")
    plain, worn, again = drawn(
        engine, wish(alone, 1), wish(alone, 1, loras=((file, 1.0),)), wish(alone, 1, loras=((file, 0.5),))
    )
    assert far(plain, alone) <= 1
    assert far(worn, alone) > 2 < far(again, alone)
    before = dict(alone.adapters.active)
    alone.adapters.load(load_lora(file), file)
    try:
        for task, scale in ((worn, 1.0), (again, 0.5)):
            alone.adapters.use({**before, file: replace(next(iter(before.values())), scale=scale, course=())})
            assert far(task, alone) <= 1
    finally:
        alone.adapters.drop(file)


def test_what_is_taken_back_ends_between_steps_and_what_is_not_shared_is_said(engine: Engine, alone: Pipeline) -> None:
    task = Task(wish(alone, 5, steps=50), lambda task: None)
    with engine.line.changed:
        engine.submit(task)
        task.cancel()
    assert task.ended.wait(WAIT) and isinstance(task.error, Cancelled)
    (task,) = drawn(engine, wish(alone, 6, regions=(Region(prompt="fox", mask=half(255, 0)),)))
    assert isinstance(task.error, BadRequest) and "no regions" in str(task.error)
    assert far(drawn(engine, wish(alone, 7))[0], alone) <= 1, "both processes are still in step"


def test_nothing_is_lost_with_a_process(engine: Engine, alone: Pipeline) -> None:
    (follower,) = engine.workers[0].crew._followers
    third = threading.Event()
    tasks = [Task(wish(alone, 8, steps=12)), Task(wish(alone, 9, steps=12))]
    make = engine.workers[0].crew.make

    def fall(call: crew.Call, own: object) -> torch.Tensor:
        if tasks[0].done == 3 and not third.is_set():
            third.set()
            follower.send_signal(signal.SIGSTOP)  # so that the call is in the middle when it ends
            threading.Timer(0.2, follower.kill).start()
        return make(call, own)

    engine.workers[0].crew.make = fall
    with engine.line.changed:
        for task in tasks:
            engine.submit(task)
    assert all(task.ended.wait(WAIT) for task in tasks) and third.is_set()
    assert [far(task, alone) <= 1 for task in tasks] == [True, True]
    del engine.workers[0].crew.make
    (other,) = engine.workers[0].crew._followers
    assert other is not follower and other.poll() is None and engine.state().ready


def test_a_worker_without_followers_leaves_its_tasks_to_others(
    engine: Engine, alone: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one: there is no engine after it."""
    monkeypatch.setattr(crew, "FOLLOWER", "fluxone.no_such_module")
    with engine.line.changed:
        tasks = [Task(wish(alone, n, steps=40)) for n in range(20)]
        for task in tasks:
            engine.submit(task)
        engine.workers[0].crew._followers[0].kill()
    assert all(task.ended.wait(WAIT) and isinstance(task.error, Stopped) for task in tasks)
    engine.workers[0].join(WAIT)
    assert "do not live" in str(engine.state().trouble) and not engine.state().ready
    assert not dist.is_initialized() and not engine.workers[0].crew._followers
    with pytest.raises(Stopped):
        engine.submit(Task(wish(alone, 1)))


def test_shared_weights_go_on_in_another_group() -> None:
    torch.manual_seed(0)
    network = Flux(TINY.shape).requires_grad_(False)
    img, txt, pooled = torch.randn(1, 4, 16), torch.randn(1, 3, 24), torch.randn(1, 16)
    given = (img, torch.zeros(4, 3), txt, torch.zeros(3, 3), torch.ones(1), pooled, torch.ones(1))
    alone = network(*given)
    for attempt in range(2):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            regroup(network, network.trunk) if attempt else spread(network, "tensor")
            torch.testing.assert_close(network(*given), alone)
        finally:
            dist.destroy_process_group()


def test_loras_beside_shared_weights_are_refused() -> None:
    fields = {"engine": None, "database": None, "jobs": None, "keys": None, "metrics": None}
    for parallel in ("tensor", "ulysses"):
        house = Serving(settings=Settings(parallel=parallel, finetunes={"tok": "tok.safetensors"}), **fields)
        if parallel == "ulysses":
            assert house.lora("tok", 0.5) == ("tok.safetensors", 0.5)
            continue
        with pytest.raises(BadRequest, match="weights are shared out"):
            house.lora("tok", 0.5)


def test_a_skeleton_has_holes_for_tensors() -> None:
    given = {"a": torch.ones(2, 3), "b": [torch.zeros((), dtype=torch.int64), "words"]}
    data, tensors = pack(given)
    assert len(tensors) == 2 and len(data) < 300
    made, holes = unpack(data, torch.device("cpu"))
    assert made["b"][1] == "words" and made["a"] is holes[0] and made["b"][0].dtype == torch.int64


@pytest.mark.parametrize("devices", [(), ("cuda:0",), ("cuda:0", "cuda:0"), ("cpu", "cuda:0"), ("mps", "mps")])
def test_devices_that_cannot_share_are_refused(devices: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest, match="name two or more of one kind"):
        Settings(parallel="ulysses", devices=devices).check()


def test_mistakes_are_said() -> None:
    with pytest.raises(UnknownName, match="did you mean 'ulysses'"):
        Settings(parallel="ulises", devices=("cpu", "cpu")).check()
    with pytest.raises(BadRequest, match="beside devices"):
        Settings(recipe={"parallel": "gather"}).recipe_of("mini", "cpu")
    shared = Settings(parallel="gather", devices=("cuda:0", "cuda:1"), replica_gpus=1.0)
    with pytest.raises(BadRequest, match="replica_gpus = 2"):
        cluster.options_of(shared)
    assert cluster.options_of(replace(shared, replica_gpus=2.0))["ray_actor_options"]["num_gpus"] == 2
    assert shared.recipe_of("mini", "cuda:0").parallel == "gather"
