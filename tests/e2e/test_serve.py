"""`fluxone serve` as its users meet it: a process, real clients, a real browser, and kill -9."""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
from PIL import Image

from e2e.server import Server
from fluxone.geometry import Resolution
from fluxone.request import Request
from fluxone.serve.serving import fitted
from fluxone.variants import MINI


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve"), environment)
    server.start()
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGKILL)
    server.log.close()


@pytest.fixture(scope="module")
def alone() -> dict[int, np.ndarray]:
    """Seed -> what the pipeline itself makes of a request."""
    from fluxone.assembly import assemble

    pipeline = assemble("mini")
    wanted = Request(prompt="a red car", resolution=Resolution(width=256, height=256), steps=3)
    request, _ = fitted(wanted, MINI)
    made = {seed: pipeline(Request(**{**vars(request), "seed": seed})).images[0] for seed in range(3)}
    return {seed: np.asarray(image, dtype=int) for seed, image in made.items()}


def test_many_clients_get_what_the_pipeline_makes(server: Server, alone: dict[int, np.ndarray]) -> None:
    with ThreadPoolExecutor(6) as clients:
        tasks = list(clients.map(lambda n: server.draw(seed=n % 3, steps=3, output_format="png"), range(9)))
    assert len(set(tasks)) == 9
    for n, task in enumerate(tasks):
        assert np.abs(server.picture(task) - alone[n % 3]).max() <= 1


def test_the_openai_client(server: Server) -> None:
    client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)
    assert "mini" in [model.id for model in client.models.list()]
    extra = {"num_inference_steps": 4, "seed": 1}
    events = list(client.images.generate(prompt="a fox", stream=True, partial_images=1, extra_body=extra))
    first, last = (Image.open(io.BytesIO(base64.b64decode(event.b64_json))) for event in events)
    assert first.size == last.size == (MINI.size, MINI.size)
    assert first.tobytes() != last.tobytes()
    picture, mask = io.BytesIO(), io.BytesIO()
    last.save(picture, "PNG")
    clear = Image.new("RGBA", last.size, (0, 0, 0, 255))
    half = MINI.size // 2
    clear.paste((0, 0, 0, 0), (0, 0, half, MINI.size))
    clear.save(mask, "PNG")
    files = {"image": ("image.png", picture.getvalue()), "mask": ("mask.png", mask.getvalue())}
    made = client.images.edit(prompt="a house", extra_body={"num_inference_steps": 2}, **files)
    edited = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json))).convert("RGB"))
    before = np.asarray(last.convert("RGB"))
    assert (edited[:, half:] == before[:, half:]).all(), "outside the mask not one value changes"
    assert (edited[:, : half - 4] != before[:, : half - 4]).any()


def test_a_client_that_hangs_up_is_forgotten(server: Server) -> None:
    body = json.dumps({"prompt": "x", "num_inference_steps": 100, "n": 10}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while not server.ask("/readyz")["begun"]:
            time.sleep(0.02)
    end = time.monotonic() + 10
    while (state := server.ask("/readyz"))["begun"] or state["waiting"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_kill_9_loses_nothing_that_was_accepted(server: Server, alone: dict[int, np.ndarray]) -> None:
    with ThreadPoolExecutor(4) as clients:
        tasks = list(clients.map(lambda n: server.draw(seed=n % 3, steps=3, output_format="png"), range(12)))
    while not any(server.ask(f"/v1/get_result?id={task}")["status"] == "Ready" for task in tasks):
        time.sleep(0.005)
    server.end(signal.SIGKILL)
    for file in (server.folder / "results").glob("*.png"):
        Image.open(file).load()
    server.start()
    for n, task in enumerate(tasks):
        assert np.abs(server.picture(task) - alone[n % 3]).max() <= 1


def test_sigterm_finishes_what_has_begun(server: Server) -> None:
    task = server.draw(seed=1, steps=40, output_format="png")
    while not server.ask(f"/v1/get_result?id={task}")["progress"]:  # other tasks may have begun before it
        time.sleep(0.01)
    assert server.end(signal.SIGTERM) in (0, 143, -signal.SIGTERM)
    Image.open(server.folder / "results" / f"{task}.png").load()
