"""The server's outside: keys, hosts, limits, addresses that it does not go to, health, metrics, the page."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from starlette.testclient import TestClient

from fluxone.cli.main import run
from fluxone.errors import BadRequest, MissingExtra
from fluxone.serve import fetch
from fluxone.serve import run as run_
from fluxone.serve.engine import State
from fluxone.serve.pictures import Limits, from_bytes
from fluxone.serve.settings import Settings
from unit.serve.conftest import wait
from unit.serve.fake import Fake

Server = Callable[..., TestClient]


def test_keys_open_what_they_are_for(server: Server) -> None:
    client = server(concurrent=1)
    keys = client.app.state.serving.keys
    token = keys.make("me", scopes=("draw",), credits=1, per_minute=100)
    body = {"prompt": "x"}
    assert client.post("/v1/flux-dev", json=body).status_code == 401
    assert client.post("/v1/flux-dev", json=body, headers={"x-key": "fx-no"}).status_code == 403
    assert client.get("/metrics", headers={"x-key": token}).status_code == 403
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    wrong = client.get("/v1/models").json()["error"]
    assert (wrong["type"], wrong["code"]) == ("invalid_request_error", "unauthorized")
    mine = {"X-Key": token}
    assert client.get("/v1/credits", headers=mine).json() == {"credits": 1}
    reply = client.post("/v1/flux-dev", json=body, headers=mine).json()
    wait(client, reply["polling_url"])
    broke = client.post("/v1/flux-dev", json=body, headers=mine)
    assert (broke.status_code, broke.json()["error"]) == (402, "insufficient_credits")


def test_too_much_at_a_time(server: Server) -> None:
    engine = Fake(held=True)
    client = server(engine, concurrent=1, waiting=3)
    keys = client.app.state.serving.keys
    slow, many = keys.make("slow", per_minute=1), keys.make("many")
    for token in (slow, many):
        for status in (200, 429):
            reply = client.post("/v1/flux-dev", json={"prompt": "x"}, headers={"x-key": token})
            assert reply.status_code == status
        assert int(reply.headers["retry-after"]) == reply.json()["retry_after"] >= 1
    engine.now = State(ready=True, waiting=3)
    assert client.post("/v1/flux-dev", json={}, headers={"x-key": keys.make("more")}).status_code == 429
    engine.go()


def test_pages_of_other_sites_are_turned_away(server: Server) -> None:
    client = server()
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/healthz", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get("/healthz", headers={"Origin": "http://127.0.0.1"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "localhost:8080"}).status_code == 200
    assert server(public_url="https://flux.example").get("/healthz", headers={"Host": "flux.example"}).is_success


def test_bodies_and_pictures_that_are_too_large(server: Server) -> None:
    client = server(body_megabytes=1)
    huge = client.post("/v1/flux-dev", json={"prompt": "x" * 2_000_000})
    assert (huge.status_code, huge.json()["error"]) == (413, "too_large")
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    with pytest.raises(BadRequest, match="too many pixels"):
        from_bytes(file.getvalue(), "image", Limits())
    small = io.BytesIO()
    Image.new("1", (2000, 1000)).save(small, "PNG")
    with pytest.raises(BadRequest, match="2000x1000"):
        from_bytes(small.getvalue(), "image", Limits(megapixels=1.5))
    lying = file.getvalue()[:16] + (64).to_bytes(4, "big") * 2 + file.getvalue()[24:]
    for data in (lying, b"", b"<svg/>", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, file.getvalue()[:300]):
        with pytest.raises(BadRequest):
            from_bytes(data, "image", Limits(megapixels=1))


def test_health_readiness_and_metrics(server: Server) -> None:
    engine = Fake()
    client = server(engine)
    reply = client.post("/v1/flux-dev", json={"prompt": "secret words"}).json()
    wait(client, reply["polling_url"])
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json() == {"ready": True, "waiting": 0, "begun": 0, "models": ["mini"]}
    text = client.get("/metrics").text
    assert 'fluxone_jobs_total{status="ready"} 1.0' in text
    assert 'fluxone_requests_total{path="/v1/flux-dev",status="200"} 1.0' in text
    for stage in ("waiting", "drawing", "saving"):
        assert f'fluxone_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert "secret words" not in text
    engine.now = State(ready=False)
    early = client.post("/v1/flux-dev", json={"prompt": "x"})
    assert (early.status_code, early.json()["error"], early.headers["retry-after"]) == (503, "unavailable", "5")
    engine.now = State(ready=False, trouble="no such model")
    assert (client.get("/readyz").status_code, client.get("/readyz").json()["trouble"]) == (503, "no such model")


def test_head_answers_what_get_would(server: Server) -> None:
    client = server()
    for path in ("/", "/healthz", "/readyz", "/metrics", "/docs", "/page.js", "/v1/models", "/openapi.json"):
        reply = client.head(path)
        assert (reply.status_code, reply.content) == (200, b""), path
        assert reply.headers["content-type"] == client.get(path).headers["content-type"]
    told = client.post("/v1/flux-dev", json={"prompt": "x"}).json()
    sample = urlsplit(wait(client, told["polling_url"])["result"]["sample"])
    head = client.head(f"{sample.path}?{sample.query}")
    assert (head.status_code, head.headers["content-type"], head.content) == (200, "image/jpeg", b"")
    assert client.head("/v1/flux-dev").status_code == 405
    assert client.head("/nowhere").status_code == 404


def test_what_is_not_there_and_not_taken_is_said(server: Server) -> None:
    client = server()
    wrong = client.delete("/v1/flux-dev")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["message"] == "/v1/flux-dev takes no DELETE; use POST"
    assert client.options("/v1/images/generations").json()["error"]["message"].endswith("use POST")
    assert client.get("/nowhere").json()["message"].startswith("there is nothing at /nowhere")
    for path, place in (("/v1/flux-dev", "message"), ("/v1/images/generations", "error")):
        for raw, kind, found in (
            (b"prompt=x", "text/plain", "Content-Type: application/json"),
            (b'{"prompt":"\xff"}', "application/json", "no JSON that can be read"),
        ):
            told = client.post(path, content=raw, headers={"Content-Type": kind})
            assert told.status_code in (400, 422) and found in str(told.json()[place])


def test_what_was_left_undone_is_taken_up(server: Server) -> None:
    held = Fake(held=True)
    url = server(held).post("/v1/flux-dev", json={"prompt": "x"}).json()["polling_url"]
    assert wait(server(Fake()), url)["status"] == "Ready"


def test_the_page_asks_nobody_else(server: Server) -> None:
    client = server()
    for path in ("/", "/page.css", "/page.js", "/api.js", "/history.js", "/source.js", "/docs", "/docs.js"):
        reply = client.get(path)
        assert reply.status_code == 200
        assert "http://" not in reply.text
        assert "https://" not in reply.text
        assert "default-src 'self'" in reply.headers["content-security-policy"]
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/flux-dev", "/v1/images/generations", "/v1/get_result", "/readyz"} <= set(paths)


@pytest.fixture
def there() -> Iterator[str]:
    """A server on this machine; `/away` redirects to another private address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            away = self.path == "/away"
            self.send_response(302 if away else 200)
            self.send_header("Location", "http://[::1]:9/x") if away else None
            self.end_headers()
            self.wfile.write(b"x" * 100)

        def log_message(self, *told: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


PRIVATE = (
    "http://127.0.0.1/", "http://localhost:80/", "http://10.0.0.1/", "http://192.168.1.1/", "http://169.254.169.254/",
    "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/", "http://2130706433/", "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/", "http://100.64.0.1/", "http://224.0.0.1/", "http://[2002:7f00:1::]/",
    "http://[64:ff9b::7f00:1]/",
)  # fmt: skip


@pytest.mark.parametrize("url", [*PRIVATE, "file:///etc/passwd", "http://", "http://u:p@example.com/", "http://a:b/"])
def test_private_addresses_are_not_gone_to(url: str) -> None:
    with pytest.raises(BadRequest):
        fetch.fetch(url, limit=100)


def test_what_may_be_fetched(there: str) -> None:
    assert fetch.fetch(there, limit=100, reachable=("127.0.0.1",)) == b"x" * 100
    with pytest.raises(BadRequest, match="larger than 99"):
        fetch.fetch(there, limit=99, reachable=("127.0.0.1",))
    with pytest.raises(BadRequest, match="not a public address"):
        fetch.fetch(f"{there}/away", limit=99, reachable=("127.0.0.1",))


def test_who_sends_for_ever_is_left(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "WHOLE", -1.0)
    with pytest.raises(BadRequest, match="takes longer than"):
        fetch.fetch(there, limit=100, reachable=("127.0.0.1",))


def test_a_name_that_changes_its_address_gains_nothing(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(there.rpartition(":")[2])
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    asked: list[tuple[str, int]] = []

    def rebinding(host: str, port: int, **told: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(address: tuple[str, int], **told: object) -> socket.socket:
        asked.append(address)
        raise OSError("no way there")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(BadRequest, match="cannot be reached"):
        fetch.fetch(f"http://rebinding.example:{port}/", limit=100)
    assert asked == [("93.184.216.34", port)], "the address that was checked is the one that was gone to"


def test_it_is_not_opened_to_others_without_keys(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no API keys"):
        run_.serve(Settings(host="0.0.0.0", folder=tmp_path))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_, "PACKAGES", ("no_such_package",))
    with pytest.raises(MissingExtra, match=r"fluxone\[serve\]"):
        run_.available()


def test_keys_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--folder", str(tmp_path)]
    assert run(["serve", *folder, "--new-key", "me", "--key-credits", "5"]) == 0
    token = capsys.readouterr().out.strip()
    assert run_.keys_of(Settings(folder=tmp_path)).owner(token, "draw").credits == 5
    assert run(["serve", *folder, "--new-key", "me"]) == 2
    assert run(["serve", *folder, "--drop-key", "me"]) == 0
    assert run(["serve", *folder, "--drop-key", "me"]) == 2
    assert "no key is called 'me'" in capsys.readouterr().err
    assert run(["serve", *folder, "--model", "dve"]) == 2
