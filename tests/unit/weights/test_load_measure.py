"""Loading needs the model and one tensor, no more: measured on a real file of 170 MB, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fluxone.shapes import FluxShape

ROOT = Path(__file__).parents[3]
TOOL = ROOT / "tools" / "load_measure.py"
SLACK = 40  # MiB: what Python, torch and the headers take besides
SHAPE = FluxShape(hidden=1536, heads=12, double_blocks=1, single_blocks=3)

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system tells no such sizes")


def measured(path: Path, way: str) -> dict[str, float]:
    command = [sys.executable, str(TOOL), str(path), "--load", way]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "big.safetensors"
    code = (
        f"import sys; sys.path.insert(0, {str(TOOL.parent)!r}); import load_measure; from pathlib import Path; "
        f"from fluxone.shapes import FluxShape; load_measure.write_model(Path({str(path)!r}), {SHAPE!r})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return path


def test_a_copied_model_peaks_at_itself_and_one_tensor(file: Path) -> None:
    found = measured(file, "copied")
    assert found["model"] > 100
    assert found["model"] < found["peak"] - found["before"] < found["model"] + found["largest tensor"] + SLACK


def test_a_shared_model_takes_no_memory_of_its_own(file: Path) -> None:
    found = measured(file, "shared")
    assert found["peak"] - found["before"] < SLACK
    assert found["read resident"] - found["before"] > 0.9 * found["model"], "its pages were read"
    assert found["read anonymous"] - found["anonymous"] < SLACK, "and none was copied"
