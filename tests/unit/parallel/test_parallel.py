"""Two processes draw what one draws: tokens shared by heads and by queries, weights shared, parts of any size."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fluxone.errors import BadRequest, UnknownName
from fluxone.parallel import join, spread
from fluxone.parallel.tensor import pieces
from unit.tiny import bundle

ROOT = Path(__file__).parents[3]


def test_two_processes_give_what_one_gives() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    common |= {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
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


def test_parts_of_groups() -> None:
    assert pieces([4, 4, 8], 1, 2).tolist() == [2, 3, 6, 7, 12, 13, 14, 15]
    assert torch.cat([pieces([4, 8], rank, 4) for rank in range(4)]).sort().values.tolist() == list(range(12))


def test_mistakes_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(BadRequest, match="torchrun"):
        join()
    with pytest.raises(UnknownName, match="did you mean 'ulysses'"):
        spread(bundle(tmp_path).transformer, "ulyses")
