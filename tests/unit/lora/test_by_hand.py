"""A random adapter in each style does what the same change merged by hand in float64 does: live and fused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fluxone.lora.adapters import Adapters, Strength
from fluxone.lora.load import read_lora
from fluxone.nn.transformer import Flux
from unit.lora.by_hand import STYLED, H, Made, apart, make, network, run

EXACT = 1e-12


def adapters(model: Flux) -> Adapters:
    return Adapters({"transformer": model}, width=H, dtype=next(model.parameters()).dtype)


def loaded(made: Made, dtype: torch.dtype = torch.float64) -> tuple[Flux, Adapters]:
    model = network(dtype)
    own = adapters(model)
    own.load(read_lora(made.tensors), "a")
    return model, own


def channels(own: Adapters) -> int:
    return own.in_channels or 8


@pytest.mark.parametrize("style", STYLED)
def test_beside_the_layers(style: str) -> None:
    made = STYLED[style]()
    model, own = loaded(made)
    plain = run(model)
    own.use({"a": Strength(scale=0.7)})
    wanted = run(made.merged(0.7), channels(own))
    assert apart(run(model, channels(own)), wanted) < EXACT
    if own.in_channels is None:
        assert apart(wanted, plain) > 1e-3  # it does something
    own.clear()
    assert torch.equal(run(model), plain)


@pytest.mark.parametrize("style", STYLED)
def test_merged_and_taken_out_to_the_last_bit(style: str) -> None:
    made = STYLED[style]()
    model, own = loaded(made)
    plain, before = run(model), {name: value.clone() for name, value in model.state_dict().items()}
    own.use({"a": Strength(scale=0.7)})
    own.fuse()
    # Merging sums in float64 what the file has in float32.
    assert apart(run(model, channels(own)), run(made.merged(0.7), channels(own))) < EXACT
    own.unfuse()
    own.use({})
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(run(model), plain)


@pytest.mark.parametrize("style", ["diffusers", "kohya", "lycoris lokr", "lycoris loha", "onetrainer dora in"])
def test_float32_and_bfloat16_are_near(style: str) -> None:
    made = STYLED[style]()
    wanted = run(made.merged())
    for dtype, bound in ((torch.float32, 2e-5), (torch.bfloat16, 0.2)):
        model, own = loaded(made, dtype)
        own.use({"a": Strength()})
        assert apart(run(model), wanted) < bound


def test_two_at_once_add_up() -> None:
    first, second = STYLED["diffusers"](), STYLED["comfy lokr"]()
    model = network()
    own = adapters(model)
    own.load(read_lora(first.tensors), "a")
    own.load(read_lora(second.tensors), "b")
    own.use({"a": Strength(scale=0.8), "b": Strength(scale=-0.5)})
    base = network()
    wanted = first.merged(0.8)
    for name, change in second.value.items():
        original = base.get_parameter(name).detach()
        wanted.get_parameter(name).add_(change(original.clone(), -0.5) - original)
    assert apart(run(model), run(wanted)) < EXACT
    own.fuse(["b"])
    assert apart(run(model), run(wanted)) < EXACT
    own.drop("a")
    assert apart(run(model), run(second.merged(-0.5))) < EXACT


@pytest.mark.parametrize("other", ["diffusers", "kohya", "comfy dora out", "comfy dora in"])
def test_a_control_lora_beside_one_of_the_base_model(other: str) -> None:
    """The one gives the entrance twelve columns, the other knows of eight."""
    model, own = loaded(STYLED["control"]())
    own.load(read_lora(STYLED[other]().tensors), "b")
    own.use({"a": Strength(scale=0.7), "b": Strength(scale=0.4)})
    beside = run(model, channels(own))
    own.use({"a": Strength(scale=0.7)})
    assert apart(run(model, channels(own)), beside) > 1e-3
    own.use({"a": Strength(scale=0.7), "b": Strength(scale=0.4)})
    own.fuse()
    assert apart(run(model, 12), beside) < EXACT


def test_switching_leaves_nothing_behind() -> None:
    model = network()
    own = adapters(model)
    plain = run(model)
    for name in ("kohya", "control", "comfy dora in", "rest"):
        own.load(read_lora(STYLED[name]().tensors), name)
    alone = {}
    for name in own.names:
        own.use({name: Strength()})
        alone[name] = run(model, channels(own))
    for name in reversed(own.names):
        own.use({name: Strength()})
        assert torch.equal(run(model, channels(own)), alone[name])
    own.clear()
    assert torch.equal(run(model), plain)
    assert not [name for name, _ in model.named_modules() if "adapters" in name]
    assert model.img_in.in_features == 8


def test_blocks_have_their_own_strengths() -> None:
    made = STYLED["comfy"]()
    model, own = loaded(made)
    own.use({"a": Strength(scale=2.0, blocks={"transformer": 0.0, "single_blocks": 0.25, "*.linear2": 0.5})})
    base, half, whole = network(), made.merged(0.5), made.merged(1.0)
    for name, parameter in base.named_parameters():
        if name.endswith("linear2.weight"):
            parameter.copy_(whole.get_parameter(name))
        elif name.startswith("single_blocks"):
            parameter.copy_(half.get_parameter(name))
    assert apart(run(model), run(base)) < EXACT


def test_each_row_of_a_batch_can_have_its_own_strength() -> None:
    made = STYLED["diffusers"]()
    model, own = loaded(made)
    own.use({"a": Strength(scale=2.0)})
    own.share({"a": torch.tensor([0.5, 0.0])})
    got = run(model)
    assert apart(got[:1], run(made.merged(1.0))[:1]) < EXACT
    assert torch.equal(got[1:], run(network())[1:])
    own.share({})
    assert apart(run(model), run(made.merged(2.0))) < EXACT


def test_a_course_runs_over_the_steps() -> None:
    strength = Strength(course=(1.0, 0.0, 0.5))
    assert [strength.after(share) for share in (0, 0.25, 0.5, 0.75, 1)] == [1, 0.5, 0, 0.25, 0.5]
    assert Strength().after(0.3) == 1
    assert Strength(course=(0.4,)).after(1.0) == 0.4


def test_fused_may_stay_when_all_is_unloaded() -> None:
    made = STYLED["kohya"]()
    model, own = loaded(made)
    own.use({"a": Strength()})
    own.fuse()
    fused = run(model)
    own.clear(keep_fused=True)
    assert own.names == []
    assert torch.equal(run(model), fused)


class Toy(nn.Module):
    """A layer of the network's name in a block that can be compiled: the checks of types in `nn` cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.txt_in = nn.Linear(20, H, dtype=torch.float64)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.txt_in(x))


