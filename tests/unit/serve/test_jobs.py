"""Jobs: safe once they are accepted, whole or not there, the same again after a crash, gone after their time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from PIL import Image

from fluxone import provenance
from fluxone.errors import BadFile, BadRequest, BrokenModel, CannotWrite, UnknownName
from fluxone.geometry import Resolution
from fluxone.request import Request
from fluxone.serve import settings as settings_
from fluxone.serve.database import JOBS, METADATA, connect
from fluxone.serve.jobs import ASKED, CANCELLED, DAY, ERROR, PENDING, READY, SHOWN, Jobs, Order
from fluxone.serve.keys import Broke, Denied, Keys, Owner, TooMany
from fluxone.serve.leases import ENOUGH
from fluxone.serve.line import Busy
from fluxone.serve.policy import Policy, words
from fluxone.serve.settings import Settings
from fluxone.serve.store import Store
from fluxone.serve.task import Stopped
from fluxone.variants import MINI
from unit.serve.fake import Fake, colour

ME = Owner(id="me")
SIZE = Resolution(height=32, width=48)


@pytest.fixture
def database(tmp_path: Path) -> sa.Engine:
    engine = connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def start(tmp_path: Path, database: sa.Engine) -> Callable[..., Jobs]:
    made: list[Jobs] = []

    def go(engine: Fake, policy: Policy | None = None, **told: object) -> Jobs:
        jobs = Jobs(Settings(folder=tmp_path, **told), engine, database, Store(tmp_path), policy or Policy())
        made.append(jobs)
        return jobs

    yield go
    for jobs in made:
        jobs.stop()


def order(seed: int = 7, **fields: object) -> Order:
    request = Request(prompt="a fox", seed=seed, resolution=SIZE, init=fields.pop("init", None)).resolve(MINI)
    return Order(endpoint="test", model="mini", request=request, **fields)


def settled(jobs: Jobs, job: str) -> dict:
    if watched := jobs.live.get(job):
        assert watched.settled.wait(10)
    return jobs.find(job)


def test_a_job_becomes_a_whole_file_with_its_record(start: Callable[..., Jobs], tmp_path: Path) -> None:
    jobs = start(Fake())
    row = settled(jobs, jobs.accept(order(), ME)["id"])
    assert (row["status"], row["message"]) == (READY, None)
    path = jobs.store.shelf.path(jobs.store.name(row["id"], "png"))
    assert Image.open(path).getpixel((0, 0)) == colour(7)
    assert provenance.read(path).request.seed == 7
    assert not list((tmp_path / "inputs").iterdir())


def test_the_schema_is_what_the_migrations_make(database: sa.Engine) -> None:
    with database.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_what_was_accepted_is_drawn_after_a_restart(start: Callable[..., Jobs], tmp_path: Path) -> None:
    noise = Image.effect_noise((48, 32), 90).convert("RGB")
    before = start(Fake(held=True))
    row = before.accept(order(seed=9, init=noise, loras=(("a.safetensors", 0.5),), priority=2), ME)
    engine = Fake()
    after = start(engine)
    assert after.leases.resume() == 1
    assert after.leases.resume() == 0, "what is in work is not begun again"
    assert settled(after, row["id"])["status"] == READY
    (task,) = engine.tasks
    assert (task.wanted.request.seed, task.wanted.loras, task.wanted.priority) == (9, (("a.safetensors", 0.5),), 2)
    assert (np.asarray(task.wanted.request.init) == np.asarray(noise)).all()
    same = replace(task.wanted.request, init=None)
    assert same == replace(order(seed=9, init=noise).request, init=None)


def test_requests_have_a_deadline_if_the_operator_says_so(start: Callable[..., Jobs]) -> None:
    engine = Fake(held=True)
    jobs = start(engine, deadline_seconds=0.01)
    row = jobs.accept(order(), ME)
    time.sleep(0.02)
    engine.go()
    row = settled(jobs, row["id"])
    assert row["status"] == ERROR
    assert "deadline passed" in row["message"]


def test_stopping_leaves_a_job_for_the_next_start(start: Callable[..., Jobs]) -> None:
    engine = Fake(held=True)
    jobs = start(engine)
    row = jobs.accept(order(), ME)
    engine.go(error=Stopped("the server was stopped"))
    assert settled(jobs, row["id"])["status"] == PENDING


@pytest.mark.parametrize(
    ("error", "words_"), [(BrokenModel("it broke"), "it broke"), (RuntimeError("a secret"), "its log says why")]
)
def test_failures_are_told_and_paid_back(
    start: Callable[..., Jobs], database: sa.Engine, error: Exception, words_: str
) -> None:
    engine = Fake(held=True)
    jobs, keys = start(engine), Keys(database)
    owner = keys.owner(keys.make("me", credits=1.5), "draw")
    row = jobs.accept(order(), owner)
    with pytest.raises(Broke, match="costs 1 credits"):
        jobs.accept(order(), owner)
    assert len(engine.tasks) == 1
    engine.go(error=error)
    row = settled(jobs, row["id"])
    assert row["status"] == ERROR
    assert words_ in row["message"]
    jobs.accept(order(), owner)


def test_an_order_is_taken_once(start: Callable[..., Jobs]) -> None:
    engine = Fake()
    jobs = start(engine)
    first = jobs.accept(order(idempotency="k", digest="d"), ME)
    assert jobs.accept(order(seed=8, idempotency="k", digest="d"), ME)["id"] == first["id"]
    assert jobs.accept(order(idempotency="k", digest="d"), Owner(id="you"))["id"] != first["id"]
    with pytest.raises(BadRequest, match="another request"):
        jobs.accept(order(idempotency="k", digest="e"), ME)
    assert len(engine.tasks) == 2


def test_limits(start: Callable[..., Jobs]) -> None:
    jobs = start(Fake(held=True), concurrent=2)
    keyed = Owner(id="k", name="k")
    for _ in range(2):
        jobs.accept(order(), keyed)
    with pytest.raises(TooMany):
        jobs.accept(order(), keyed)
    jobs.engine.now = replace(jobs.engine.now, waiting=256)
    with pytest.raises(Busy):
        jobs.accept(order(), ME)


def test_the_policy(start: Callable[..., Jobs], tmp_path: Path) -> None:
    engine = Fake()
    shown = Policy(prompt=words({"FÓX": 3}).prompt, picture=lambda image, tolerance: ["Safety Filter"])
    jobs = start(engine, shown)
    row = jobs.accept(order(tolerance=2), ME)
    assert row["status"] == ASKED
    assert not engine.tasks
    row = settled(jobs, jobs.accept(order(tolerance=3), ME)["id"])
    assert (row["status"], row["details"]) == (SHOWN, '{"Moderation Reasons": ["Safety Filter"]}')
    assert not list((tmp_path / "results").iterdir())
    assert words({"fox": 7}).prompt("a foxglove, a ﬁrefox", 0) == []
    with pytest.raises(BadRequest, match="8"):
        words({"fox": 8})


def test_a_job_is_cancelled(start: Callable[..., Jobs]) -> None:
    engine = Fake(held=True)
    jobs = start(engine)
    row = jobs.accept(order(), ME)
    assert jobs.cancel(row["id"])
    engine.go()
    assert settled(jobs, row["id"])["status"] == CANCELLED
    assert not jobs.cancel(row["id"])


def test_a_full_disk_is_waited_for_and_leaves_no_half_file(
    start: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save, failures = provenance.write_whole, iter(range(3))

    def full(*told: object, **more: object) -> None:
        for _ in failures:
            raise CannotWrite("the disk is full") from OSError(28, "no space")
        return save(*told, **more)

    monkeypatch.setattr("fluxone.serve.jobs.RETRY", 0.01)
    monkeypatch.setattr(provenance, "write_whole", full)
    jobs = start(Fake())
    assert settled(jobs, jobs.accept(order(), ME)["id"])["status"] == READY
    failures = iter(range(10**6))
    monkeypatch.setattr("fluxone.serve.jobs.FULL", 2)
    row = settled(jobs, jobs.accept(order(8), ME)["id"])
    assert (row["status"], row["message"]) == (ERROR, "the disk is full")
    assert len(list((tmp_path / "results").iterdir())) == 1
    long = replace(order().request, prompt="\U0001f98a" * 20_000)
    row = settled(jobs, jobs.accept(replace(order(format="jpeg"), request=long), ME)["id"])
    assert (row["status"], "JPEG" in (row["message"] or "") or "full" in row["message"]) == (ERROR, True)
    monkeypatch.setattr(provenance, "write_whole", full)
    with pytest.raises(CannotWrite):
        jobs.accept(order(init=Image.new("RGB", (48, 32))), ME)
    assert not jobs.live, "it was never accepted"


def test_a_database_that_is_away_is_waited_for(
    start: Callable[..., Jobs], database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Fake(held=True)
    jobs = start(engine)
    row = jobs.accept(order(), ME)
    find, failures = jobs.find, iter([sa.exc.OperationalError("", None, Exception("away"))])

    def away(job: str) -> dict | None:
        for error in failures:
            raise error
        return find(job)

    monkeypatch.setattr("fluxone.serve.jobs.RETRY", 0.01)
    monkeypatch.setattr(jobs, "find", away)
    engine.go()
    assert settled(jobs, row["id"])["status"] == READY


def test_sweeping(start: Callable[..., Jobs], database: sa.Engine, tmp_path: Path) -> None:
    jobs = start(Fake(), keep_days=2)
    old, new = (settled(jobs, jobs.accept(order(seed), ME)["id"])["id"] for seed in (1, 2))
    orphan = tmp_path / "results" / ".00000000-0000-0000-0000-000000000000.png.ab.part"
    orphan.write_bytes(b"half")
    past = time.time() - 3 * DAY
    os.utime(orphan, (past, past))
    with database.begin() as connection:
        connection.execute(JOBS.update().where(JOBS.c.id == old).values(created=past))
    jobs.sweep()
    assert jobs.find(old) is None
    assert [file.name for file in (tmp_path / "results").iterdir()] == [f"{new}.png"]


def test_links(start: Callable[..., Jobs]) -> None:
    jobs = start(Fake())
    row = settled(jobs, jobs.accept(order(), ME)["id"])
    path, _, query = jobs.store.link(row["id"], "png", 60).partition("?")
    until, signature = (part.partition("=")[2] for part in query.split("&"))
    name = path.rpartition("/")[2]
    assert jobs.store.linked(name, int(until), signature) == jobs.store.name(row["id"], "png")
    assert jobs.store.linked(name, int(until) + 1, signature) is None
    assert jobs.store.linked(name, int(until), signature[:-1] + "ü") is None
    past = int(time.time()) - 1
    assert jobs.store.linked(name, past, jobs.store.signature(name, past)) is None
    out = "../secret"
    assert jobs.store.linked(out, int(until), jobs.store.signature(out, int(until))) is None


def test_keys(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(database)
    assert keys.owner("anything", "draw").id != keys.owner(None, "draw").id, "an open server tells callers apart"
    token = keys.make("me", scopes=("draw",), per_minute=2)
    assert keys.owner(token, "draw").name == "me"
    with database.connect() as connection:
        assert token not in str(connection.execute(sa.text("select * from keys")).all())
    for wrong, scope, status in ((None, "draw", 401), ("fx-nonsense", "draw", 403), (token, "metrics", 403)):
        with pytest.raises(Denied) as caught:
            keys.owner(wrong, scope)
        assert caught.value.status == status
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    owner = keys.owner(token, "draw")
    keys.count(owner)
    keys.count(owner)
    with pytest.raises(TooMany) as limited:
        keys.count(owner)
    assert limited.value.retry_after == 31
    monkeypatch.setattr(time, "monotonic", lambda: now + 31)
    keys.count(owner)
    with pytest.raises(BadRequest, match="'me'"):
        keys.make("me")
    with pytest.raises(BadRequest, match="'all'"):
        keys.make("you", scopes=("all",))
    keys.drop("me")
    with pytest.raises(UnknownName):
        keys.drop("me")
    assert not keys.any()


def test_settings_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('models = ["mini", "dev"]\nfolder = "state"\nkeep_days = 1\n[endpoints]\nflux-pro = "dev"\n')
    told = settings_.read(file)
    assert (told.models, told.folder, told.endpoints) == (("mini", "dev"), tmp_path / "state", {"flux-pro": "dev"})
    wrong = (("prot = 1", UnknownName), ("port = 'x'", BadRequest), ("port", BadFile), ("port = true", BadRequest))
    for text, error in wrong:
        file.write_text(text)
        with pytest.raises(error):
            settings_.read(file)


def test_servers_on_one_database(start: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is one server's until that is silent for too long; what it left behind itself it takes up at once."""
    left, right = Fake(held=True), Fake(held=True)
    one, other = start(left, name="one"), start(right, name="other")
    row = one.accept(order(), ME)
    assert other.leases.resume() == 0, "it is the other's, who lives"
    assert other.cancel(row["id"]), "by way of any server"
    one.leases.beat()
    left.go()
    assert settled(one, row["id"])["status"] == CANCELLED
    lost, kept = one.accept(order(8), ME), one.accept(order(9), ME)
    now = time.time() + 31
    monkeypatch.setattr(time, "time", lambda: now)
    one.live.pop(lost["id"])  # as after a crash
    one.leases.beat()
    assert other.leases.resume() == 1
    assert other.leases.resume() == 0
    right.go()
    assert settled(other, lost["id"])["status"] == READY
    assert one.find(kept["id"])["server"] == "one"
    again = start(Fake(), name="one")
    assert again.leases.resume() == 1
    assert settled(again, kept["id"])["status"] == READY
    left.go()  # the first one draws it too: same picture, and the row stays as it is
    assert settled(one, kept["id"])["status"] == READY


