"""Our own client against a server in another thread: every call, progress, waiting while it is full, and errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fluxone import AsyncClient, Client
from fluxone.client import Failed, Moderated, Refused, Unreachable
from fluxone.errors import BadFile, BrokenModel
from fluxone.serve.engine import State
from fluxone.serve.policy import Policy
from fluxone.variants import CANNY, DEPTH, FILL, KONTEXT, MINI
from unit.serve.fake import Fake, colour

RED = Image.new("RGB", (64, 48), "red")
ALL = {"mini": MINI, "kontext": KONTEXT, "fill": FILL, "canny": CANNY, "depth": DEPTH}


def test_every_call(listening: Callable[..., str], tmp_path: Path) -> None:
    engine = Fake(ALL)
    client = Client(listening(engine))
    file = tmp_path / "red.png"
    RED.save(file)
    picture = client.generate("a fox", size=(256, 288), seed=7, steps=4, guidance=2.0)
    assert (picture.image.size, picture.seed, picture.prompt) == ((256, 288), 7, "a fox")
    assert picture.image.convert("RGB").getpixel((3, 3)) == colour(7)
    assert picture.details["model"] == "mini"
    assert picture.save(tmp_path / "fox.png").read_bytes() == picture.data
    client.ultra("a fox", aspect="1:1", raw=True)
    client.edit(RED, "blue")
    client.edit([file, str(file), file.read_bytes()], "blue", fields={"then": ["green"]})
    client.fill(RED, Image.new("L", RED.size, 255), "a house")
    client.expand(RED, margins={"left": 16})
    client.control("canny", RED, "a house")
    client.control("depth", RED, "a house")
    requests = [task.wanted.request for task in engine.tasks]
    assert (requests[0].steps, requests[0].guidance) == (4, 2.0)
    assert (requests[1].ultra, requests[1].raw) == ("tiled", True)
    assert [len(request.references) for request in requests[2:4]] == [1, 3]
    assert requests[3].then == ("green",)
    assert [task.wanted.model for task in engine.tasks[4:]] == ["fill", "fill", "canny", "depth"]
    assert client.models() == list(ALL)
    assert client.loras() == []


def test_progress_cancelling_and_asyncio(listening: Callable[..., str]) -> None:
    engine = Fake(held=True)
    url = listening(engine)
    seen: list[float] = []

    def progress(share: float, preview: Image.Image | None) -> None:
        seen.append(share)
        (mine,) = [task for task in engine.tasks if task.wanted.request.seed == 1]  # whichever came first
        mine.done, mine.steps = 3, 4
        if len(seen) > 2:
            engine.go()

    async def both() -> list[int]:
        client = AsyncClient(url)
        first = asyncio.create_task(client.generate("x", seed=1, on_progress=progress))
        second = asyncio.create_task(client.generate("x", seed=2))
        return [(await one).seed for one in (first, second)]

    assert asyncio.run(both()) == [1, 2]
    assert seen[:2] == [0.0, 0.75]
    assert Client(url).cancel("nobody") is False


def test_errors_say_what_the_server_says(listening: Callable[..., str]) -> None:
    engine = Fake()
    client = Client(listening(engine, Policy(prompt=lambda text, _: ["Words"] if "bad" in text else [])), timeout=20)
    with pytest.raises(Refused, match="width") as caught:
        client.generate("x", size=(100, 256))
    assert caught.value.status == 422
    with pytest.raises(Refused, match="no loaded model takes a reference picture"):
        client.edit(RED, "blue")
    with pytest.raises(Moderated, match="Words"):
        client.generate("bad")
    with pytest.raises(BadFile, match=r"none\.png"):
        client.edit("none.png", "x")
    engine.held = True
    with pytest.raises(Failed, match="it broke"):
        client.generate("x", on_progress=lambda share, preview: engine.go(error=BrokenModel("it broke")))


def test_it_waits_for_a_server_that_is_full_or_away(listening: Callable[..., str]) -> None:
    engine = Fake()
    url = listening(engine)
    engine.now = State(ready=True, waiting=10**6)
    threading.Timer(0.2, lambda: setattr(engine, "now", State(ready=True))).start()
    assert Client(url, timeout=30).generate("x", seed=3).seed == 3
    with pytest.raises(Unreachable, match="does not answer"):
        Client("http://127.0.0.1:9", timeout=0.5).models()
