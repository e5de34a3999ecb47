"""A server that runs for long: nothing is kept of what is done, and clocks that jump lose nothing."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from fluxone.pipeline import Pipeline
from fluxone.serve.database import JOBS, connect
from fluxone.serve.engine import Engine
from fluxone.serve.jobs import DAY, PENDING, READY, Jobs
from fluxone.serve.policy import Policy
from fluxone.serve.settings import Settings
from fluxone.serve.store import Store
from fluxone.serve.task import Task
from fluxone.serve.webhooks import Webhooks
from unit.serve.conftest import wait
from unit.serve.fake import Fake
from unit.serve.test_engine import submit, wanted
from unit.serve.test_jobs import ME, order, settled
from unit.tiny import pipeline


def test_nothing_is_kept_of_requests_that_are_done(server: Callable[..., TestClient]) -> None:
    engine = Fake()
    client = server(engine)
    jobs: Jobs = client.app.state.serving.jobs
    for n in range(12):
        if n % 2:
            client.post("/v1/images/generations", json={"prompt": "x"})
        else:
            wait(client, client.post("/v1/flux-dev", json={"prompt": "x"}).json()["polling_url"])
    tasks = [weakref.ref(task) for task in engine.tasks]
    assert len(tasks) == 12
    engine.tasks.clear()
    gc.collect()
    assert [task() for task in tasks] == [None] * 12
    assert (jobs.live, jobs.listeners) == ({}, {})
    assert list(jobs.store.shelf.names("inputs")) == []


def test_nothing_is_kept_in_the_engine(tmp_path: Path) -> None:
    model: Pipeline = pipeline(tmp_path)
    engine = Engine([lambda: {"tiny": model}])
    engine.start()
    engine.wait_ready(60)
    done: list[weakref.ref[Task]] = []
    for n in range(6):
        task = submit(engine, wanted(model, n, steps=2))
        assert task.ended.wait(60)
        done.append(weakref.ref(task))
    del task
    engine.stop(5)
    gc.collect()
    assert [ref() for ref in done] == [None] * 6
    assert not engine.line._all
    assert not engine.line.waiting


@pytest.mark.parametrize("jump", [-3 * DAY, 3600.0])
def test_clocks_that_jump_lose_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    database = connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    engines = [Fake(held=True), Fake(held=True)]
    one, other = (
        Jobs(Settings(folder=tmp_path, name=name), engine, database, Store(tmp_path), Policy())
        for name, engine in zip(("one", "other"), engines, strict=True)
    )
    row, lost = one.accept(order(), ME), one.accept(order(8), ME)
    one.live.pop(lost["id"])  # as after a crash
    before, real = time.time(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    one.leases.beat()
    assert other.leases.resume() == 1, "what one had lost; what it is at, it keeps"
    for engine in engines:
        engine.go()
    assert settled(one, row["id"])["status"] == READY
    assert settled(other, lost["id"])["status"] == READY
    monkeypatch.setattr(time, "time", real)
    one.sweep()
    assert one.find(row["id"])["created"] >= before - 60, "it is still known"
    for jobs in (one, other):
        jobs.stop()
    database.dispose()


def test_webhooks_are_due_though_the_clock_was_set_back(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    jobs = Jobs(Settings(folder=tmp_path), Fake(), database, Store(tmp_path), Policy())
    rows = [jobs.accept(order(n, webhook_url="http://hooks.example/"), ME) for n in range(2)]
    for row in rows:
        assert settled(jobs, row["id"])["status"] != PENDING
    for row, due in zip(rows, (time.time() + 3 * DAY, time.time() + 30), strict=True):
        with database.begin() as connection:
            connection.execute(JOBS.update().where(JOBS.c.id == row["id"]).values(webhook_due=due))
    hooks = Webhooks(database, lambda row: {}, ())
    assert [row["id"] for row in hooks.due()] == [rows[0]["id"]]
    hooks.stop()
    jobs.stop()
    with database.connect() as connection:
        due = connection.execute(sa.select(JOBS.c.webhook_due).where(JOBS.c.id == rows[0]["id"])).scalar_one()
    assert due < time.time() + 120
    database.dispose()
