"""`tools/finetune_measure.py` on a tiny shape: two steps beside random fp8 weights, in memory and from a file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "finetune_measure.py"


@pytest.mark.parametrize("offload", ["none", "disk"])
def test_two_steps_are_measured(offload: str, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("finetune_measure", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out = tmp_path / "found.json"
    tool.main(["--shape", "tiny", "--size", "32", "--text", "8", "--offload", offload, "--out", str(out)])
    told = json.loads(out.read_text("utf-8"))
    assert len(told["seconds a step"]) == 2 and all(0 < loss < 100 for loss in told["loss"])
    assert told["peak GiB"] > 0 and told["swap"] == (5 if offload == "disk" else 0)
