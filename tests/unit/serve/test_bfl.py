"""BFL's dialect: its endpoints, ranges, statuses and errors, and what a local model answers where it cannot."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image
from starlette.testclient import TestClient

from fluxone.errors import BrokenModel
from fluxone.geometry import Resolution
from fluxone.serve import webhooks
from fluxone.serve.bfl_fields import ENDPOINTS
from fluxone.serve.engine import Beside
from fluxone.serve.policy import Policy
from fluxone.variants import CANNY, FILL, KONTEXT, MINI, Kind
from unit.serve.conftest import BASE, wait
from unit.serve.fake import SMALL, Fake, colour

Server = Callable[..., TestClient]
WORDS = [name for name, endpoint in ENDPOINTS.items() if endpoint.make in ("words", "ultra")]


def picture(width: int = 64, height: int = 48, mode: str = "RGB", colour_: object = 90, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new(mode, (width, height), colour_).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def drawn(client: TestClient, endpoint: str, **body: object) -> dict:
    """Post, poll, and the answer at its end."""
    reply = client.post(f"/v1/{endpoint}", json=body)
    assert reply.status_code == 200, reply.text
    return wait(client, reply.json()["polling_url"])


@pytest.mark.parametrize("endpoint", WORDS)
def test_every_endpoint_of_words_is_served_by_the_mini(server: Server, endpoint: str) -> None:
    client = server(finetunes={"tok": "tok.safetensors"})
    extra = {"finetune_id": "org/tok"} if "finetuned" in endpoint else {}
    reply = client.post(f"/v1/{endpoint}", json={"prompt": "a fox", "seed": 7, **extra}).json()
    assert set(reply) == {"id", "polling_url", "cost", "input_mp", "output_mp"}
    assert reply["polling_url"] == f"{BASE}/v1/get_result?id={reply['id']}"
    told = wait(client, reply["polling_url"])
    assert (told["status"], told["progress"], told["preview"]) == ("Ready", 1.0, None)
    result = told["result"]
    assert (result["prompt"], result["seed"]) == ("a fox", 7)
    assert result["duration"] == pytest.approx(result["end_time"] - result["start_time"])
    answer = client.get(result["sample"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    image = Image.open(io.BytesIO(answer.content))
    wide = "ultra" in endpoint or "raw" in endpoint
    assert image.size == ((2736, 1536) if wide else (1024, 768))
    assert all(abs(a - b) < 4 for a, b in zip(image.getpixel((9, 9)), colour(7), strict=True))
    assert reply["output_mp"] == pytest.approx(image.width * image.height / 1e6, abs=1e-4)
    assert "drawn at" in told["details"]["notes"][0]


def test_what_is_asked_for_reaches_the_engine(server: Server) -> None:
    engine = Fake(held=True)
    client = server(engine, finetunes={"tok": "tok.safetensors"})
    body = {
        "prompt": "x", "seed": 5, "steps": 9, "guidance": 2.5, "width": 640, "height": 704, "finetune_id": "tok",
        "finetune_strength": 0.7, "output_format": "webp",
    }  # fmt: skip
    reply = client.post("/v1/flux-pro-finetuned", json=body)
    assert reply.status_code == 200
    (task,) = engine.tasks
    request = task.wanted.request
    assert (request.steps, request.guidance, request.seed) == (9, 2.5, 5)
    drawn = Resolution.from_aspect("640:704", MINI.size**2)
    assert (request.resolution, str(request.frame)) == (drawn, "640x704")
    assert task.wanted.loras == (("tok.safetensors", 0.7),)
    task.done, task.steps = 3, 9
    told = client.get(reply.json()["polling_url"]).json()
    assert (told["status"], told["result"]) == ("Pending", None)
    assert told["progress"] == pytest.approx(1 / 3)
    engine.go()
    assert wait(client, reply.json()["polling_url"])["result"]["sample"].split("?")[0].endswith(".webp")


BAD = [
    ("flux-dev", {"width": 100}, "width"),
    ("flux-dev", {"width": 300}, "width"),
    ("flux-dev", {"steps": 51}, "steps"),
    ("flux-dev", {"guidance": 9}, "guidance"),
    ("flux-dev", {"seed": -1}, "seed"),
    ("flux-dev", {"safety_tolerance": 7}, "safety_tolerance"),
    ("flux-dev", {"output_format": "gif"}, "output_format"),
    ("flux-dev", {"prompt": "x" * 32_001}, "prompt"),
    ("flux-kontext-pro", {}, "prompt"),
    ("flux-pro-1.0-fill", {}, "image"),
    ("flux-pro-1.1-ultra", {"aspect_ratio": "wide"}, "aspect_ratio"),
    ("flux-pro-1.1-ultra", {"aspect_ratio": "5:1"}, None),
    ("flux-pro-1.0-expand", {"image": picture()}, None),
    ("flux-pro-1.0-expand", {"image": picture(), **dict.fromkeys(("top", "bottom", "left", "right"), 2048)}, None),
    ("flux-pro-1.0-fill", {"image": picture()}, None),
    ("flux-pro-1.0-fill", {"image": picture(), "mask": picture(32, 48)}, None),
    ("flux-pro-1.0-fill", {"image": "no picture"}, None),
    ("flux-dev", {"prompt": "\ud800"}, None),
    ("flux-dev", {"webhook_url": "ftp://example.com"}, None),
    ("flux-dev", {"webhook_url": "http://127.0.0.1:1/x"}, None),
]


def test_bad_bodies(server: Server) -> None:
    client = server(megapixels=10.0)
    for endpoint, body, place in BAD:
        reply = client.post(f"/v1/{endpoint}", content=json.dumps(body), headers={"Content-Type": "application/json"})
        told = reply.json()
        assert reply.status_code == 422, (body, told)
        assert told["message"]
        assert set(told["detail"][0]) == {"loc", "msg", "type"}
        if place:
            assert place in told["detail"][0]["loc"]


def test_null_is_the_default(server: Server) -> None:
    client = server()
    names = ("width", "height", "safety_tolerance", "prompt_upsampling", "output_format", "steps", "guidance", "seed")
    assert client.post("/v1/flux-dev", json={"prompt": None, **dict.fromkeys(names)}).status_code == 200
    ultra = dict.fromkeys(("aspect_ratio", "raw", "image_prompt", "image_prompt_strength"))
    assert client.post("/v1/flux-pro-1.1-ultra", json={"prompt": "x", **ultra}).status_code == 200
    told = client.post("/v1/flux-kontext-pro", json={"prompt": None}).json()
    assert told["message"] == "prompt: Field required"


def test_what_no_model_can_do_is_said(server: Server) -> None:
    client = server(Fake({"mini": MINI}))
    for endpoint, body in {
        "flux-kontext-pro": {"prompt": "make it blue", "input_image": picture()},
        "flux-pro-1.0-canny": {"prompt": "x", "control_image": picture()},
        "flux-dev": {"prompt": "x", "image_prompt": picture()},
        "flux-2-pro": {"prompt": "x"},
        "flux-dve": {"prompt": "x"},
        "flux-pro-finetuned": {"prompt": "x", "finetune_id": "nobody"},
    }.items():
        reply = client.post(f"/v1/{endpoint}", json=body)
        assert reply.status_code == 404, endpoint
        assert reply.json()["detail"] == reply.json()["message"]
    assert "did you mean 'flux-dev'" in client.post("/v1/flux-dve", json={}).json()["message"]


def test_the_table_of_endpoints_chooses_the_model(server: Server) -> None:
    engine = Fake({"mini": MINI, "kontext": KONTEXT, "fill": FILL, "canny": CANNY}, held=True)
    client = server(engine, endpoints={"flux-pro": "kontext"})
    post = client.post
    assert post("/v1/flux-dev", json={"prompt": "x"}).status_code == 200
    assert post("/v1/flux-pro", json={"prompt": "x"}).status_code == 200
    images = {"input_image": picture(), "input_image_2": picture(32, 32), "aspect_ratio": "1:1"}
    assert post("/v1/flux-kontext-max", json={"prompt": "x", **images}).status_code == 200
    body = {"image": picture(), "mask": picture(mode="L", colour_=255), "guidance": 60}
    assert post("/v1/flux-pro-1.0-fill", json=body).status_code == 200
    body = {"prompt": "x", "preprocessed_image": picture()}
    assert post("/v1/flux-pro-1.0-canny", json=body).status_code == 200
    wanted = [task.wanted for task in engine.tasks]
    assert [one.model for one in wanted] == ["mini", "kontext", "kontext", "fill", "canny"]
    assert [image.size for image in wanted[2].request.references] == [(64, 48), (32, 32)]
    assert str(wanted[2].request.resolution) == "1024x1024"
    assert wanted[3].request.guidance == FILL.guidance
    assert wanted[3].request.mask.getpixel((0, 0)) == 255
    assert wanted[4].request.detector is None


def test_filling_and_growing_without_a_model_of_masks(server: Server) -> None:
    engine = Fake(held=True)
    client = server(engine)
    clear = Image.new("RGBA", (64, 48), (9, 9, 9, 255))
    clear.paste((9, 9, 9, 0), (0, 0, 32, 48))
    file = io.BytesIO()
    clear.save(file, "PNG")
    body = {"image": base64.b64encode(file.getvalue()).decode()}
    reply = client.post("/v1/flux-pro-1.0-fill", json=body).json()
    assert "not trained on masks" in str(client.get(reply["polling_url"]).json()["details"])
    client.post("/v1/flux-pro-1.0-expand", json={"image": picture(), "left": 16, "top": 8})
    fill, expand = (task.wanted.request for task in engine.tasks)
    assert (fill.mask.getpixel((1, 1)), fill.mask.getpixel((63, 1))) == (255, 0)
    assert expand.expand == (16, 0, 8, 0)


def test_a_task_that_is_not_there(server: Server) -> None:
    reply = server().get("/v1/get_result?id=nobody")
    assert reply.status_code == 404
    assert reply.json()["status"] == "Task not found"
    assert reply.json()["detail"] == reply.json()["message"]


def test_moderation_and_failure_are_statuses(server: Server) -> None:
    policy = Policy(
        prompt=lambda text, tolerance: ["Words"] if "bad" in text and tolerance < 4 else [],
        picture=lambda image, tolerance: ["Safety Filter"] if tolerance == 6 else [],
    )
    engine = Fake()
    client = server(engine, policy)
    told = drawn(client, "flux-dev", prompt="bad")
    assert (told["status"], told["result"]) == ("Request Moderated", None)
    assert told["details"]["Moderation Reasons"] == ["Words"]
    told = drawn(client, "flux-dev", prompt="bad", safety_tolerance=6)
    assert (told["status"], told["result"]) == ("Content Moderated", None)
    engine.held = True
    reply = client.post("/v1/flux-dev", json={"prompt": "x"}).json()
    engine.go(error=BrokenModel("it broke"))
    told = wait(client, reply["polling_url"])
    assert (told["status"], told["details"]["error"]) == ("Error", "it broke")


def test_links_expire_and_cannot_be_forged(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    client = server(link_seconds=60)
    link = drawn(client, "flux-dev", prompt="x")["result"]["sample"]
    assert client.get(link).status_code == 200
    assert client.get(link[:-4] + "0000").status_code == 404
    later = __import__("time").time() + 61
    monkeypatch.setattr("time.time", lambda: later)
    assert "expired" in client.get(link).json()["message"]


def test_idempotency_and_cancelling(server: Server) -> None:
    engine = Fake(held=True)
    client = server(engine)
    once = {"Idempotency-Key": "abc"}
    first = client.post("/v1/flux-dev", json={"prompt": "x"}, headers=once).json()
    assert client.post("/v1/flux-dev", json={"prompt": "x"}, headers=once).json()["id"] == first["id"]
    assert client.post("/v1/flux-dev", json={"prompt": "y"}, headers=once).status_code == 422
    assert client.post(f"/v1/cancel?id={first['id']}").json()["cancelled"]
    engine.go()
    told = wait(client, first["polling_url"])
    assert (told["status"], told["details"]["error"]) == ("Error", "the request was cancelled")


class Receiver:
    """A client's own server, which fails the first time."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict, str | None, bytes]] = []
        outer, self.done = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                outer.heard.append((json.loads(raw), self.headers["X-BFL-Signature"], raw))
                self.send_response(500 if len(outer.heard) == 1 else 204)
                self.end_headers()
                if len(outer.heard) > 1:
                    outer.done.set()

            def log_message(self, *told: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?x=1"


def test_webhooks_are_signed_and_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "LOOK", 0.01)
    monkeypatch.setattr(webhooks.Webhooks.__init__, "__kwdefaults__", {"first": 0.01})
    receiver = Receiver()
    client = server(reachable=("127.0.0.1",))
    body = {"prompt": "x", "seed": 3, "webhook_url": receiver.url, "webhook_secret": "s"}
    reply = client.post("/v1/flux-dev", json=body).json()
    assert (reply["status"], reply["webhook_url"]) == ("Pending", receiver.url)
    assert receiver.done.wait(10)
    receiver.server.shutdown()
    receiver.server.server_close()
    (first, _, _), (told, signature, raw) = receiver.heard
    assert first == told or first["result"]["prompt"] == told["result"]["prompt"]
    assert (told["id"], told["status"], told["result"]["seed"]) == (reply["id"], "Ready", 3)
    assert signature == "sha256=" + hmac.new(b"s", raw, hashlib.sha256).hexdigest()
    assert client.get(told["result"]["sample"]).status_code == 200


