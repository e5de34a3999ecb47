"""Malformed requests by the hundred: every answer is a 4xx with a sentence, or what was asked for; never a 5xx."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from starlette.testclient import TestClient

from fluxone.serve.bfl_fields import ENDPOINTS
from fluxone.serve.openai_bodies import Common
from unit.serve.fake import Fake

VALUES: tuple[object, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, -(2**70), 1e308, float("nan"), float("inf"), 0.5, "", "x", "\x00",
    "\ud800", "🦊" * 3000, "1024x1024", "1x1", "99999x99999", "0:0", "16:9", "9999:1", "iVBORw0KGgo=",
    "data:image/png;base64,AAAA", "data:", "http://[", "http://169.254.169.254/latest", "file:///etc/passwd",
    "https://user@host/", [], [1], {}, {"a": {}}, {"image_url": "data:,"}, [{"image_url": "http://0/"}],
    {"name": "x", "scale": 1e99}, "auto", "low", "webp", "-1", "１",
)  # fmt: skip
BODIES = (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"prompt": 1e999}', b'{"a":' * 3000)
FORM = "multipart/form-data"
KINDS = ("application/json", "text/plain", FORM, f"{FORM}; boundary=x", "x/y; charset=zz", "")


def test_no_malformed_request_is_our_failure(server: Callable[..., TestClient]) -> None:
    client = server(Fake(), waiting=10**6, keep_days=1.0)
    chance = random.Random(6)
    images = [f"/v1/images/{name}" for name in ("generations", "edits", "variations")]
    fields = {f"/v1/{name}": [*row.fields, "seed", "output_format", "webhook_url"] for name, row in ENDPOINTS.items()}
    fields |= {path: [*Common.model_fields, "images", "image", "mask"] for path in images}
    statuses: dict[int, int] = {}
    for number in range(1000):
        path = chance.choice(list(fields))
        if number % 5:
            names = chance.sample(fields[path], chance.randint(1, 2))
            raw, kind = json.dumps({"prompt": "x"} | {name: chance.choice(VALUES) for name in names}).encode(), KINDS[0]
        else:
            raw, kind = chance.choice(BODIES), chance.choice(KINDS)
        reply = client.post(path, content=raw, headers={"Content-Type": kind})
        statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
        assert reply.status_code < 500, (path, raw[:300], kind, reply.text)
        if reply.status_code >= 400:
            told = reply.json()
            assert (told.get("message") or told["error"]["message"]).strip(), (path, raw[:300], told)
    assert statuses[200] > 10
    assert sum(count for status, count in statuses.items() if status >= 400) > 200
    for query in ("", "?id=", "?id=%00", "?id=" + "x" * 5000, "?id=%ff"):
        assert client.get(f"/v1/get_result{query}").status_code in (404, 422)
    for link in ("x?expires=1&signature=x", "..%2fsecret?expires=99999999999&signature=x", "x"):
        assert client.get(f"/results/{link}").status_code in (404, 422)
    assert client.get("/healthz").status_code == 200
