"""A server in this process, before an engine without networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fluxone.serve.app import create_app
from fluxone.serve.metrics import Metrics
from fluxone.serve.policy import Policy
from fluxone.serve.settings import Settings
from unit.serve.fake import Fake

BASE = "http://127.0.0.1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Start one; what is told goes into its settings."""
    clients: list[TestClient] = []

    def go(engine: Fake | None = None, policy: Policy | None = None, **told: object) -> TestClient:
        app = create_app(Settings(folder=tmp_path, **told), engine or Fake(), Metrics(), policy)
        client = TestClient(app, base_url=BASE, raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client

    yield go
    for client in clients:
        client.__exit__(None, None, None)


def wait(client: TestClient, url: str) -> dict:
    """Poll until it is no more pending."""
    for _ in range(500):
        told = client.get(url).json()
        if told["status"] != "Pending":
            return told
        time.sleep(0.01)
    raise AssertionError(told)
