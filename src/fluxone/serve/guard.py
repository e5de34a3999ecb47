"""What surrounds every request: the host that is asked for, where it comes from, headers of the answer, its count.

A browser that was led here by another site is turned away: a name of that site that now points to this machine (DNS
rebinding) is no host of ours, and a page of another origin may not call us.
"""

from __future__ import annotations

import logging
import time
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request as Http
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fluxone.serve.answers import told
from fluxone.serve.logs import REQUEST
from fluxone.serve.metrics import Metrics
from fluxone.serve.settings import LOOPBACK, MEGABYTE, Settings

log = logging.getLogger("fluxone.serve")

DIGITS = 18  # of a length that is worth reading
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
}


class Guard:
    """Stands before the app."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.metrics, self.most = app, metrics, settings.body_megabytes * MEGABYTE
        own = urlsplit(settings.public_url).hostname if settings.public_url else None
        # Reached from elsewhere it has names that it cannot know; API keys stand before it then.
        self.hosts = {*LOOPBACK, own} if settings.local else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, began, status = Headers(scope=scope), time.perf_counter(), 500
        name = headers.get("x-request-id", "")[:64]
        name = name if name.isascii() and name.isprintable() and name.strip() else uuid.uuid4().hex
        REQUEST.set(name)
        method = scope["method"]
        if method == "HEAD":  # what GET would answer, without its body
            scope = {**scope, "method": "GET"}

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = MutableHeaders(scope=message)
                more["X-Request-Id"] = name
                for key, value in HEADERS.items():
                    more.setdefault(key, value)
            elif method == "HEAD" and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            if refused := self.refused(headers):
                await told(Http(scope), *refused)(scope, receive, noted)
            else:
                await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.answered(route, status)
            seconds = time.perf_counter() - began
            said = {"method": method, "path": route, "status": status, "seconds": round(seconds, 4)}
            log.info("%s %s %d %.3fs id=%s", method, route, status, seconds, name, extra={"told": said})
        return None

    def refused(self, headers: Headers) -> tuple[int, str] | None:
        """With what status and words a request with these headers is turned away, if it is."""
        host = urlsplit(f"//{headers.get('host', '')}").hostname
        if self.hosts is not None and host not in self.hosts:
            return 403, f"this server is not called {host}; use localhost, or set public_url"
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != headers.get("host"):
            return 403, "pages of other sites may not use this server"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > DIGITS or int(length) > self.most:
            return 413, f"the body is larger than {self.most} bytes"
        return None