def test_which_model_serves_what(server: Server) -> None:
    quick = replace(MINI, name="quick", steps=4, takes=(Kind.REFERENCE,))
    redux = replace(MINI, name="redux", takes=(Kind.PROMPT,))
    depth = replace(CANNY, name="deep", maps=("depth",))
    engine = Fake({"quick": quick, "mini": MINI, "redux": redux, "canny": CANNY, "deep": depth}, held=True)
    told = server(engine, finetunes={"tok": "tok.safetensors"}).get("/v1/endpoints").json()
    models = {name: row and row["model"] for name, row in told["endpoints"].items()}
    assert told["loras"] == ["tok"]
    assert (models["flux-dev"], models["flux-schnell"], models["flux-kontext-pro"]) == ("mini", "quick", "quick")
    assert (models["flux-pro-1.0-canny"], models["flux-pro-1.0-depth"]) == ("canny", "deep")
    assert (models["flux-pro-1.0-pose"], models["flux-pro-1.0-fill"]) == (None, "mini")
    assert told["endpoints"]["flux-schnell"]["steps"] == 4


def test_pictures_that_speak_and_networks_beside(server: Server) -> None:
    raw, redux = replace(SMALL, name="krea"), replace(SMALL, name="redux", takes=(Kind.PROMPT,))
    engine = Fake({"mini": SMALL, "krea": raw, "redux": redux, "net": SMALL, "look": SMALL}, held=True)
    engine.nets = {"net": Beside(controlnets=1, modes=True), "look": Beside(looks=True)}
    client = server(engine, endpoints={"flux-pro": "look"})
    for endpoint, body in (
        ("flux-pro-1.1-ultra", {"prompt": "x", "image_prompt": picture(), "image_prompt_strength": 0.4}),
        ("flux-pro-1.1-ultra", {"prompt": "x", "raw": True, "aspect_ratio": "1:1"}),
        ("flux-pro", {"prompt": "x", "image_prompt": picture()}),
        ("flux-pro-1.0-depth", {"prompt": "x", "preprocessed_image": picture()}),
        ("flux-pro-1.0-canny", {"prompt": "x", "control_image": picture(), "canny_low_threshold": 10}),
    ):
        reply = client.post(f"/v1/{endpoint}", json=body)
        assert reply.status_code == 200, reply.text
    first, second, third, fourth, fifth = (task.wanted for task in engine.tasks)
    assert (first.model, first.request.image_prompt_strength, first.request.ultra) == ("redux", 0.4, None)
    assert (second.model, second.request.raw, second.request.ultra) == ("krea", True, "tiled")
    assert (str(second.request.resolution), str(second.request.frame)) == ("256x256", "2048x2048")
    assert (third.model, len(third.request.looks)) == ("look", 1)
    assert (fourth.model, fourth.request.hint_modes, len(fourth.request.hints)) == ("net", ("depth",), 1)
    assert (fifth.model, fifth.request.hint_modes) == ("net", ("canny",))