def test_a_server_with_nothing_to_draw_relieves_another(start: Callable[..., Jobs]) -> None:
    left, right = Fake(held=True), Fake(held=True)
    one, other = start(left, name="one"), start(right, name="other")
    tasks = [one.accept(order(n, held=n == 8), ME)["id"] for n in range(10)]
    for task, at in zip(tasks, range(10), strict=True):
        with one.database.begin() as connection:
            connection.execute(JOBS.update().where(JOBS.c.id == task).values(created=time.time() + at))
    assert one.leases.relieve() == 0, "there is nobody else"
    right.now = replace(right.now, begun=1)
    assert other.leases.relieve() == 0, "it has enough to do"
    right.now = replace(right.now, begun=0)
    assert other.leases.relieve() == 4, "half, the last first, but not what a client waits for where it is"
    assert {task.wanted.id for task in right.tasks} == {tasks[n] for n in (5, 6, 7, 9)}
    one.leases.beat()
    left.go()
    for n in (0, 1, 2, 3, 4, 8):
        assert settled(one, tasks[n])["status"] == READY
    given = [task.wanted.id for task in left.tasks if isinstance(task.error, Stopped)]
    assert given == [tasks[n] for n in (5, 6, 7, 9)]
    assert one.find(tasks[9])["status"] == PENDING, "it is the other's now"
    other.leases.beat()
    right.go()
    for n in (5, 6, 7, 9):
        assert settled(other, tasks[n])["status"] == READY
    few = [one.accept(order(n), ME) for n in range(ENOUGH)]
    assert other.leases.relieve() == 0
    left.go()
    for row in few:
        settled(one, row["id"])


def test_stopping_leaves_the_rest_to_whoever_comes(start: Callable[..., Jobs], tmp_path: Path) -> None:
    engine = Fake(held=True)
    one = start(engine, name="one")
    row = one.accept(order(), ME)
    engine.go(error=Stopped("the server was stopped"))
    one.stop()
    other = start(Fake(), name="other")
    assert other.leases.resume() == 1
    assert settled(other, row["id"])["status"] == READY
    assert Store(tmp_path).signature("x", 1) == Store(tmp_path).signature("x", 1), "one secret for all of a folder"
