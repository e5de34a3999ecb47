"""Runs can be stopped anywhere and shared between processes without changing what is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fluxone.errors import BadFile, BrokenModel, CannotWrite
from fluxone.train import checkpoint, loop, objectives, plot
from fluxone.train.config import Data, Model, TrainConfig

pytest.importorskip("resvg_py")
QUIET = lambda _line: None  # noqa: E731


def tiny(out: Path, steps: int = 6) -> TrainConfig:
    return TrainConfig(
        objective="autoencoder", out=str(out), steps=steps, batch=4, autocast=False, save_every=3, sheet_every=6,
        validate_every=6, log_every=2, data=Data(size=64, crop=32), model=Model(channels=(8, 8, 8, 8), groups=4),
    )  # fmt: skip


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = checkpoint.load(folder)
    assert found is not None
    return found[0]


def same(one: dict[str, dict[str, torch.Tensor]], other: dict[str, dict[str, torch.Tensor]]) -> bool:
    assert {group: set(rows) for group, rows in one.items()} == {group: set(rows) for group, rows in other.items()}
    return all(torch.equal(value, other[group][name]) for group, rows in one.items() for name, value in rows.items())


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole = tiny(tmp_path / "whole")
    loop.run(whole, objectives.make(whole), report=QUIET)

    half = tiny(tmp_path / "half")
    trainer = loop.Trainer(half, objectives.make(half), QUIET)
    for _ in range(4):  # stopped one step after its last checkpoint, at 3
        trainer.advance()
    del trainer
    torch.manual_seed(99)  # whatever else happened to the global state
    loop.run(half, objectives.make(half), report=QUIET)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "half"))


def test_files_of_a_run(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    loop.run(config, objectives.make(config), report=QUIET)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    assert any("psnr" in row.get("validation", {}) for row in rows)
    assert (tmp_path / "sheets" / "0000006.png").stat().st_size > 1000
    assert not list(tmp_path.rglob("*.part"))
    pytest.importorskip("matplotlib")
    assert plot.plot(tmp_path).stat().st_size > 10_000


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    script = tmp_path / "go.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nimport torch\n"
        "sys.path.insert(0, sys.argv[2])\ntorch.set_num_threads(1)\n"
        "from test_loop import tiny, QUIET\nfrom fluxone.train import loop, objectives\n"
        "config = tiny(Path(sys.argv[1]), 3)\nloop.run(config, objectives.make(config), report=QUIET)\n"
        "from dataclasses import replace\n"
        "timed = replace(config, out=config.out + '-timed', steps=10**6, minutes=0.01)\n"
        "trainer = loop.Trainer(timed, objectives.make(timed), QUIET)\n"
        "trainer._began += 0 if trainer.group.first else 10**6  # a clock that is far behind\n"
        "while not trainer.finished:\n    trainer.advance()\n"
        "from fluxone.parallel import leave\nleave()\n"
        "Path(f'{timed.out}-{trainer.group.rank}').write_text(str(trainer.step))\n"
    )
    here, source = str(Path(__file__).parent), str(Path(loop.__file__).parents[2])
    env = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path / "two"), here], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = ((tmp_path / f"two-timed-{rank}").read_text() for rank in (0, 1))
    assert first == second  # the first one's clock counts for all
    one = tiny(tmp_path / "one", 3)
    loop.run(one, objectives.make(one), report=QUIET)
    ours, theirs = weights(tmp_path / "one")["weights"], weights(tmp_path / "two")["weights"]
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=2e-4)


class Sick:
    """An objective whose loss becomes NaN at step 2."""

    def __init__(self) -> None:
        self.part = nn.Linear(2, 2)

    def modules(self) -> dict[str, nn.Module]:
        return {"part": self.part}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        return False

    def pace(self, name: str) -> float:
        return 1.0

    def loss(self, step: int, share: slice) -> dict[str, torch.Tensor]:
        return {"loss": self.part(torch.ones(1, 2)).sum() * (float("nan") if step == 2 else 1.0)}

    def validate(self) -> dict[str, float]:
        return {}

    def meta(self) -> dict[str, object]:
        return {}


def test_nan_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    config = replace(tiny(tmp_path), save_every=2, sheet_every=10**6)
    with pytest.raises(BrokenModel, match="step 2"):
        loop.run(config, Sick(), report=QUIET)  # type: ignore[arg-type]
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[1]["step"] == 2
    assert all(value.isfinite().all() for value in found[0]["weights"].values())


def test_checkpoints_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, {"weights": {"a": torch.ones(3)}}, {"step": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CannotWrite, match="space"):
        checkpoint.save(tmp_path, {"weights": {"a": torch.zeros(3)}}, {"step": 2})
    assert weights(tmp_path)["weights"]["a"].sum() == 3
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]
    (tmp_path / checkpoint.NAME).write_bytes(b"no tensors here")
    with pytest.raises(BadFile, match="checkpoint"):
        checkpoint.load(tmp_path)
