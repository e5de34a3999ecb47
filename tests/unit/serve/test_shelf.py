"""Where files lie: a folder, or a place of fsspec's; never half a file, and a place that is away is waited for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from starlette.testclient import TestClient

from fluxone.errors import BadRequest, CannotWrite
from fluxone.request import Request
from fluxone.serve.jobs import Jobs
from fluxone.serve.shelf import Away, Disk, Remote, Shelf
from fluxone.serve.store import FOLDERS, Store
from unit.serve.conftest import wait
from unit.serve.fake import Fake, colour
from unit.serve.test_jobs import ME, order

JOB = "00000000-0000-0000-0000-000000000000"
Server = Callable[..., TestClient]


@pytest.fixture
def url() -> Iterator[str]:
    """A bucket of this test's own, in memory."""
    name = uuid.uuid4().hex
    yield f"memory://{name}/flux"
    with suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


@pytest.fixture(params=["disk", "memory", "file"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> Shelf:
    if request.param == "disk":
        return Disk(tmp_path, FOLDERS)
    return Remote(url if request.param == "memory" else f"file://{tmp_path}/remote", {}, FOLDERS)


def test_every_place_is_the_same_place(shelf: Shelf) -> None:
    began = time.time()
    assert shelf.read("results/a.png") is None
    assert shelf.names("results") == []
    shelf.write("results/a.png", b"one")
    shelf.write("results/a.png", b"two")
    assert shelf.read("results/a.png") == b"two"
    assert shelf.names("results") == ["results/a.png"], "and nothing of how it came there"
    assert began - 2 < shelf.changed("results/a.png") < time.time() + 2
    assert shelf.changed("results/b.png") is None
    for data in (b"first", b"second"):
        shelf.write_new("secret", data)
    assert shelf.read("secret") == b"first"
    for _ in range(2):
        shelf.drop("results/a.png")
    assert shelf.names("results") == []


def test_a_store_on_any_place(shelf: Shelf) -> None:
    store = Store(shelf)
    assert Store(shelf).signature("x", 1) == store.signature("x", 1), "one secret for all servers"
    noise = [Image.effect_noise((32, 32), 60 + n).convert("RGB") for n in range(12)]
    store.keep_inputs(JOB, Request(init=noise[0], references=tuple(noise)))
    found = store.read_inputs(JOB)
    assert (np.asarray(found["init"]) == np.asarray(noise[0])).all()
    assert [image.tobytes() for image in found["references"]] == [image.tobytes() for image in noise]
    shelf.write(f"results/{JOB}.png", b"x")
    store.sweep({JOB}, time.time() + 9)
    assert len(shelf.names("inputs")) == 13
    store.sweep(set(), time.time() - 9)
    assert len(shelf.names("inputs")) == 13
    store.drop_inputs(JOB)
    assert shelf.names("inputs") == []
    store.sweep(set(), time.time() + 9)
    assert shelf.names("results") == []


def test_a_server_whose_results_lie_elsewhere(server: Server, tmp_path: Path, url: str) -> None:
    client = server(storage=url)
    reply = client.post("/v1/flux-dev", json={"prompt": "x", "seed": 7, "output_format": "png"}).json()
    final = wait(client, reply["polling_url"])
    picture = client.get(final["result"]["sample"])
    assert picture.headers["content-type"] == "image/png"
    assert fsspec.filesystem("memory").cat_file(f"{url}/results/{reply['id']}.png") == picture.content
    assert not (tmp_path / "results").exists()
    body = {"prompt": "x", "seed": 7, "response_format": "b64_json"}
    assert client.post("/v1/images/generations", json=body).json()["data"][0]["b64_json"]
    fsspec.filesystem("memory").rm(f"{url}/results", recursive=True)
    assert client.get(final["result"]["sample"]).status_code == 404


def test_a_place_that_is_away_is_waited_for(server: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluxone.serve.jobs.RETRY", 0.01)
    engine = Fake(held=True)
    client = server(engine, storage=url)
    jobs: Jobs = client.app.state.serving.jobs
    task = client.post("/v1/flux-dev", json={"prompt": "x", "seed": 7, "output_format": "png"}).json()
    tries = []
    move, read = MemoryFileSystem.mv, MemoryFileSystem.cat_file

    def away(self: MemoryFileSystem, *told: object, **more: object) -> None:
        tries.append(told)
        if len(tries) < 4:
            raise ConnectionError("no way there")
        move(self, *told, **more)

    monkeypatch.setattr(MemoryFileSystem, "mv", away)
    engine.go()
    final = wait(client, task["polling_url"])
    assert final["status"] == "Ready"
    assert len(tries) == 4
    assert jobs.store.shelf.names("results") == [f"results/{task['id']}.png"], "no half file is left"
    assert Image.open(fsspec.open(f"{url}/results/{task['id']}.png").open()).getpixel((0, 0)) == colour(7)

    def unread(self: MemoryFileSystem, *told: object, **more: object) -> bytes:
        raise ConnectionError("no way there")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", unread)
    reply = client.get(final["result"]["sample"])
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    with pytest.raises(Away, match="no way there"):
        jobs.store.read(task["id"], "png")
    monkeypatch.setattr(MemoryFileSystem, "cat_file", read)
    assert client.get(final["result"]["sample"]).status_code == 200


def test_a_job_whose_pictures_are_away_is_not_given_up(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = server(Fake(held=True), storage=url, name="one").app.state.serving
    picture = Image.effect_noise((64, 64), 60).convert("RGB")
    row = held.jobs.accept(order(init=picture), ME)
    other = server(Fake(held=True), storage=url, name="other").app.state.serving.jobs
    now = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: now)

    def away(job: str) -> dict:
        raise Away("no way there")

    with monkeypatch.context() as patch:
        patch.setattr(other.store, "read_inputs", away)
        other.leases.resume()
    assert other.find(row["id"])["status"] == "pending"
    assert row["id"] not in other.live
    now += 60
    assert other.leases.resume() == 1
    assert row["id"] in other.live


def test_a_folder_that_is_taken_away_is_no_failure_of_jobs_that_are_done(server: Server, tmp_path: Path) -> None:
    engine = Fake(held=True)
    client = server(engine)
    url = client.post("/v1/flux-dev", json={"prompt": "x"}).json()["polling_url"]
    (tmp_path / "inputs").rmdir()
    engine.go()
    assert wait(client, url)["status"] == "Ready"
    (tmp_path / "inputs").write_text("no folder any more")
    url = client.post("/v1/flux-dev", json={"prompt": "x"}).json()["polling_url"]
    engine.go()
    assert wait(client, url)["status"] == "Ready"


def test_places_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequest, match="nonsense://a/b"):
        Remote("nonsense://user:secret@a/b", {}, FOLDERS)
    with pytest.raises(CannotWrite):
        Disk(tmp_path / "file" / "x", FOLDERS) if (tmp_path / "file").write_text("x") else None
    Disk(tmp_path / "short", FOLDERS).write("secret", b"half")
    with pytest.raises(CannotWrite, match="not whole"):
        Store(tmp_path / "short")
