"""How a server's log is written: in words, or one JSON object a line, with the id of the HTTP request it belongs to.

    {"time": ..., "level": "info", "message": ..., "request_id": ..., "job": ..., "status": ..., "seconds": ...}

Prompts are in no line, unless the operator asks for them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

LOGGERS = ("fluxone", "uvicorn")
REQUEST: ContextVar[str] = ContextVar("request", default="")  # id of the HTTP request that is being answered


class Lines(logging.Formatter):
    """A JSON object a record: what every record has, and what was given as `extra={"told": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if name := REQUEST.get():
            told["request_id"] = name
        told |= getattr(record, "told", {})
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def words(quiet: bool) -> dict[str, Any]:
    """Warnings and errors, as the command line shows them; returns what uvicorn is to be told."""
    return {"log_level": "error" if quiet else "warning"}


def lines(quiet: bool) -> dict[str, Any]:
    """Every request and every job, as JSON on standard error; of a quiet server, errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.ERROR if quiet else logging.INFO)
    return {"log_config": None, "access_log": False}


LOGS: dict[str, Callable[[bool], dict[str, Any]]] = {"words": words, "json": lines}
