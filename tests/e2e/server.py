"""`fluxone serve` in a process of its own, and what tests ask it."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

READY = 180  # s, on a machine that is busy


class Server:
    """A server in a process of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.environment = folder, environment
        self.models: list[str] = []
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = (folder / "log").open("ab")

    def start(self, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fluxone", "serve", "--port", str(self.port), "--folder", str(self.folder), *more],
            env=self.environment, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        end = time.monotonic() + READY
        while True:
            try:
                self.models = self.ask("/readyz")["models"]
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def ask(self, path: str, body: dict | None = None) -> dict:
        url = path if path.startswith("http") else self.url + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def draw(self, **body: object) -> str:
        """The id of what will be drawn."""
        return self.ask("/v1/flux-dev", {"prompt": "a red car", "width": 256, "height": 256, **body})["id"]

    def wait(self, task: str) -> dict:
        end = time.monotonic() + 120
        while (told := self.ask(f"/v1/get_result?id={task}"))["status"] == "Pending":
            assert time.monotonic() < end
            time.sleep(0.02)
        return told

    def picture(self, task: str) -> np.ndarray:
        told = self.wait(task)
        assert told["status"] == "Ready", told
        with urllib.request.urlopen(told["result"]["sample"], timeout=30) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"), dtype=int)
