"""The log as JSON: a line a request and a job, joined by an id, and no prompts in it unless they are asked for."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from fluxone.errors import UnknownName
from fluxone.serve import logs
from fluxone.serve import run as run_
from fluxone.serve.database import JOBS
from fluxone.serve.settings import Settings
from unit.serve.conftest import wait
from unit.serve.fake import Fake

Server = Callable[..., TestClient]
Told = Callable[[], list[dict]]
SECRET = "a fox with a secret"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """What was logged so far."""
    loggers = [logging.getLogger(name) for name in logs.LOGGERS]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.lines(False)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def drawn(client: TestClient) -> None:
    reply = client.post("/v1/flux-dev", json={"prompt": SECRET}, headers={"X-Request-Id": "mine"})
    assert reply.headers["x-request-id"] == "mine"
    final = wait(client, reply.json()["polling_url"])
    assert "request_id" not in final["details"]


def test_a_request_and_its_job_have_one_id(server: Server, told: Told) -> None:
    drawn(server())
    lines = told()
    assert SECRET not in json.dumps(lines)
    mine = [line for line in lines if line.get("request_id") == "mine"]
    (accepted,) = [line for line in mine if line["message"].endswith("is accepted")]
    (ready,) = [line for line in mine if line.get("status") == "ready"]
    (answered,) = [line for line in mine if line.get("path") == "/v1/flux-dev"]
    assert accepted["job"] == ready["job"]
    assert (accepted["endpoint"], accepted["model"], answered["method"], answered["status"]) == (
        "flux-dev", "mini", "POST", 200,
    )  # fmt: skip
    assert all(line["time"] and line["level"] == "info" for line in mine)


def test_prompts_are_logged_where_they_are_asked_for(server: Server, told: Told) -> None:
    drawn(server(log_prompts=True))
    assert [line["prompt"] for line in told() if "prompt" in line] == [SECRET]


def test_trouble_tells_no_prompt(server: Server, told: Told) -> None:
    client = server()
    database = client.app.state.serving.database
    with database.begin() as connection:
        JOBS.drop(connection)
    reply = client.post("/v1/flux-dev", json={"prompt": SECRET}, headers={"X-Request-Id": "x\u00e9\x07".encode()})
    assert reply.status_code == 503
    assert reply.headers["x-request-id"].isascii()
    lines = told()
    assert any(line["level"] == "error" and "no such table" in line["message"] for line in lines)
    assert SECRET not in json.dumps(lines)


def test_a_failure_names_its_job_and_its_cause(server: Server, told: Told) -> None:
    engine = Fake(held=True)
    client = server(engine)
    url = client.post("/v1/flux-dev", json={"prompt": SECRET}).json()["polling_url"]
    engine.go(error=sa.exc.OperationalError("insert", {"prompt": SECRET}, Exception("away"), hide_parameters=True))
    assert wait(client, url)["status"] == "Error"
    assert [line["status"] for line in told() if line["message"].endswith("is error")] == ["error"]


def test_ways_of_logging_are_a_table() -> None:
    with pytest.raises(UnknownName, match="words"):
        run_.serve(Settings(log="wrods"))
    assert logs.words(False) == {"log_level": "warning"}
