"""When calls are recorded and replayed, with a recording that only notes them: the real one needs a GPU (tests/gpu)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fluxone.nn import graphs


class Noted(graphs.Recording):
    """In place of a recording: the network's own call, counted."""

    def __init__(self, network: nn.Module) -> None:
        self.__dict__.update(network=network, count=0)

    def replay(self, inputs: tuple[Any, ...]) -> Any:
        self.__dict__["count"] += 1
        return self.__dict__["network"]._call_impl(*inputs)


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[graphs.Recorded]:
    """A network's, recorded by notes, on a device that counts as one."""
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).requires_grad_(False).eval()
    monkeypatch.setattr(graphs, "_can", lambda inputs: not torch.is_grad_enabled())
    monkeypatch.setattr(graphs, "_here", lambda tensor: True)
    monkeypatch.setattr(graphs.Recorded, "_record", lambda self, inputs: Noted(self.network))
    graphs.record(network)
    found = network._compiled_call_impl
    assert isinstance(found, graphs.Recorded)
    with torch.no_grad():
        yield found


def counts(way: graphs.Recorded) -> list[int | None]:
    notes: list[Any] = list(way.recordings.values())
    return [None if note is None else note.__dict__["count"] for note in notes]


def test_the_second_call_of_a_shape_is_recorded(way: graphs.Recorded) -> None:
    x = torch.randn(2, 4)
    plain = way.network.forward(x)
    for expected in ([None], [1], [2]):
        assert torch.equal(way.network(x), plain) and counts(way) == expected
    for rows in range(3, 3 + graphs.MOST):
        way.network(torch.randn(rows, 4))
    assert counts(way) == [None] * graphs.MOST, "the oldest went"
    graphs.release(way.network)
    assert way.network._compiled_call_impl is None and torch.equal(way.network(x), plain)


def test_what_changes_the_network_ends_its_recordings(way: graphs.Recorded) -> None:
    x, layer = torch.randn(2, 4), way.network[0]  # type: ignore[index]
    for _ in range(3):
        way.network(x)
    layer.weight.data = layer.weight.data * 2
    assert torch.equal(way.network(x), way.network.forward(x)) and counts(way) == [None]
    way.network(x)
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, out: seen.append(out))
    way.network(x)
    assert len(seen) == 1 and counts(way) == []
    hook.remove()
    layer.__class__ = type("Beside", (nn.Linear,), {})
    way.network(x), way.network(x)
    assert counts(way) == []


def test_gradients_and_failures_are_plain(way: graphs.Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 4)

    def fails(self: object, inputs: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs.Recorded, "_record", fails)
    for _ in range(4):
        assert torch.equal(way.network(x), way.network.forward(x))
    assert len(way.failed) == 1 and counts(way) == []
    with torch.enable_grad():
        assert way.network(x.requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("asked", "compiled", "works"), [("", False, False), ("", True, True), ("1", False, True), ("0", True, False)]
)
def test_who_asks_for_it(asked: str, compiled: bool, works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(graphs.ASKED, asked)
    assert graphs.wanted(torch.device("cuda"), compiled=compiled) is works
    assert not graphs.wanted(torch.device("cpu"), compiled=compiled)


def test_on_a_cpu_calls_are_what_they_were() -> None:
    network = nn.Linear(4, 4).eval()
    x = torch.randn(2, 4)
    plain = network(x)
    graphs.record(network)
    with torch.no_grad():
        assert all(torch.equal(network(x), plain) for _ in range(3))
    found = network._compiled_call_impl
    assert isinstance(found, graphs.Recorded) and not found.recordings
