"""A stand-in for the Hugging Face hub: repositories in memory, answered over HTTP as the real one does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef" * 2 + "01234567"
LARGE = 500  # bytes from which a file is kept by its SHA-256


@dataclass
class Hub:
    """What the stand-in has, and what it was asked.

    Attributes:
        files: of each repository: name -> content.
        said: name -> checksum that it says instead of the right one.
        gated: repositories that only this token may have.
        resumes: whether it sends a file from its middle on.
        asked: method, path, Range and Authorization of every request.
    """

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    gated: dict[str, str] = field(default_factory=dict)
    resumes: bool = True
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)

    def fetched(self) -> list[str]:
        """The files that were sent, in order."""
        return [path.split(f"/resolve/{COMMIT}/")[1] for method, path, _, _ in self.asked if "/resolve/" in path]


def described(name: str, content: bytes, said: str | None) -> dict[str, Any]:
    """A file as the hub describes it."""
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    row: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": said or git}
    if len(content) >= LARGE:
        sha256 = said or hashlib.sha256(content).hexdigest()
        row |= {"blobId": "0" * 40, "lfs": {"sha256": sha256, "size": len(content), "pointerSize": 130}}
    return row


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub for the time of the context."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("Authorization")
            hub.asked.append((self.command, self.path, self.headers.get("Range"), token))
            path = unquote(self.path.partition("?")[0])
            if path.startswith("/api/models/"):
                return self.told(path.removeprefix("/api/models/"))
            repo, _, name = path[1:].partition(f"/resolve/{COMMIT}/")
            if name not in hub.files.get(repo, {}):
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            if repo in hub.gated and token != f"Bearer {hub.gated[repo]}":
                return self.answer(403 if token else 401, b"", {"X-Error-Code": "GatedRepo"})
            return self.send(hub.files[repo][name])

        do_HEAD = do_GET

        def told(self, repo: str) -> None:
            repo = repo.partition("/revision/")[0]
            if repo not in hub.files:
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            siblings = [described(name, content, hub.said.get(name)) for name, content in hub.files[repo].items()]
            body = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return self.answer(200, json.dumps(body).encode())

        def send(self, content: bytes) -> None:
            asked = self.headers.get("Range") if hub.resumes else None
            start = int((asked or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            rest = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(rest)

        def answer(self, code: int, body: bytes, more: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(body)), **(more or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