def test_fields_that_are_ours(server: Server) -> None:
    engine = Fake({"mini": MINI, "kontext": KONTEXT}, held=True)
    client = server(engine, finetunes={"a": "a.safetensors", "b": "b.safetensors"})
    loras = [{"name": "a", "scale": 0.5}, {"name": "b"}]
    assert client.post("/v1/flux-dev", json={"prompt": "x", "loras": loras}).status_code == 200
    images = {f"input_image_{n}": picture() for n in range(2, 11)}
    body = {"prompt": "x", "input_image": picture(), **images, "then": ["y", "z"]}
    assert client.post("/v1/flux-kontext-pro", json=body).status_code == 200
    assert client.post("/v1/flux-pro-1.0-fill", json={"input_image": picture(), "mask": picture()}).status_code == 200
    words, edit, _ = (task.wanted for task in engine.tasks)
    assert words.loras == (("a.safetensors", 0.5), ("b.safetensors", 1.0))
    assert (len(edit.request.references), edit.request.then) == (10, ("y", "z"))
    assert client.post("/v1/flux-dev", json={"prompt": "x", "loras": [{"name": "nobody"}]}).status_code == 404
    assert "fluxone train" in client.post("/v1/finetune", json={}).json()["message"]
    refused = client.post("/v1/delete_finetune", json={"finetune_id": "a"})
    assert refused.status_code == 403 and "[finetunes]" in refused.json()["message"]
    usage = client.post("/v1/licenses/models/flux-1-dev/usage", json={"number_of_generations": 1})
    assert usage.status_code == 404 and "Black Forest Labs" in usage.json()["message"]


def test_a_slow_receiver_holds_nobody_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "LOOK", 0.01)
    let, asked = threading.Event(), []

    def post(url: str, *told: object, **more: object) -> int:
        asked.append(url)
        if "slow" in url:
            let.wait(20)
        return 200

    monkeypatch.setattr(webhooks.fetch, "post", post)
    client = server(reachable=("localhost", "127.0.0.1"))
    for n in range(12):
        hook = "http://localhost/slow" if n < 11 else "http://127.0.0.1/quick"
        assert client.post("/v1/flux-dev", json={"prompt": "x", "webhook_url": hook}).status_code == 200
    for _ in range(1000):
        if any("quick" in url for url in asked):
            break
        time.sleep(0.01)
    assert sum("slow" in url for url in asked) <= webhooks.OF_ONE
    assert any("quick" in url for url in asked)
    let.set()
    for _ in range(1000):
        if len(asked) == 12:
            break
        time.sleep(0.01)
    assert len(asked) == 12, "each is told once"
