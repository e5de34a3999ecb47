"""Who asks, from where, and by what address: what every handler needs of an HTTP request."""

from __future__ import annotations

import hashlib

from fastapi import Request as Http

from fluxone.serve.keys import Owner
from fluxone.serve.serving import Serving

BEARER = "bearer "


def serving(http: Http) -> Serving:
    """The server's own things."""
    house: Serving = http.app.state.serving
    return house


def caller(http: Http, scope: str) -> Owner:
    """Whose API key came with the request.

    Raises:
        Denied: nobody's, or it is not for this.
    """
    bearer = http.headers.get("authorization", "")
    token = http.headers.get("x-key") or (bearer[len(BEARER) :].strip() if bearer.lower().startswith(BEARER) else None)
    return serving(http).keys.owner(token, scope)


def base_url(http: Http) -> str:
    """How the client reaches the server, without a slash at its end."""
    return (serving(http).settings.public_url or str(http.base_url)).rstrip("/")


def digest(*parts: str) -> str:
    """Of an order's body: two that are equal ask for the same."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
