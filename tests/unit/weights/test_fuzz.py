"""Half a thousand spoiled files: each loads or is refused with an error of ours, within memory, and no pickle runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[3] / "tools"

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system bounds no memory this way")


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("fuzz_files")


def test_half_a_thousand_spoiled_files(fuzz: ModuleType, tmp_path: Path) -> None:
    came, faults = fuzz.run(0, range(500), tmp_path / "fuzz")
    assert not faults, "\n".join(f"--- {number} ({name})\n{fault}" for number, name, fault in faults)
    assert sum(came.values()) == 500
    assert came["loaded"] > 20, "some of them are only odd"
    assert came["BadFile"] + came["BadWeights"] > 300


def test_the_samples_themselves_load(fuzz: ModuleType, tmp_path: Path) -> None:
    tmp_path.joinpath("w").mkdir()
    for kind in fuzz.kinds(tmp_path / "w"):
        if kind.name.startswith("pickle"):
            continue
        for name, data in kind.files.items():
            path = tmp_path / kind.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        kind.open(tmp_path / kind.name / kind.entrance)


def test_a_fault_is_told(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The check sees another exception, a hang, memory beyond the bound, and a pickle that runs."""
    import pickle
    import time

    def burn(path: Path) -> None:
        start = time.process_time()
        while time.process_time() < start + 5:
            pass

    def grow(path: Path) -> None:
        bytearray(2 * fuzz.MEMORY)

    def load(path: Path) -> None:
        import fuzz_mutations

        pickle.loads(pickle.dumps(fuzz_mutations.Bomb()))

    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    ways = {
        "ZeroDivisionError": lambda path: 1 / 0,
        "more than 0.05 s": burn,
        "MemoryError": grow,
        "a pickle ran": load,
    }
    samples = [fuzz.Kind(name, {"x": b"x"}, way, "x") for name, way in ways.items()]
    monkeypatch.setattr(fuzz, "kinds", lambda work: samples)
    _, faults = fuzz.run(0, range(4), tmp_path / "work")
    assert [name for _, name, _ in faults] == list(ways)
    assert all(words in fault for words, (_, _, fault) in zip(ways, faults, strict=True)), faults


def test_the_command_tells_how_many(tmp_path: Path) -> None:
    line = [sys.executable, str(TOOLS / "fuzz_files.py"), "--count", "5", "--seed", "7"]
    env = {"PYTHONPATH": str(TOOLS.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 files in" in done.stdout and "0 faults" in done.stdout
