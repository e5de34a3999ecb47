"""Runs that the page starts: known by what they leave in their folders, whoever started them."""

from __future__ import annotations

import ast
import base64
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from e2e.chromium import PATH, Chromium
from fluxone.errors import BadRequest, UnknownName
from fluxone.serve import training
from fluxone.serve.training import Trainings, Wanted
from unit.serve.fake import Fake

# Stands in for the command line: takes the lock, walks steps until it is interrupted, and goes on where it was.
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
TRAINS = (
    f"PICTURE = {PICTURE!r}"
    + """
import base64, fcntl, json, os, signal, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("-o") + 1])
steps = int(sys.argv[sys.argv.index("--steps") + 1])
state, look = out / "state", out / "looks" / "000000-0"
for place in (state, look):
    place.mkdir(parents=True, exist_ok=True)
lock = (out / ".lock").open("a+")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
lock.truncate(0); lock.write(str(os.getpid())); lock.flush()
(look / "00.png").write_bytes(base64.b64decode(PICTURE))
(state / "run.json").write_text(json.dumps({"steps": steps}))
def end(*_):
    sys.exit(130)
signal.signal(signal.SIGINT, end)
print("here we go", file=sys.stderr, flush=True)
if steps == 13:
    sys.exit("error: thirteen")
log = state / "log.jsonl"
step = len(log.read_text().splitlines()) if log.exists() else 0
while step < steps:
    step += 1
    with log.open("a") as file:
        file.write(json.dumps({"step": step, "loss": 1 / step, "seconds": 0.01}) + chr(10))
    time.sleep(0.01)
(out / "zuri.safetensors").write_bytes(b"")
(out / "report.html").write_text("a report")
"""
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Trainings]:
    made = Trainings(tmp_path / "training", (sys.executable, "-c", TRAINS))
    yield made
    for process in made.processes.values():
        process.kill()
        process.wait()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def wanted(place: Path, steps: int) -> Wanted:
    return Wanted(what="character", folder=str(place), name="zuri", class_word="girl", steps=steps)


def test_a_run_is_started_paused_continued_and_done(house: Trainings, tmp_path: Path) -> None:
    run = house.start(wanted(tmp_path, 120))
    until(lambda: house.told(run)["step"] >= 3)
    told = house.told(run)
    assert told["state"] == "running" and told["steps"] == 120 and told["seconds_left"] is not None
    assert told["samples"] == ["000000-0/00.png"] and told["message"] == "here we go"
    assert house.file(run, "000000-0/00.png").read_bytes() == base64.b64decode(PICTURE)
    house.pause(run)
    until(lambda: house.state(run) == "paused")
    step = house.told(run)["step"]
    assert step < 120 and house.told(run)["seconds_left"] is None
    with pytest.raises(BadRequest, match="is paused"):
        house.pause(run)
    house.go_on(run)
    until(lambda: house.state(run) == "done")
    told = house.told(run)
    assert told["step"] == 120 and told["report"] and told["files"][0].endswith("zuri.safetensors")
    assert house.file(run, "report").name == "report.html"
    with pytest.raises(BadRequest, match="is done"):
        house.go_on(run)


def test_another_server_knows_what_one_has_started(house: Trainings, tmp_path: Path) -> None:
    run = house.start(wanted(tmp_path, 100_000))
    until(lambda: house.told(run)["step"] >= 1)
    later = Trainings(house.folder, house.command)
    assert later.runs() == [run] and later.state(run) == "running"
    later.stop(run)
    until(lambda: later.state(run) == "stopped")
    with pytest.raises(BadRequest, match="is stopped"):
        later.go_on(run)


def test_what_goes_wrong_is_told(house: Trainings, tmp_path: Path) -> None:
    run = house.start(wanted(tmp_path, 13))
    until(lambda: house.state(run) == "failed")
    assert house.told(run)["message"] == "error: thirteen"
    with pytest.raises(BadRequest, match="no folder"):
        house.start(wanted(tmp_path / "nowhere", 1))
    for name in ("../run.json", "000000-0/../../run.json", "000009-1/00.png", "report"):
        with pytest.raises(UnknownName):
            house.file(run, name)
    with pytest.raises(UnknownName, match="no run"):
        house.told("../x")


