"""Which server draws a job: the one that took it on, as long as it says that it lives; else one that takes it over.

    resume   what is nobody's goes to this server's engine: its server began anew, or its lease ran out
    beat     this server's leases go on; what was cancelled by way of another server, or taken by it, is given up
    relieve  a server that has nothing to draw takes what came last of the one that has most
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fluxone import provenance
from fluxone.errors import FluxoneError
from fluxone.serve.database import JOBS, Row, rows
from fluxone.serve.shelf import Away

if TYPE_CHECKING:
    from fluxone.serve.jobs import Jobs

log = logging.getLogger("fluxone.serve")

PENDING, ERROR = "pending", "error"
HELD = "held"  # among a job's details: its client waits for the answer at this very server
ENOUGH = 4  # jobs of a server, of which others take none
FAR = 10.0  # leases, and s, further ahead than which no server's clock gives one


class Leases:
    """The leases of one server's jobs."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._fresh = True  # nothing was taken up yet

    def resume(self) -> int:
        """Let what was accepted, is not finished, and is nobody's now be drawn here; how much that was."""
        if not self.jobs.engine.state().ready:
            return 0
        now, ahead = time.time(), FAR * self.jobs.settings.lease_seconds + FAR
        free = sa.or_(JOBS.c.lease < now, JOBS.c.lease > now + ahead)  # by a clock that was set back since
        if self._fresh:  # what this server itself left behind needs no patience
            free = sa.or_(free, JOBS.c.server == self.jobs.settings.own_name)
        query = sa.select(JOBS).where(JOBS.c.status == PENDING, free).order_by(JOBS.c.created)
        count = 0
        with self.jobs.taking:
            with self.jobs.database.connect() as connection:
                pending = [row for row in rows(connection, query) if row["id"] not in self.jobs.live]
            for row in pending:
                if self._take(row):
                    count += 1
                    self._take_up(row)
        self._fresh = False
        return count

    def until(self) -> float:
        """When a lease that is given now is over."""
        return time.time() + self.jobs.settings.lease_seconds

    def _take(self, row: Row) -> bool:
        """Make a job this server's, unless another was quicker."""
        same = (JOBS.c.id == row["id"], JOBS.c.status == PENDING, JOBS.c.lease == row["lease"])
        mine = {"server": self.jobs.settings.own_name, "lease": self.until()}
        with self.jobs.database.begin() as connection:
            return bool(connection.execute(JOBS.update().where(*same).values(mine)).rowcount)

    def _take_up(self, row: Row) -> None:
        try:
            request = provenance.from_json(row["request"]).request
            request = replace(request, **self.jobs.store.read_inputs(row["id"]))  # type: ignore[arg-type]
            self.jobs.draw(row, request, 0)
        except Away as error:  # its lease runs out, and it is taken up then
            log.warning("job %s waits for its pictures: %s", row["id"], error, extra={"told": {"job": row["id"]}})
        except (FluxoneError, OSError) as error:
            self.jobs.settle(row, ERROR, f"it could not be taken up again: {error}")

    def beat(self) -> None:
        """Keep the leases of what is in work here; give up what is settled otherwise, or another's now."""
        mine = list(self.jobs.live)
        if not mine:
            return
        pending = (JOBS.c.id.in_(mine), JOBS.c.status == PENDING)
        with self.jobs.database.begin() as connection:
            own = (*pending, JOBS.c.server == self.jobs.settings.own_name)
            connection.execute(JOBS.update().where(*own).values(lease=self.until()))
            found = connection.execute(sa.select(JOBS.c.id, JOBS.c.server).where(*pending))
            still = {row.id: row.server for row in found}
        for job in mine:
            if (watched := self.jobs.live.get(job)) is None:
                continue
            if job not in still:
                watched.task.cancel()
            elif still[job] != self.jobs.settings.own_name:
                watched.task.give()

    def relieve(self) -> int:
        """If there is nothing to draw here: take half of what the server has that has most, the last first; how much.

        That server hears of it at its next beat. Should it have begun some of them by then, they are drawn twice, to
        the same picture, and the first to finish writes the row.
        """
        state = self.jobs.engine.state()
        if not state.ready or state.waiting or state.begun:
            return 0
        others = (JOBS.c.status == PENDING, JOBS.c.server != self.jobs.settings.own_name, JOBS.c.lease >= time.time())
        query = sa.select(JOBS).where(*others).order_by(JOBS.c.created.desc())
        loads: dict[str, list[Row]] = {}
        with self.jobs.taking:
            with self.jobs.database.connect() as connection:
                for row in [row for row in rows(connection, query) if row["id"] not in self.jobs.live]:
                    loads.setdefault(row["server"], []).append(row)
            most = max(loads.values(), key=len, default=[])
            most = most[: len(most) // 2] if len(most) > ENOUGH else []
            taken = [row for row in most if HELD not in json.loads(row["details"]) and self._take(row)]
            for row in taken:
                self._take_up(row)
        return len(taken)
