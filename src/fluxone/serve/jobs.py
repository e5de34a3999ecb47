"""Jobs: accepted in the database before anybody is told so, drawn by the engine, kept on disk, found again.

    accept   pictures to disk -> row, pending -> engine                    after this a crash loses nothing
    finish   result to disk, whole -> row, ready -> webhook is due         before this it is drawn again
    sweep    rows, results and orphans older than the retention go

A seed is chosen before a job is accepted, so that drawing it again makes the same picture. So it does no harm if two
servers on one database draw the same job, when a clock jumps, say: the first to finish writes the row.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import sqlalchemy as sa

from fluxone import provenance
from fluxone.errors import BadRequest, CannotWrite, FluxoneError
from fluxone.request import Request
from fluxone.serve import keys
from fluxone.serve.database import JOBS, Row, rows
from fluxone.serve.engine import Drawing
from fluxone.serve.keys import Owner, TooMany
from fluxone.serve.leases import ERROR, HELD, PENDING, Leases
from fluxone.serve.line import Busy
from fluxone.serve.logs import REQUEST
from fluxone.serve.metrics import Metrics
from fluxone.serve.policy import Policy
from fluxone.serve.settings import Settings
from fluxone.serve.store import Store
from fluxone.serve.task import Cancelled, Lora, Stopped, Task, Wanted
from fluxone.serve.tracing import Traces

log = logging.getLogger("fluxone.serve")

READY = "ready"
ASKED, SHOWN = "asked-moderated", "shown-moderated"  # the request, the picture
CANCELLED = "cancelled"
REQUEST_ID = "request_id"  # among a job's details: of the HTTP request that brought it
SAVERS = 2
RETRY = 1.0  # s, while the database is away or the disk is full
FULL = 120  # tries before a disk that stays full is an error of the job
DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a dialect hands in.

    Attributes:
        request: resolved, of one picture.
        tolerance: 0 (strict) to 6, for the content policy.
        details: what the client is told besides its picture.
        idempotency: a second order of the same owner with the same one is the first.
        digest: of the order's body, so that a key that is used for another one is noticed.
        held: whether the client waits for the answer, so that no other server may draw it.
    """

    endpoint: str
    model: str
    request: Request
    loras: tuple[Lora, ...] = ()
    format: str = "png"
    quality: int = 95
    tolerance: int = 2
    priority: int = 0
    cost: float = 1.0
    details: Mapping[str, object] = field(default_factory=dict)
    idempotency: str | None = None
    digest: str | None = None
    held: bool = False
    webhook_url: str | None = None
    webhook_secret: str | None = None
    partials: int = 0


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A job in this process: its task, and an event for when its row has its last status."""

    task: Task
    settled: threading.Event = field(default_factory=threading.Event)


class Jobs:
    """All jobs of a server.

    Args:
        changed: called with a job's id whenever there is something new about it; must be quick.
        metrics, traces: told of each job that is settled, and how long its stages took.
    """

    def __init__(
        self, settings: Settings, engine: Drawing, database: sa.Engine, store: Store, policy: Policy,
        metrics: Metrics | None = None, traces: Traces | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.engine, self.database = settings, engine, database
        self.store, self.policy, self.metrics = store, policy, metrics or Metrics()
        self.traces = traces
        self.live: dict[str, Watched] = {}
        self.listeners: dict[str, Callable[[], None]] = {}
        self.taking = threading.Lock()  # between a row's insertion and its task's being known
        self._savers = ThreadPoolExecutor(SAVERS, thread_name_prefix="saver")
        self._stopping = threading.Event()
        self.leases = Leases(self)

    def accept(self, order: Order, owner: Owner) -> Row:
        """Take a job on; when this returns it is safe.

        Raises:
            Busy, TooMany: too much is waiting, of all or of this owner.
            Broke: the owner's credits do not pay for it.
            BadRequest: its idempotency key was used for another order.
        """
        if order.idempotency is not None and (row := self._known(order, owner)):
            return row
        waiting = self.engine.state().waiting
        if waiting >= self.settings.waiting:
            raise Busy(f"{waiting} requests are waiting", 1)
        mine = sum(watched.task.wanted.owner == owner.id for watched in list(self.live.values()))
        if owner.name and mine >= self.settings.concurrent:
            raise TooMany(f"{mine} requests of this key are in work, which is all it may have at a time", 1)
        job = str(uuid.uuid4())
        reasons = self.policy.prompt(order.request.prompt, order.tolerance)
        details = {
            **order.details,
            **({"Moderation Reasons": reasons} if reasons else {}),
            **({REQUEST_ID: name} if (name := REQUEST.get()) else {}),
            **({HELD: True} if order.held else {}),
        }
        row = {
            "id": job, "owner": owner.id, "endpoint": order.endpoint, "model": order.model,
            "request": provenance.to_json(provenance.Record(request=order.request, model=order.model)),
            "loras": json.dumps(order.loras), "format": order.format, "quality": order.quality,
            "tolerance": order.tolerance, "priority": order.priority, "cost": order.cost,
            "details": json.dumps(details),
            "status": ASKED if reasons else PENDING, "message": None, "created": time.time(),
            "finished": time.time() if reasons else None, "digest": order.digest, "idempotency": order.idempotency,
            "webhook_url": order.webhook_url, "webhook_secret": order.webhook_secret,
            "webhook_due": time.time() if reasons and order.webhook_url else None, "webhook_tries": 0,
            "server": self.settings.own_name, "lease": self.leases.until(),
        }  # fmt: skip
        if not reasons:
            self.store.keep_inputs(job, order.request)
        try:
            with self.taking:
                with self.database.begin() as connection:
                    if not reasons:
                        keys.pay(connection, owner.id, order.cost)
                    connection.execute(JOBS.insert(), row)
                if not reasons:
                    self.draw(row, order.request, order.partials)
        except sa.exc.IntegrityError:  # the same order, in another thread, a moment ago
            self.store.drop_inputs(job)
            if known := self._known(order, owner):
                return known
            raise
        except FluxoneError:
            self.store.drop_inputs(job)
            raise
        said = {"job": job, **{name: row[name] for name in ("endpoint", "model", "owner", "status")}}
        prompt = {"prompt": order.request.prompt} if self.settings.log_prompts else {}
        log.info("job %s is accepted", job, extra={"told": said | prompt})
        if reasons:
            self.metrics.settled(ASKED)
        return row

    def find(self, job: str) -> Row | None:
        """The row of a job."""
        with self.database.connect() as connection:
            return next(iter(rows(connection, sa.select(JOBS).where(JOBS.c.id == job))), None)

    def latest(self, owner: str, count: int) -> list[Row]:
        """The owner's last jobs, the newest first."""
        query = sa.select(JOBS).where(JOBS.c.owner == owner).order_by(JOBS.c.created.desc()).limit(count)
        with self.database.connect() as connection:
            return rows(connection, query)

    def cancel(self, job: str) -> bool:
        """Give a job up before its next step; False if it is not in work."""
        if (watched := self.live.get(job)) is not None:
            watched.task.cancel()
            return True
        row = self.find(job)
        if row is None or row["status"] != PENDING:
            return False
        self.settle(row, CANCELLED, "the request was cancelled")  # whoever draws it hears of it at its next beat
        return True

    def sweep(self) -> None:
        """Delete what is older than the retention."""
        before = time.time() - self.settings.keep_days * DAY
        done = sa.and_(JOBS.c.status != PENDING, JOBS.c.created < before)
        with self.database.begin() as connection:
            for row in rows(connection, sa.select(JOBS.c.id, JOBS.c.format).where(done)):
                self.store.drop(row["id"], row["format"])
            connection.execute(JOBS.delete().where(done))
            known = set(connection.execute(sa.select(JOBS.c.id)).scalars())
        self.store.sweep(known, time.time() - min(DAY, self.settings.keep_days * DAY))

    def stop(self) -> None:
        """Finish saving, and leave the rest to whoever comes. The engine has stopped before."""
        self._stopping.set()
        self._savers.shutdown(wait=True)
        mine = (JOBS.c.server == self.settings.own_name, JOBS.c.status == PENDING)
        try:
            with self.database.begin() as connection:
                connection.execute(JOBS.update().where(*mine).values(lease=0.0))
        except sa.exc.SQLAlchemyError as error:
            log.warning("the database is away: %s; leases end in %g s", error, self.settings.lease_seconds)

    def _known(self, order: Order, owner: Owner) -> Row | None:
        query = sa.select(JOBS).where(JOBS.c.owner == owner.id, JOBS.c.idempotency == order.idempotency)
        with self.database.connect() as connection:
            row = next(iter(rows(connection, query)), None)
        if row is not None and row["digest"] != order.digest:
            raise BadRequest("this idempotency key was used for another request", hint="use a new one")
        return row

    def draw(self, row: Row, request: Request, partials: int) -> None:
        seconds = self.settings.deadline_seconds
        wanted = Wanted(
            deadline=time.monotonic() + seconds if seconds else None,
            id=row["id"], model=row["model"], request=request, owner=row["owner"], priority=row["priority"],
            loras=tuple((file, scale) for file, scale in json.loads(row["loras"])), partials=partials,
        )  # fmt: skip
        try:
            # Its row is written: it is not turned away any more, whatever came in between.
            self.live[row["id"]] = Watched(task=Task(wanted, self._heard))
            self.engine.submit(self.live[row["id"]].task, always=True)
        except Stopped:
            self.live.pop(row["id"], None)  # the next start takes it up

    def _heard(self, task: Task) -> None:
        """Called by a worker: it must not wait for the disk."""
        if task.ended.is_set():
            if task.drawn is not None:
                self.metrics.took("waiting", task.begun - task.put)
                self.metrics.took("drawing", time.monotonic() - task.begun)
            self._savers.submit(self._finish, task)
        if listener := self.listeners.get(task.wanted.id):
            listener()

    def _finish(self, task: Task) -> None:
        """Keep what came of a task; while the database is away or the disk is full, try again."""
        began = time.monotonic()
        for tries in itertools.count():
            try:
                if (row := self.find(task.wanted.id)) is not None:
                    status = self._close(row, task, last=tries >= FULL)
                    if self.traces is not None:
                        saving = time.monotonic() - began
                        self.traces.job(task, endpoint=row["endpoint"], status=status, saving=saving)
                break
            except (sa.exc.SQLAlchemyError, CannotWrite) as error:
                log.error("the database or the disk does not take it: %s", error)
            if self._stopping.wait(RETRY):
                break  # it stays pending: the next start takes it up
        if (watched := self.live.pop(task.wanted.id, None)) is not None:
            watched.settled.set()
        if listener := self.listeners.get(task.wanted.id):
            listener()

    def _close(self, row: Row, task: Task, *, last: bool) -> str:
        """Write down what came of a task, and return its status.

        Raises:
            CannotWrite: the disk is full or the like, and this is not the `last` try.
        """
        if isinstance(task.error, Stopped):
            return PENDING  # the next start takes it up
        if isinstance(task.error, Cancelled):
            return self.settle(row, CANCELLED, str(task.error))
        if task.drawn is None:
            known = isinstance(task.error, FluxoneError)
            words = str(task.error) if known else "the server failed to draw it; its log says why"
            return self.settle(row, ERROR, words)
        try:
            reasons = self.policy.picture(task.drawn.image, row["tolerance"])
        except FluxoneError as error:  # what cannot be looked at is not shown
            return self.settle(row, ERROR, str(error))
        if reasons:
            return self.settle(row, SHOWN, None, details={"Moderation Reasons": reasons})
        began = time.monotonic()
        try:
            self.store.keep(row["id"], task.drawn.image, task.drawn.record, row["format"], row["quality"])
        except CannotWrite as error:
            if not last and isinstance(error.__cause__, OSError):
                raise
            return self.settle(row, ERROR, str(error))
        self.metrics.took("saving", time.monotonic() - began)
        return self.settle(row, READY, None)

    def settle(
        self, row: Row, status: str, message: str | None, *, details: Mapping[str, object] | None = None
    ) -> str:
        """Write a job's last status, give back what it cost if it came to nothing, let its webhook go."""
        now = time.time()
        values = {
            "status": status, "message": message, "finished": now,
            "webhook_due": now if row["webhook_url"] else None,
            "details": json.dumps({**json.loads(row["details"]), **(details or {})}),
        }  # fmt: skip
        with self.database.begin() as connection:
            pending = JOBS.update().where(JOBS.c.id == row["id"], JOBS.c.status == PENDING)
            if connection.execute(pending.values(values)).rowcount and status != READY:
                keys.pay(connection, row["owner"], -row["cost"])
        self.store.drop_inputs(row["id"])
        self.metrics.settled(status)
        name = json.loads(row["details"]).get(REQUEST_ID)
        said = {"job": row["id"], "status": status, "seconds": round(now - row["created"], 3)}
        log.info("job %s is %s", row["id"], status, extra={"told": said | ({REQUEST_ID: name} if name else {})})
        return status

