"""API keys: made once, kept hashed, each with scopes, a quota of credits and a rate.

Where no key was ever made the server is open, and is only let listen on this machine.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from fluxone.errors import BadRequest, FluxoneError, UnknownName
from fluxone.serve.database import KEYS

PREFIX = "fx-"
SCOPES = {"draw": "ask for pictures", "metrics": "read /metrics", "jobs": "see and cancel own jobs"}
MINUTE = 60.0
RATED = 10_000  # callers whose rate is remembered


class Denied(FluxoneError):
    """The key is missing, unknown, or not for this; `status` is HTTP's."""

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class TooMany(FluxoneError):
    """More requests than the key may send."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, hint=f"try again in {retry_after} s")
        self.retry_after = retry_after


class Broke(FluxoneError):
    """The key's credits do not pay for it."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who asks.

    Attributes:
        id: of the key; for an open server a hash of whatever key was sent, so that clients share fairly.
        credits: left; None is without end.
    """

    id: str
    name: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)
    credits: float | None = None
    per_minute: int | None = None


class Keys:
    """The keys in a database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._rates: dict[str, tuple[float, float]] = {}  # owner -> requests left, and when that was
        self._lock = threading.Lock()

    def make(
        self, name: str, *, scopes: tuple[str, ...] = tuple(SCOPES), credits: float | None = None,
        per_minute: int | None = None,
    ) -> str:  # fmt: skip
        """Make a key and return it; it cannot be read again.

        Raises:
            BadRequest: there is one of that name, or a scope is unknown.
        """
        if unknown := [scope for scope in scopes if scope not in SCOPES]:
            raise BadRequest(f"no scope is called {unknown[0]!r}", hint=f"choose of {', '.join(SCOPES)}")
        token = PREFIX + secrets.token_urlsafe(32)
        row = {
            "id": str(uuid.uuid4()), "name": name, "hash": hashed(token), "scopes": " ".join(scopes),
            "credits": credits, "per_minute": per_minute, "created": time.time(),
        }  # fmt: skip
        try:
            with self.engine.begin() as connection:
                connection.execute(KEYS.insert(), row)
        except sa.exc.IntegrityError:
            raise BadRequest(f"there is a key called {name!r}", hint="drop it first, or choose another name") from None
        return token

    def drop(self, name: str) -> None:
        """Let a key open nothing any more.

        Raises:
            UnknownName: there is none of that name.
        """
        with self.engine.begin() as connection:
            if not connection.execute(KEYS.delete().where(KEYS.c.name == name)).rowcount:
                raise UnknownName(f"no key is called {name!r}")

    def any(self) -> bool:
        """Whether there are keys, so that callers must have one."""
        with self.engine.connect() as connection:
            return connection.execute(sa.select(KEYS.c.id).limit(1)).first() is not None

    def owner(self, token: str | None, scope: str) -> Owner:
        """Whose key it is.

        Raises:
            Denied: nobody's, or not for this.
        """
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(KEYS).where(KEYS.c.hash == hashed(token or ""))).mappings().first()
        if found is None:
            if self.any():
                why = "the API key is not known" if token else "an API key is needed"
                raise Denied(403 if token else 401, why, hint="send it as x-key, or as Authorization: Bearer")
            return Owner(id=f"anyone-{hashed(token or '')[:16]}")
        scopes = frozenset(str(found["scopes"]).split())
        if scope not in scopes:
            raise Denied(403, f"this API key is not allowed to {SCOPES[scope]}")
        return Owner(
            id=found["id"], name=found["name"], scopes=scopes, credits=found["credits"], per_minute=found["per_minute"]
        )

    def count(self, owner: Owner) -> None:
        """Count one request.

        Raises:
            TooMany: the owner's rate is used up.
        """
        if owner.per_minute is None:
            return
        with self._lock:
            now = time.monotonic()
            left, then = self._rates.get(owner.id, (float(owner.per_minute), now))
            left = min(float(owner.per_minute), left + (now - then) * owner.per_minute / MINUTE)
            if left < 1:
                wait = int((1 - left) * MINUTE / owner.per_minute) + 1
                raise TooMany(f"{owner.per_minute} requests a minute are allowed", wait)
            if len(self._rates) > RATED:
                self._rates.clear()
            self._rates[owner.id] = (left - 1, now)


def pay(connection: sa.Connection, owner: str, cost: float) -> None:
    """Take credits, or give them back where the cost is negative.

    Raises:
        Broke: there are not enough.
    """
    left = KEYS.update().where(KEYS.c.id == owner, KEYS.c.credits.is_not(None))
    if cost > 0:
        left = left.where(KEYS.c.credits >= cost)
    if connection.execute(left.values(credits=KEYS.c.credits - cost)).rowcount or cost <= 0:
        return
    if connection.execute(sa.select(KEYS.c.id).where(KEYS.c.id == owner, KEYS.c.credits.is_not(None))).first():
        raise Broke(f"the picture costs {cost:g} credits, which this key has not", hint="ask for more")


def hashed(token: str) -> str:
    """Keys are long and random, so one round of SHA-256 is enough."""
    return hashlib.sha256(token.encode("utf-8", errors="replace")).hexdigest()
