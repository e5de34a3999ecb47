"""Two processes draw what one draws: tokens shared by heads and by queries, weights shared, parts of any size."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fluxone.cli.main import run
from fluxone.errors import BadRequest, UnknownName
from fluxone.parallel import WAYS, join, spread
from fluxone.parallel.tensor import pieces
from fluxone.recipe import PARALLELS
from unit.tiny import bundle

ROOT = Path(__file__).parents[3]

COMMON = {
    **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": "",
    "GLOO_SOCKET_IFNAME": "lo",
}  # fmt: skip


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_processes_give_what_one_gives() -> None:
    common = {**COMMON, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    worker = [sys.executable, str(Path(__file__).with_name("worker.py"))]
    running = [
        subprocess.Popen(worker, env={**common, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    assert all(f"process {rank} of 2: the same" in text for rank, text in enumerate(said))


def test_the_command_draws_the_same_and_one_of_the_processes_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["generate", "a red car", "--steps", "1", "--size", "64x96", "--seed", "7", "--device", "cpu"]
    launched = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
        "--master-port", free_port(), "-m", "fluxone", *words, "--parallel", "ulysses", "-o", str(tmp_path / "two.png"),
    ]  # fmt: skip
    done = subprocess.run(launched, env=COMMON, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "two.png")] and done.stderr.count("step 1/1") == 1
    assert run([*words, "-o", str(tmp_path / "one.png")]) == 0
    one, two = (np.asarray(Image.open(tmp_path / f"{name}.png"), dtype=int) for name in ("one", "two"))
    assert one.std() > 1 and abs(one - two).max() <= 1, "the same up to the last rounding of a float"
    monkeypatch.delenv("RANK", raising=False)
    capsys.readouterr()
    assert run([*words, "--parallel", "ulysses"]) == run([*words, "--parallel", "gather", "--cache", "taylor"]) == 2
    said = capsys.readouterr().err
    assert "torchrun" in said and "parallel gather and a cache are both on" in said


def test_parts_of_groups() -> None:
    assert pieces([4, 4, 8], 1, 2).tolist() == [2, 3, 6, 7, 12, 13, 14, 15]
    assert torch.cat([pieces([4, 8], rank, 4) for rank in range(4)]).sort().values.tolist() == list(range(12))


def test_mistakes_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(BadRequest, match="torchrun"):
        join()
    with pytest.raises(UnknownName, match="did you mean 'ulysses'"):
        spread(bundle(tmp_path).transformer, "ulyses")
    assert list(PARALLELS) == list(WAYS)
