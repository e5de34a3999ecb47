"""Fine-tuning from the page: `fluxone train` in processes of its own, known by what they leave in their folders.

    training/<id>/run.json   what was asked for          out/.lock        held while a process trains there
    out/state/run.json, log.jsonl   how far it is        out/looks/, out/report.html   what is to be seen

It knows no more of training than the command line does. Only a server that nobody but this machine can reach starts
runs: they read folders and take the processor for minutes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from fastapi import Request as Http
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from fluxone.errors import BadRequest, UnknownName
from fluxone.lines import read_lines
from fluxone.serve.access import caller, serving

LOCK = ".lock"
LATE = 20  # rows of the log that the pace is taken from
SHOWN = 8  # samples of a look
INTERRUPTED = 130  # what the command line ends with when it was paused
LOOK = re.compile(r"\d{6}-[01]")  # at full strength, and the base's
PICTURE = re.compile(r"(\d{6}-[\d.]+)/(\d{2}\.png)")


class Wanted(BaseModel):
    """A run that is asked for."""

    model_config = ConfigDict(extra="forbid")

    what: Literal["character", "style", "product", "lora"]
    folder: str = Field(min_length=1, max_length=4096)
    name: str = Field(default="", max_length=60)
    class_word: str = Field(default="", max_length=60)
    model: str = Field(default="mini", min_length=1, max_length=4096)
    steps: int | None = Field(default=None, ge=1, le=100_000)
    size: int | None = Field(default=None, ge=16, le=4096)


class Trainings:
    """The runs of a server, each in a folder of its own.

    Args:
        folder: of all runs.
        command: what runs the command line.
    """

    def __init__(self, folder: Path, command: Sequence[str] = (sys.executable, "-m", "fluxone")) -> None:
        self.folder, self.command = folder, list(command)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, wanted: Wanted) -> str:
        """Start a run, and return its id.

        Raises:
            BadRequest: there is no such folder.
        """
        place = Path(wanted.folder).expanduser()
        if not place.is_dir():
            raise BadRequest(f"there is no folder {wanted.folder} on this machine", hint="give its whole path")
        run = f"{len(self.runs()) + 1:03}-{secrets.token_hex(3)}"
        self._keep(run, wanted.model_dump() | {"folder": str(place.resolve()), "stopped": False})
        self._launch(run)
        return run

    def go_on(self, run: str) -> None:
        """Continue a run that was paused, or one that failed."""
        if self.state(run) not in ("paused", "failed"):
            raise BadRequest(f"run {run} is {self.state(run)}", hint="only a run that was paused goes on")
        self._launch(run)

    def pause(self, run: str) -> None:
        """Let the step end, save, and end the process."""
        number = self._number(run)
        if number is None:
            raise BadRequest(f"run {run} is {self.state(run)}", hint="only a run that runs is paused")
        os.kill(number, signal.SIGINT)

    def stop(self, run: str) -> None:
        """End a run for good; what it has saved stays."""
        self._keep(run, self._told(run) | {"stopped": True})
        if (number := self._number(run)) is not None:
            os.kill(number, signal.SIGTERM)

    def end(self) -> None:
        """Pause all, when the server ends."""
        for run in self.processes:
            if (number := self._number(run)) is not None:
                os.kill(number, signal.SIGINT)

    def runs(self) -> list[str]:
        """All ids, the newest first."""
        return sorted((path.parent.name for path in self.folder.glob("*/run.json")), reverse=True)

    def state(self, run: str) -> str:
        """One of running, done, stopped, failed, paused."""
        told, process = self._told(run), self.processes.get(run)
        code = None if process is None else process.poll()
        if (process is not None and code is None) or self._locked(run):
            return "stopping" if told["stopped"] else "running"
        if (self._out(run) / "report.html").exists():
            return "done"
        if told["stopped"]:
            return "stopped"
        return "failed" if code not in (None, 0, INTERRUPTED, -signal.SIGINT) else "paused"

    def told(self, run: str) -> dict[str, Any]:
        """All that the page shows of a run."""
        told, out = self._told(run), self._out(run)
        rows = read_lines(out / "state" / "log.jsonl")
        plan = _json(out / "state" / "run.json")
        step, steps = (rows[-1]["step"] if rows else 0), plan.get("steps", 0)
        paces = [row["seconds"] for row in rows[-LATE:]]
        state = self.state(run)
        left = (steps - step) * sum(paces) / len(paces) if paces and state == "running" else None
        looks = sorted(place.name for place in (out / "looks").glob("*") if LOOK.fullmatch(place.name))
        seen = looks[-1] if looks else ""
        return {
            "id": run,
            **{name: told[name] for name in ("what", "name", "folder", "model")},
            "state": state,
            "step": step,
            "steps": steps,
            "seconds_left": None if left is None else round(left),
            "loss": [round(row["loss"], 5) for row in rows[-200:]],
            "looked_at": int(seen.split("-")[0]) if seen else None,
            "samples": [f"{seen}/{path.name}" for path in sorted((out / "looks" / seen).glob("*.png"))][:SHOWN]
            if seen
            else [],
            "report": (out / "report.html").exists(),
            "files": sorted(str(path) for path in out.glob("*.safetensors")),
            "message": _last(self.folder / run / "log.txt"),
        }

    def file(self, run: str, name: str) -> Path:
        """A sample or the report of a run.

        Raises:
            UnknownName: there is none.
        """
        self._told(run)
        found = PICTURE.fullmatch(name)
        path = self._out(run) / "looks" / found[1] / found[2] if found else self._out(run) / "report.html"
        if not (found or name == "report") or not path.is_file():
            raise UnknownName(f"run {run} has no {name}", hint="look at /v1/training")
        return path

    def _launch(self, run: str) -> None:
        told = self._told(run)
        line = [
            *self.command,
            "train",
            told["what"],
            told["folder"],
            "--model",
            told["model"],
            "-o",
            str(self._out(run)),
        ]
        line += [f"--name={told['name']}"] if told["name"] else []
        line += [f"--class={told['class_word']}"] if told["class_word"] else []
        for option in ("steps", "size"):
            line += [f"--{option}", str(told[option])] if told[option] else []
        with (self.folder / run / "log.txt").open("ab") as log:
            self.processes[run] = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    def _out(self, run: str) -> Path:
        return self.folder / run / "out"

    def _told(self, run: str) -> dict[str, Any]:
        if run not in self.runs():
            raise UnknownName(f"there is no run {run}", hint="look at /v1/training")
        return _json(self.folder / run / "run.json")

    def _keep(self, run: str, told: dict[str, Any]) -> None:
        place = self.folder / run
        place.mkdir(parents=True, exist_ok=True)
        part = place / "run.part"
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(place / "run.json")

    def _number(self, run: str) -> int | None:
        """The process that trains, also one that an earlier server started."""
        process = self.processes.get(run)
        if process is not None and process.poll() is None:
            return process.pid
        if not self._locked(run):
            return None
        text = (self._out(run) / LOCK).read_text(encoding="utf-8")
        return int(text) if text.isdecimal() else None

    def _locked(self, run: str) -> bool:
        path = self._out(run) / LOCK
        if not path.exists():
            return False
        with path.open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False


router = APIRouter(include_in_schema=False)  # the page's own; it is no API for others


def _house(http: Http) -> Trainings:
    """The server's runs.

    Raises:
        BadRequest: others than this machine can reach the server.
    """
    caller(http, "draw")
    if not serving(http).settings.local:
        raise BadRequest("this server can be reached from elsewhere", hint="train where it is on 127.0.0.1 alone")
    house: Trainings = http.app.state.trainings
    return house


@router.get("/v1/training")
def training(http: Http) -> list[dict[str, Any]]:
    """All runs."""
    house = _house(http)
    return [house.told(run) for run in house.runs()]


@router.post("/v1/training")
def start(http: Http, wanted: Wanted) -> dict[str, Any]:
    """Start one."""
    house = _house(http)
    return house.told(house.start(wanted))


@router.post("/v1/training/{run}/{what}")
def change(http: Http, run: str, what: Literal["pause", "continue", "stop"]) -> JSONResponse:
    """Pause, continue or stop one."""
    house = _house(http)
    {"pause": house.pause, "continue": house.go_on, "stop": house.stop}[what](run)
    return JSONResponse(house.told(run))


@router.get("/v1/training/{run}/{name:path}")
def seen(http: Http, run: str, name: str) -> FileResponse:
    """A sample, or the report."""
    path = _house(http).file(run, name)
    headers = {"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}
    return FileResponse(path, media_type="image/png" if path.suffix == ".png" else "text/html", headers=headers)


def _json(path: Path) -> dict[str, Any]:
    """What a file says; nothing if it is not there, or not whole yet."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return found


def _last(path: Path) -> str:
    """The last line of what a process has said."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return lines[-1][:400] if lines else ""
