"""`fluxone evaluate`: a table, a JSON document, a sheet, a plot; and what is wrong is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")
pytest.importorskip("matplotlib", reason="the train extra is not installed")


def test_a_model_is_measured(fluxone: Callable[..., Any], tmp_path: Path) -> None:
    suites = "objects,depth,steps"
    done = fluxone(
        "evaluate", "--suite", suites, "--prompts", 2, "--seeds", 1, "--steps", 2, "--json", "found.json",
        "--sheet", "sheet.png", "--plot", "plot.png",
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["suite", "measure", "value"]
    assert any(line.startswith("objects") and "right" in line for line in lines)
    assert any(line.startswith("depth") and "not scored" in line for line in lines)
    assert "loading mini" in done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [suite["suite"] for suite in found["suites"]] == suites.split(",")
    objects = found["suites"][0]
    assert len(objects["pictures"]) == 2
    assert objects["lines"][0]["truth"] == 1.0
    assert Image.open(tmp_path / "sheet.png").width > 600
    assert Image.open(tmp_path / "plot.png").format == "PNG"


def test_a_model_without_a_world_is_asked_about_one_the_judge_knows(fluxone: Callable[..., Any], tiny: Path) -> None:
    done = fluxone(
        "evaluate", "--model", tiny, "--suite", "objects", "--prompts", 1, "--seeds", 1, "--steps", 1, "--json", "-",
        "--quiet",
    )  # fmt: skip
    (suite,) = json.loads(done.stdout)["suites"]
    assert done.stderr == ""
    assert suite["lines"][0]["figure"]["value"] == 0, "weights at random draw nobody"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--suite", "object"), "did you mean 'objects'"),
        (("--model", "minni"), "mini"),
        (("--json", "nowhere/a.json"), "folder"),
        (("--prompts", "0"), "prompts"),
    ],
)
def test_what_is_wrong_is_one_line(fluxone: Callable[..., Any], arguments: tuple[str, ...], words: str) -> None:
    done = fluxone("evaluate", *arguments, code=2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