def test_compiled_code_sees_an_adapter_come_change_and_go() -> None:
    model, runs = Toy(), []
    own = Adapters({"transformer": model}, width=H, dtype=torch.float64)
    x = torch.randn(2, 3, 20, dtype=torch.float64)
    files = [make({"txt_in": ["diffusion_model.txt_in"]}, kind) for kind in ("lora", "dora in")]
    for name, file in zip("ac", files, strict=True):
        own.load(read_lora(file.tensors), name)

    def counted(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        runs.append(graph)
        return graph.forward

    model.compile(backend=counted)
    weight = model.txt_in.weight.detach().clone()

    def right(file: Made | None, strength: float) -> bool:
        own_weight = weight if file is None else file.value["txt_in.weight"](weight.clone(), strength)
        wanted = nn.functional.silu(nn.functional.linear(x, own_weight, model.txt_in.bias))
        return apart(model(x), wanted) < EXACT

    try:
        assert right(None, 0)
        own.use({"a": Strength()})
        assert right(files[0], 1)
        own.use({"c": Strength()})
        assert right(files[1], 1)
        own.use({"a": Strength(scale=0.3)})
        before = len(runs)
        assert right(files[0], 0.3)
        own.use({"a": Strength(scale=0.9)})
        assert right(files[0], 0.9)
        own.use({})
        assert right(None, 0)
        own.use({"a": Strength()})
        assert right(files[0], 1)
        assert len(runs) == before, "what was compiled once serves again, whatever the strength"
    finally:
        torch.compiler.reset()
