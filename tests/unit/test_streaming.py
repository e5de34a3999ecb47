"""Blocks that come one by one: fetched ahead, in any order, home after an error; weights that wait in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from fluxone.errors import CannotWrite
from fluxone.offload import pieces_of
from fluxone.offload.disk import Spill
from fluxone.offload.stream import Parade

CPU = torch.device("cpu")


class Lane:
    """Writes down what happens."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def fetch(self, modules: Sequence[nn.Module], device: torch.device) -> Callable[[], None]:
        name = str(modules[0].in_features)
        self.said.append(f"+{name}")
        return lambda: self.said.append(f"-{name}")

    def wait(self) -> None:
        self.said.append("wait")

    def mark(self) -> None:
        self.said.append("mark")


def parade(ahead: bool, lane: Lane) -> Parade:
    return Parade([[nn.Linear(i, 1)] for i in range(3)], CPU, lane, ahead=ahead)


def test_the_next_block_is_fetched_when_one_is_queued() -> None:
    lane = Lane()
    blocks = parade(True, lane)
    for index in (0, 1, 2, 0):
        blocks.come(index)
        blocks.go(index)
    blocks.end()
    step = "wait mark -0 +1 wait mark -1 +2 wait mark -2 +0"
    assert " ".join(lane.said) == f"+0 {step} wait mark -0 +1 -1"


def test_without_looking_ahead_one_is_there_at_a_time() -> None:
    lane = Lane()
    blocks = parade(False, lane)
    for index in (0, 1):
        blocks.come(index)
        blocks.go(index)
    blocks.end()
    assert " ".join(lane.said) == "+0 wait mark -0 +1 wait mark -1"


def test_blocks_that_come_in_another_order_are_right_too() -> None:
    lane = Lane()
    blocks = parade(True, lane)
    for index in (0, 2, 1):
        blocks.come(index)
        blocks.go(index)
    blocks.end()
    assert " ".join(lane.said) == "+0 wait mark -0 +1 -1 +2 wait mark -2 +0 -0 +1 wait mark -1 +2 -2"


def test_spilt_weights_compute_the_same_and_keep_what_is_written() -> None:
    blocks = [nn.Linear(300, 200), nn.Sequential(nn.Linear(200, 7)), nn.Linear(7, 7, bias=False)]
    blocks[2].register_buffer("table", torch.arange(5))
    x = torch.randn(4, 300)
    expected = blocks[1](blocks[0](x))
    before = {name: value.clone() for name, value in blocks[2].state_dict().items()}
    spill = Spill([list(block.modules()) for block in blocks])
    assert spill.bytes % 4096 == 0 and spill.bytes >= 4 * 300 * 200
    for index in range(3):
        spill.release(index)
    assert torch.equal(blocks[1](blocks[0](x)), expected)
    assert all(torch.equal(value, before[name]) for name, value in blocks[2].state_dict().items())
    with torch.no_grad():
        blocks[0].weight.zero_()
    spill.release(0)
    assert not blocks[0].weight.any() and isinstance(blocks[0].weight, nn.Parameter)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLUXONE_CACHE", str(tmp_path / "file"))
    with pytest.raises(CannotWrite, match=r"weights cannot wait in .*FLUXONE_CACHE"):
        Spill([[nn.Linear(9, 9)]])


def test_modules_without_blocks_come_whole_unless_others_reach_into_them() -> None:
    single, row = nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1))
    assert pieces_of(single) == [single] and pieces_of(row) == []
    assert pieces_of(nn.Sequential(nn.ModuleList([single]))) == [single]
    single.add_module("adapters", nn.ModuleList([nn.Identity()]))
    assert pieces_of(single) == [single], "adapters beside a layer are no blocks"