def test_the_door(server: Callable[..., TestClient], tmp_path: Path) -> None:
    client = server()
    assert client.get("/v1/training").json() == []
    body = {"what": "character", "folder": str(tmp_path / "nowhere")}
    assert "no folder" in client.post("/v1/training", json=body).json()["message"]
    assert client.post("/v1/training", json=body | {"what": "recipe"}).status_code == 422
    assert client.post("/v1/training/001-abc/pause").status_code == 404
    assert "/v1/training" not in client.get("/openapi.json").json()["paths"]
    elsewhere = server(host="0.0.0.0")
    token = elsewhere.app.state.serving.keys.make("me")
    assert elsewhere.get("/v1/training").status_code == 401
    assert "reached from elsewhere" in elsewhere.get("/v1/training", headers={"x-key": token}).json()["message"]


def test_the_command_line_takes_what_the_page_gives(tmp_path: Path) -> None:
    """The line is one of `fluxone train`."""
    from fluxone.cli.train import command

    house = Trainings(tmp_path / "training", (sys.executable, "-c", "import sys; print(sys.argv[2:], file=sys.stderr)"))
    run = house.start(Wanted(what="style", folder=str(tmp_path), name="--lumo", class_word="a logo", steps=7, size=32))
    until(lambda: house.state(run) == "paused")
    line = ast.literal_eval(house.told(run)["message"])
    told = command.make_context("train", line).params
    assert (told["what"], told["folder"], told["name"], told["class_word"]) == (
        "style",
        str(tmp_path),
        "--lumo",
        "a logo",
    )
    assert (told["steps"], told["size"], told["model"], told["out"]) == (7, 32, "mini", str(house.folder / run / "out"))


@pytest.mark.skipif(PATH is None, reason="there is no Chromium")
def test_the_tab(listening: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a folder, by mouse: started, watched, paused, continued, stopped."""
    monkeypatch.setattr(training, "Trainings", partial(Trainings, command=(sys.executable, "-c", TRAINS)))
    url = listening(Fake())
    page = Chromium(tmp_path / "browser")
    try:
        page.open(url)
        page.until("document.body.dataset.ready === 'yes'", 60)
        page.click("#train-tab")
        assert page.run("document.querySelector('main').hidden")
        for name, value in {"folder": "/nowhere", "name": "zuri", "steps": 100_000}.items():
            page.run(f"document.getElementById('train-form').{name}.value = '{value}'")
        page.click("#train-go")
        page.until("document.getElementById('train-message').textContent.includes('no folder')")
        page.run(f"document.getElementById('train-form').folder.value = '{tmp_path}'")
        page.click("#train-go")
        state = "document.querySelector('#runs li')?.dataset.state"
        page.until("(document.querySelector('#runs progress')?.value || 0) >= 3", 60)
        assert page.run(state) == "running" and "left" in page.run("document.querySelector('#runs .state').textContent")
        page.until("document.querySelector('#runs .samples img')?.naturalWidth === 1")
        page.click("#runs [data-act=pause]")
        page.until(f"{state} === 'paused'")
        before = page.run("document.querySelector('#runs progress').value")
        page.click("#runs [data-act=continue]")
        page.until(f"document.querySelector('#runs progress').value > {before}", 60)
        page.click("#runs [data-act=stop]")
        page.until(f"{state} === 'stopped'")
        page.resize(390, 844)
        assert page.run("document.documentElement.scrollWidth") <= 390, "nothing sticks out on a phone"
        page.click("#modes [data-mode=draw]")
        assert page.run("document.getElementById('training').hidden && !document.querySelector('main').hidden")
        assert all(asked.startswith((url, "about:", "data:", "blob:")) for asked in page.asked)
    finally:
        page.close()
