"""Errors as each dialect tells them, whatever went wrong: a status, and one sentence on what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from fastapi import Request as Http
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from fluxone.errors import CannotWrite, FluxoneError, UnknownName, UserError
from fluxone.serve.keys import Broke, Denied, TooMany
from fluxone.serve.line import Busy
from fluxone.serve.serving import NoModel, NotReady
from fluxone.serve.shelf import Away
from fluxone.serve.task import Stopped

log = logging.getLogger("fluxone.serve")

OPENAI = ("/v1/images", "/v1/models")
CODES = {
    400: "bad_request", 401: "unauthorized", 402: "insufficient_credits", 403: "forbidden", 404: "not_found",
    405: "method_not_allowed", 413: "too_large", 422: "invalid_request", 429: "rate_limit_exceeded",
    500: "internal_error", 503: "unavailable",
}  # fmt: skip
UNREAD = "There was an error parsing the body"  # FastAPI's words for JSON that cannot be
AWAY = 5  # s, after which a database that is away may be back


def status_of(error: FluxoneError) -> int:
    """HTTP's status of an error."""
    if isinstance(error, Denied):
        return error.status
    table: dict[type[FluxoneError], int] = {
        Broke: 402, NoModel: 404, NotReady: 503, UnknownName: 404, Busy: 429, TooMany: 429, Stopped: 503,
        CannotWrite: 503, Away: 503, UserError: 422,
    }  # fmt: skip
    return next((status for kind, status in table.items() if isinstance(error, kind)), 500)


def told(
    http: Http, status: int, message: str, *, detail: Any = None, param: str | None = None, retry: int = 0,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error in the shape of the dialect that was spoken to."""
    headers = {"Retry-After": str(retry)} if retry else headers
    if http.url.path.startswith(OPENAI):
        status = 400 if status == 422 else status
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": param, "code": CODES.get(status)}
        return JSONResponse({"error": error}, status, headers)
    body = {"error": CODES.get(status, "error"), "detail": detail or message, "message": message}
    return JSONResponse({**body, **({"retry_after": retry} if retry else {})}, status, headers)


def install(app: FastAPI) -> None:
    """Let the app tell errors so."""

    @app.exception_handler(FluxoneError)
    def ours(http: Http, error: FluxoneError) -> JSONResponse:
        status, retry = status_of(error), getattr(error, "retry_after", 0)
        detail = [{"loc": ["body"], "msg": str(error), "type": "value_error"}] if status == 422 else None
        if status == 500:
            log.error("%s %s: %s", http.method, http.url.path, error)
        return told(http, status, str(error), detail=detail, retry=retry)

    @app.exception_handler(ValidationError)
    @app.exception_handler(RequestValidationError)
    def invalid(http: Http, error: RequestValidationError | ValidationError) -> JSONResponse:
        faults = [{"loc": fault["loc"], "msg": _fault(http, fault), "type": fault["type"]} for fault in error.errors()]
        places = [".".join(str(part) for part in fault["loc"] if part != "body") or "body" for fault in faults]
        message = "; ".join(f"{place}: {fault['msg']}" for place, fault in zip(places, faults, strict=True))
        return told(http, 422, message[:2000], detail=faults, param=places[0])

    @app.exception_handler(HTTPException)
    def plain(http: Http, error: HTTPException) -> JSONResponse:
        return told(http, error.status_code, _sentence(http, error), headers=error.headers)

    @app.exception_handler(sa.exc.SQLAlchemyError)
    def away(http: Http, error: sa.exc.SQLAlchemyError) -> JSONResponse:
        log.error("%s %s: %s", http.method, http.url.path, error)
        return told(http, 503, "the server's database is away; try again later", retry=AWAY)

    @app.exception_handler(Exception)
    def unforeseen(http: Http, error: Exception) -> JSONResponse:
        log.error("%s %s", http.method, http.url.path, exc_info=error)
        return told(http, 500, "the server failed; its log says why")


def _fault(http: Http, fault: Mapping[str, Any]) -> str:
    """What is wrong with a field, or with a body that was not even read as JSON."""
    kind = http.headers.get("content-type", "").split(";")[0]
    if tuple(fault["loc"]) == ("body",) and fault["type"] == "model_attributes_type" and "json" not in kind:
        return "it is not sent as JSON; send a JSON object with Content-Type: application/json"
    return str(fault["msg"]).removeprefix("Value error, ")


def _sentence(http: Http, error: HTTPException) -> str:
    """What the framework says in two words, with what to do."""
    path = http.url.path[:200]
    if error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase:
        return f"there is nothing at {path}; /docs lists what there is"
    if error.status_code == 405:
        return f"{path} takes no {http.method}; use {(error.headers or {}).get('Allow', 'another method')}"
    if error.detail == UNREAD:
        return "the body is no JSON that can be read; send a JSON object in UTF-8"
    return str(error.detail)
