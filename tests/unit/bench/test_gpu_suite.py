"""The GPU's script on the CPU: results as they come, failures beside them, what is there, a device that dies."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

TOOLS = Path(__file__).parents[3] / "tools"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with stages of a moment; the environment stays as it is."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    import gpu_suite

    def good(run: Any) -> None:
        run.note("number", lambda: 3)
        run.note("broken", lambda: 1 / 0)

    def bad(run: Any) -> None:
        run.note("before", lambda: 1)
        raise RuntimeError("this stage ends here")

    monkeypatch.setattr(gpu_suite.gpu_stages, "STAGES", {"bad": (bad, 1), "good": (good, 1), "long": (good, 1e6)})
    return gpu_suite


def started(suite: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["gpu_suite.py", "--small", "--name", "x", "--out", str(folder), *words])
    suite.main()
    found: dict[str, Any] = json.loads((folder / "x.json").read_text())
    return found


def test_what_fails_stands_beside_what_does_not(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = started(suite, monkeypatch, tmp_path)
    assert "this stage ends here" in found["failed"]["bad"] and found["stages"]["bad"]["before"] == 1
    assert found["stages"]["good"]["number"] == 3 and "division" in found["stages"]["good"]["broken"]["error"]
    assert found["left out"] == ["long"] and found["case"] == "tiny"
    found["stages"]["good"]["number"] = 4
    (tmp_path / "x.json").write_text(json.dumps(found))
    assert started(suite, monkeypatch, tmp_path)["stages"]["good"]["number"] == 4, "what is there is not done again"
    assert started(suite, monkeypatch, tmp_path, "--only", "good")["stages"]["good"]["number"] == 3
    with pytest.raises(SystemExit, match="no such stage: god"):
        started(suite, monkeypatch, tmp_path, "--only", "god")


def test_a_dead_device_is_left_behind(suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts: list[list[str]] = []
    monkeypatch.setattr(suite, "alive", lambda device: False)
    monkeypatch.setattr(suite.os, "execv", lambda program, words: starts.append(words))
    started(suite, monkeypatch, tmp_path, "--seconds", "60")
    assert len(starts) == 2 and starts[0][-1].startswith("--until=") and "--small" in starts[0]


def test_the_networks_of_the_case_race(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = suite.gpu_stages
    run = stages.Run(case=stages.TINY, device=torch.device("cpu"), until=9e9)
    with torch.inference_mode():
        for stage in (stages.fp8, stages.schnell, stages.graphed, stages.memory):
            run.found = {}
            stage(run)
            failed = {name for name, found in run.found.items() if isinstance(found, dict) and set(found) == {"error"}}
            assert run.found and not failed, run.found
