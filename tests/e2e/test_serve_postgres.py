"""Two servers on one PostgreSQL: shared work, one that is killed, a database that goes away and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.server import Server

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'fluxone[postgres]'")
FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
BIN = next((folder for folder in FOLDERS if (folder / "initdb").exists()), None)
USER = "postgres" if os.geteuid() == 0 else None  # PostgreSQL does not run as root
pytestmark = pytest.mark.skipif(BIN is None, reason="PostgreSQL is not installed")


class Postgres:
    """A database server of this test's own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fluxone-postgres-"))
        if USER:
            shutil.chown(self.folder, USER)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        self.run("initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust", "--no-sync")

    def run(self, name: str, *arguments: object) -> None:
        assert BIN is not None
        subprocess.run(
            [BIN / name, *map(str, arguments)], user=USER, cwd=self.folder, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        told = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-w", "-o", told, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    database = Postgres()
    database.start()
    yield database
    database.stop()
    shutil.rmtree(database.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def servers(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("shared")
    config = folder / "server.toml"
    config.write_text(f'database = "{postgres.url}"\nlease_seconds = 3.0\n')
    servers = [Server(folder, environment) for _ in range(2)]
    for server in servers:
        server.start("--config", str(config))
    yield servers
    for server in servers:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)
        server.log.close()


def test_any_server_tells_of_any_job(servers: list[Server]) -> None:
    tasks = [servers[n % 2].draw(seed=n, steps=3, output_format="png") for n in range(6)]
    for n, task in enumerate(tasks):
        told = servers[(n + 1) % 2].wait(task)
        assert (told["status"], told["result"]["seed"]) == ("Ready", n)
        assert servers[(n + 1) % 2].picture(task).shape == (256, 256, 3), "links are good at both"


def test_a_database_that_goes_away_and_comes_back(servers: list[Server], postgres: Postgres) -> None:
    first = servers[0]
    tasks = [first.draw(seed=n, steps=20) for n in range(4)]
    postgres.stop()
    with pytest.raises(urllib.error.HTTPError) as caught:
        first.draw(seed=9)
    assert caught.value.code == 503
    assert int(caught.value.headers["Retry-After"]) >= 1
    caught.value.close()
    assert first.ask("/healthz")["status"] == "ok"
    time.sleep(2)  # what is drawn meanwhile waits for its row
    postgres.start()
    for task in tasks:
        assert first.wait(task)["status"] == "Ready"


def test_what_a_killed_server_had_is_drawn_by_the_other(servers: list[Server]) -> None:
    first, second = servers
    tasks = [first.draw(seed=n, steps=20) for n in range(8)]
    first.end(signal.SIGKILL)
    for task in tasks:
        assert second.wait(task)["status"] == "Ready"
