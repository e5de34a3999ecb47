"""Parts come to the device and go home again: counted moves, shared tensors, hooks that do not stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fluxone.errors import UnknownName
from fluxone.offload import MODES, Offload, blocks_of
from fluxone.offload.moving import bring

CPU = torch.device("cpu")
META = torch.device("meta")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.work, self.gate, self.table = nn.Linear(3, 3), nn.Linear(3, 3), nn.Embedding(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.work(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.way_in = nn.Linear(3, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.register_buffer("count", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.way_in(x) * self.count
        for block in self.blocks:
            x = block(x)
        return x


def offload(net: Net, mode: str, device: torch.device = CPU) -> Offload:
    gates = [block.gate for block in net.blocks]
    return Offload({"net": [net], "gates": gates, "other": [nn.Linear(2, 2)]}, device, mode, streamed=("net",))


def places(net: nn.Module) -> dict[str, str]:
    return {name: tensor.device.type for name, tensor in (*net.named_parameters(), *net.named_buffers())}


@pytest.mark.parametrize("mode", sorted(MODES))
def test_a_part_computes_the_same_in_every_mode(mode: str) -> None:
    net, x = Net(), torch.randn(4, 3)
    on_device = offload(net, mode)
    expected = net(x)
    with on_device("net"):
        assert torch.equal(net(x), expected)
        assert torch.equal(net(x), expected)
    times = {"none": 1, "lean": 1, "model": 1, "block": 7, "disk": 7}
    assert on_device.moves == {"net": times[mode], "gates": 0, "other": 0}


def test_none_brings_a_part_once_and_leaves_it() -> None:
    net = Net()
    on_device = offload(net, "none", META)
    with on_device("net"):
        pass
    assert {name for name, place in places(net).items() if place == "cpu"} == {
        f"blocks.{i}.gate.{kind}" for i in range(3) for kind in ("weight", "bias")
    }


def test_model_takes_a_part_home_again_even_after_an_error() -> None:
    net = Net()
    on_device, before = offload(net, "model", META), dict(net.named_parameters())
    data = {name: parameter.data_ptr() for name, parameter in before.items()}
    with pytest.raises(KeyError), on_device("net"):
        assert places(net)["blocks.1.work.weight"] == places(net)["count"] == "meta"
        assert places(net)["blocks.1.gate.weight"] == "cpu"
        raise KeyError
    assert set(places(net).values()) == {"cpu"}
    assert {name: parameter.data_ptr() for name, parameter in net.named_parameters()} == data  # nothing was copied


def test_block_brings_one_block_at_a_time_and_tables_with_the_part() -> None:
    net, seen = Net(), []
    on_device = offload(net, "block", META)
    for block in net.blocks:
        block.register_forward_hook(lambda module, args, out: seen.append(places(net)))
    with on_device("net"):
        outside = places(net)
        net(torch.zeros(4, 3, device=META))
        assert places(net) == outside
    assert outside["way_in.weight"] == outside["count"] == outside["blocks.0.table.weight"] == "meta"
    assert outside["blocks.0.work.weight"] == "cpu"
    for i, during in enumerate(seen):
        there = [during[f"blocks.{j}.work.weight"] for j in range(3)]
        assert there == ["meta" if j == i else "cpu" for j in range(3)]
        assert during[f"blocks.{i}.gate.weight"] == "cpu"
    assert set(places(net).values()) == {"cpu"}
    assert not any(block._forward_pre_hooks for block in net.blocks)


def test_block_goes_home_when_a_block_fails() -> None:
    net = Net()
    on_device = offload(net, "block", META)
    with pytest.raises(RuntimeError), on_device("net"):
        net.blocks[1](torch.zeros(4, 7, device=META))
    assert set(places(net).values()) == {"cpu"}


def test_tensors_that_two_modules_share_go_home() -> None:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = one.weight
    back = bring([one, other], META)
    assert one.weight.is_meta
    back()
    assert not one.weight.is_meta and other.weight is one.weight


def test_parts_can_be_brought_in_inference_mode() -> None:
    net, x = Net(), torch.randn(4, 3)
    with torch.inference_mode(), offload(net, "model")("net"):
        net(x)
    assert not any(parameter.is_inference() for parameter in net.parameters())


def test_changing_the_mode_takes_everything_home_first() -> None:
    net = Net()
    on_device = offload(net, "model")
    on_device.change("none", CPU)
    assert on_device.mode == "none" and set(places(net).values()) == {"cpu"}


def test_unknown_names_are_said() -> None:
    net = Net()
    with pytest.raises(UnknownName, match="no offload mode is called 'tape'"):
        offload(net, "tape")
    with pytest.raises(UnknownName, match="did you mean 'net'"):
        offload(net, "none")("nett")
    with pytest.raises(UnknownName):
        offload(net, "none").change("disc", CPU)


def test_blocks_are_the_children_of_the_outermost_lists() -> None:
    net = nn.Sequential(Net(), Net())
    assert blocks_of(net) == [*net[0].blocks, *net[1].blocks]
    assert blocks_of(nn.Linear(1, 1)) == []
