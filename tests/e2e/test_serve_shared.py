"""`fluxone serve` whose model is shared by two processes: kill -9 of either loses nothing, and none stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from e2e.server import Server

CONFIG = """
models = ["MODEL"]
devices = ["cpu", "cpu"]
parallel = "ulysses"
"""
WAIT = 60  # s, on a machine that is busy


def follower(server: Server) -> int:
    """The process that shares the server's model."""
    asked = ["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    (found,) = [int(line.split()[0]) for line in listed.splitlines() if "fluxone.serve.follower" in line]
    return found


def ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # nobody has asked for it


@pytest.mark.slow
def test_kill_9_of_either_process_loses_nothing(tmp_path: Path, environment: dict[str, str], tiny: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(CONFIG.replace("MODEL", str(tiny)))
    server = Server(tmp_path, {**environment, "GLOO_SOCKET_IFNAME": "lo"})
    try:
        server.start("--config", str(config))
        first = server.picture(server.draw(seed=1, steps=3, output_format="png"))
        before = follower(server)
        task = server.draw(seed=1, steps=3, output_format="png")
        os.kill(before, signal.SIGKILL)
        assert np.array_equal(server.picture(task), first), "as if nothing had been"
        after = follower(server)
        assert after != before
        task = server.draw(seed=1, steps=3, output_format="png")
        server.end(signal.SIGKILL)
        end = time.monotonic() + WAIT
        while not ended(after):
            assert time.monotonic() < end, "it outlives the server"
            time.sleep(0.05)
        server.start("--config", str(config))
        assert np.array_equal(server.picture(task), first)
        last = follower(server)
        assert server.end(signal.SIGTERM) in (0, 143, -signal.SIGTERM) and ended(last)
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)
        server.log.close()
