"""`fluxone train` from a file: a run's folder, continued where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")

RECIPE = """
objective = "autoencoder"
out = "runs/tiny"
steps = 2
batch = 2
autocast = false
save_every = 2
sheet_every = 100
validate_every = 100
log_every = 1

[data]
size = 32
crop = 16

[model]
channels = [8, 8, 8, 8]
groups = 4
"""


def test_a_run_is_made_and_goes_on(fluxone: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    done = fluxone("train", "tiny.toml")
    assert done.stdout == "runs/tiny\n"
    assert done.stderr
    done = fluxone("train", "tiny.toml", "--set", "steps=4", "--quiet")
    assert (done.stdout, done.stderr) == ("runs/tiny\n", "")
    rows = [json.loads(line) for line in (tmp_path / "runs" / "tiny" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("steps = 2 =", "TOML"),
        ('objective = "paint"', "paint"),
        ("batch = 0", "batch"),
        ('steps = "two"', "steps"),
        ("stepps = 3", "stepps"),
    ],
)
def test_a_wrong_recipe_is_one_line(fluxone: Callable[..., Any], tmp_path: Path, change: str, words: str) -> None:
    key = change.split(" = ")[0]
    lines = [line for line in RECIPE.splitlines() if not line.startswith(f"{key} =")]
    (tmp_path / "wrong.toml").write_text("\n".join([change, *lines]))
    done = fluxone("train", "wrong.toml", code=2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not (tmp_path / "runs").exists()
