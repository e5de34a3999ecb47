"""A server in this process, before an engine without networks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
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


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A server that listens; its address."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def go(engine: Fake, policy: Policy | None = None) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        app = create_app(Settings(folder=tmp_path, port=port), engine, Metrics(), policy)
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.005)
        return f"http://127.0.0.1:{port}"

    yield go
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


def wait(client: TestClient, url: str) -> dict:
    """Poll until it is no more pending."""
    for _ in range(500):
        told = client.get(url).json()
        if told["status"] != "Pending":
            return told
        time.sleep(0.01)
    raise AssertionError(told)
