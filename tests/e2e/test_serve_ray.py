"""`fluxone serve --engine ray`: two replicas on one database and one folder are one server, and lose no job."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.server import Server
from fluxone.weights.save import save_folder
from unit.tiny import bundle

pytest.importorskip("ray", reason="Ray is not installed: pip install 'fluxone[ray]'")
pytestmark = pytest.mark.slow

PATIENCE, STOP = 300, 120  # s, on a machine that is busy
SETTINGS = """
engine = "ray"
models = ["MODEL"]
replicas = 2
replica_cpus = 0.5
lease_seconds = 6.0
keep_days = 1.0
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ray")
    config = folder / "server.toml"
    made = bundle(folder / "words")
    save_folder(
        folder / "tiny", variant=made.variant, transformer=made.transformer, autoencoder=made.autoencoder, t5=made.t5,
        clip=made.clip, tokenizers=dict.fromkeys(("tokenizer", "tokenizer_2"), folder / "words"),
    )  # fmt: skip
    config.write_text(SETTINGS.replace("MODEL", str(folder / "tiny")))
    server = Server(folder, environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("e2e.server.READY", PATIENCE)
        server.start("--config", str(config))
    yield server
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(STOP)
    server.log.close()


def drew(folder: Path, tasks: list[str]) -> set[str]:
    """The replicas that had these jobs."""
    with sqlite3.connect(folder / "fluxone.db") as database:
        found = database.execute("select id, server from jobs").fetchall()
    database.close()
    return {name for job, name in found if job in tasks}


def replicas() -> list[int]:
    """Processes of replicas."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "ray::ServeReplica:fluxone" in line]


def test_replicas_are_one_server(server: Server) -> None:
    tasks: list[str] = []
    end = time.monotonic() + PATIENCE
    while len(tasks) < 12 or len(drew(server.folder, tasks)) < 2:  # the second may still be loading
        assert time.monotonic() < end
        tasks.append(server.draw(seed=len(tasks), steps=3, output_format="png"))
        time.sleep(0.05)
    for n, task in enumerate(tasks):
        told = server.wait(task)
        assert (told["status"], told["result"]["seed"]) == ("Ready", n)
        assert server.picture(task).shape == (256, 256, 3)  # drawn smaller, and scaled


def test_requests_for_a_lora_are_led_to_one_replica(server: Server) -> None:
    def ask() -> str:
        body = json.dumps({"prompt": "a fox", "width": 256, "height": 256, "steps": 1}).encode()
        headers = {"Content-Type": "application/json", "serve-multiplexed-model-id": "tok"}
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/flux-dev", body, headers)) as answer:
            return json.load(answer)["id"]

    server.wait(ask())
    time.sleep(2)  # Ray tells its proxies
    tasks = []
    for _ in range(8):
        tasks.append(ask())
        server.wait(tasks[-1])
    assert len(drew(server.folder, tasks)) == 1


def test_what_a_killed_replica_had_is_drawn(server: Server) -> None:
    tasks = [server.draw(seed=n, steps=12) for n in range(8)]
    os.kill(replicas()[0], signal.SIGKILL)
    for task in tasks:
        assert server.wait(task)["status"] == "Ready"


def test_a_rolling_restart_loses_nothing(server: Server, environment: dict[str, str]) -> None:
    before = set(replicas())
    config = server.folder / "again.toml"
    told = (server.folder / "server.toml").read_text()
    config.write_text(told.replace("keep_days = 1.0", 'keep_days = 2.0\ncluster = "auto"'))
    again = subprocess.Popen(
        [sys.executable, "-m", "fluxone", "serve", "--port", str(server.port), "--folder", str(server.folder),
         "--config", str(config)],
        env=environment, stdout=server.log, stderr=server.log,
    )  # fmt: skip
    tasks = []
    end = time.monotonic() + PATIENCE
    while before & set(replicas()):
        assert again.poll() is None, "it ended"
        assert time.monotonic() < end
        tasks.append(server.draw(seed=len(tasks), steps=4))
        time.sleep(0.5)
    for task in tasks:
        assert server.wait(task)["status"] == "Ready"
    again.send_signal(signal.SIGTERM)
    assert again.wait(STOP) == 0
    assert server.ask("/readyz")["ready"], "what joined a cluster leaves the replicas running"
