"""Traces: a span a job with its stages inside, sent to a collector, without prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from starlette.testclient import TestClient

from fluxone.serve.tracing import traces_to
from unit.serve.conftest import wait

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install 'fluxone[traces]'")


def test_a_span_a_job(server: Callable[..., TestClient]) -> None:
    heard: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *told: object) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, args=(0.01,), daemon=True).start()
    client = server(traces=f"http://127.0.0.1:{collector.server_port}")
    reply = client.post("/v1/flux-dev", json={"prompt": "secret words", "seed": 1}).json()
    wait(client, reply["polling_url"])
    client.__exit__(None, None, None)
    client.__enter__()  # the fixture ends it once more
    collector.shutdown()
    collector.server_close()
    path, body = heard[0]
    assert path == "/v1/traces"
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    table = {span.name: span for span in spans}
    assert set(table) == {"job", "waiting", "drawing", "saving"}
    told = {pair.key: pair.value for pair in table["job"].attributes}
    assert (told["fluxone.id"].string_value, told["fluxone.status"].string_value) == (reply["id"], "ready")
    assert all(table[name].parent_span_id == table["job"].span_id for name in ("waiting", "drawing", "saving"))
    assert b"secret" not in body


def test_none_without_an_address() -> None:
    assert traces_to("") is None
