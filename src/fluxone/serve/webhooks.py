"""Webhooks: telling a client's own server that its picture is there, signed, and again until it has heard.

Which are due is in the database, so a restart forgets none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import sqlalchemy as sa

from fluxone.errors import BadRequest
from fluxone.serve import fetch
from fluxone.serve.database import JOBS, Row, rows

log = logging.getLogger("fluxone.serve")

TRIES = 8
FIRST = 2.0  # s to the second try; each next waits twice as long
LOOK = 0.5  # s between looks at what is due
LEASE = 60.0  # s that a try may take before another is made
AT_ONCE, OF_ONE = 8, 2  # sent at a time: in all, and to one host, so that a slow one holds nobody up
SEEN = 256  # looked through for hosts that are free

Body = Callable[[Row], dict[str, object]]


class Webhooks(threading.Thread):
    """Sends what is due.

    Args:
        body: what a job's receiver is told.
    """

    def __init__(self, database: sa.Engine, body: Body, reachable: tuple[str, ...], *, first: float = FIRST) -> None:
        super().__init__(name="webhooks", daemon=True)
        self.database, self.body, self.reachable, self.first = database, body, reachable, first
        self._senders = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._over = threading.Event()
        self._sending: Counter[str] = Counter()  # by host
        self._lock = threading.Lock()

    def run(self) -> None:
        """Look and send, until stopped."""
        while not self._over.wait(LOOK):
            try:
                for row in self.due():
                    self._senders.submit(self.send, row)
            except sa.exc.SQLAlchemyError as error:
                log.error("the database is away: %s", error)

    def stop(self) -> None:
        """Send no more; what is due is sent after the next start."""
        self._over.set()
        self._senders.shutdown(wait=False, cancel_futures=True)

    def due(self) -> list[Row]:
        """The jobs whose receivers are to be told now, taken so that nobody else tells them meanwhile."""
        now = time.time()
        ahead = self.first * 2**TRIES + 2 * LEASE  # further than which none is due, unless a clock was set back
        ready = sa.or_(JOBS.c.webhook_due <= now, JOBS.c.webhook_due > now + ahead)
        query = sa.select(JOBS).where(ready).order_by(JOBS.c.webhook_due).limit(SEEN)
        taken = []
        with self.database.begin() as connection:
            for row in rows(connection, query):
                if not self._free(row):
                    continue
                mine = JOBS.update().where(JOBS.c.id == row["id"], JOBS.c.webhook_due == row["webhook_due"])
                if connection.execute(mine.values(webhook_due=now + LEASE)).rowcount:
                    taken.append(row)
                    with self._lock:
                        self._sending[_host(row)] += 1
        return taken

    def _free(self, row: Row) -> bool:
        with self._lock:
            return self._sending.total() < AT_ONCE and self._sending[_host(row)] < OF_ONE

    def send(self, row: Row) -> None:
        """Tell one receiver; say when to try again if it does not hear."""
        try:
            self._send(row)
        except sa.exc.SQLAlchemyError as error:
            log.error("the database is away: %s; the webhook of %s may come twice", error, row["id"])
        finally:
            with self._lock:
                self._sending[_host(row)] -= 1

    def _send(self, row: Row) -> None:
        raw = json.dumps(self.body(row)).encode()
        headers = {"Content-Type": "application/json"}
        if row["webhook_secret"]:
            headers["X-BFL-Signature"] = signature(row["webhook_secret"], raw)
        try:
            status = fetch.post(row["webhook_url"], raw, headers, reachable=self.reachable)
            trouble = None if 200 <= status < 300 else f"it answers {status}"
        except BadRequest as error:
            trouble = str(error)
        tries = row["webhook_tries"] + 1
        again = trouble is not None and tries < TRIES
        if trouble is not None:
            said = {"told": {"job": row["id"], "try": tries}}
            log.warning("webhook of %s, try %d of %d: %s", row["id"], tries, TRIES, trouble, extra=said)
        due = time.time() + self.first * 2 ** (tries - 1) if again else None
        with self.database.begin() as connection:
            told = JOBS.update().where(JOBS.c.id == row["id"])
            connection.execute(told.values(webhook_due=due, webhook_tries=tries))


def _host(row: Row) -> str:
    return urlsplit(row["webhook_url"]).hostname or ""


def signature(secret: str, raw: bytes) -> str:
    """The header by which the receiver knows us."""
    return "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
