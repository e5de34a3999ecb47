"""Adapters that learn: at first the base to the last bit, then what a finished adapter computes, and off again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fluxone.errors import UnknownName
from fluxone.lora.load import load_lora
from fluxone.nn.tokens import image_ids, text_ids
from fluxone.nn.transformer import Flux
from fluxone.quant.apply import quantize
from fluxone.tune import write
from fluxone.tune.beside import Beside, fresh, numbers, taken
from fluxone.tune.kinds import KINDS, Size
from fluxone.tune.targets import chosen
from unit.tiny import TINY, bundle

SIZE = Size(rank=3, alpha=6.0)


@pytest.fixture
def network(tmp_path: Path) -> Flux:
    return bundle(tmp_path).transformer


def velocity(network: Flux) -> Tensor:
    source = torch.Generator().manual_seed(5)
    shape = TINY.shape

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=source)

    ids, words = image_ids(2, 3), text_ids(4)
    sigma, guidance = torch.tensor([0.3, 0.8]), torch.ones(2)
    with torch.no_grad():
        img, txt, pooled = draw(2, 6, shape.in_channels), draw(2, 4, shape.text_dim), draw(2, shape.vec_dim)
        return network(img, ids, txt, words, sigma, pooled, guidance)


def shaken(beside: Beside) -> None:
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in beside.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=source))


@pytest.mark.parametrize("kind", list(KINDS))
def test_at_first_it_is_the_base_and_off_it_is_again(kind: str, network: Flux) -> None:
    base = velocity(network)
    beside = Beside(network, fresh(network, kind, ("blocks", "modulation"), SIZE, 0))
    first = velocity(network)
    if kind == "dora":  # a magnitude over the norm that it is: 1, but for its rounding
        torch.testing.assert_close(first, base, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(first, base)
    shaken(beside)
    assert (velocity(network) - base).abs().max() > 1e-3
    with beside.at(0):
        assert torch.equal(velocity(network), base)
    beside.leave()
    assert torch.equal(velocity(network), base)
    assert not any("adapters" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_written_computes_the_same_in_the_pipeline(kind: str, network: Flux, tmp_path: Path) -> None:
    from fluxone.lora.adapters import Adapters, Strength
    from fluxone.weights.keymap import TRANSFORMER

    beside = Beside(network, fresh(network, kind, ("blocks",), SIZE, 0))
    shaken(beside)
    trained = velocity(network)
    found = write.write(beside.lora(), tmp_path, "fox", {}, dtype=torch.float32)
    assert [one.path.name for one in found] == ["fox.safetensors", "fox-kohya.safetensors"]
    beside.leave()
    for one in found:
        adapters = Adapters({TRANSFORMER: network}, width=TINY.shape.hidden, dtype=torch.float32)
        adapters.load(load_lora(one.path), "a")
        adapters.use({"a": Strength()})
        torch.testing.assert_close(velocity(network), trained, rtol=1e-4, atol=1e-5)
        adapters.clear()


def test_a_finished_adapter_in_pieces_goes_on(network: Flux, tmp_path: Path) -> None:
    """A file of diffusers has a pair for each of query, key and value."""
    beside = Beside(network, fresh(network, "lora", ("attention",), SIZE, 0))
    shaken(beside)
    trained = velocity(network)
    (one, _) = write.write(beside.lora(), tmp_path, "fox", {}, dtype=torch.float32)
    beside.leave()
    again = Beside(network, taken(load_lora(one.path)))
    torch.testing.assert_close(velocity(network), trained, rtol=1e-4, atol=1e-5)
    assert len(again.parts) > len(chosen(network, ("attention",)))
    loss = (velocity_with_gradient(network)).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in again.parameters())


def velocity_with_gradient(network: Flux) -> Tensor:
    shape = TINY.shape
    return network(
        torch.ones(1, 4, shape.in_channels), image_ids(2, 2), torch.ones(1, 4, shape.text_dim), text_ids(4),
        torch.tensor([0.5]), torch.ones(1, shape.vec_dim), torch.ones(1),
    )  # fmt: skip


@pytest.mark.parametrize("quant", ["fp8", "int8", "nf4"])
@pytest.mark.parametrize("kind", ["lora", "lokr", "dora"])
def test_beside_packed_layers(quant: str, kind: str, network: Flux) -> None:
    quantize(network, quant, torch.bfloat16)
    beside = Beside(network, fresh(network, kind, ("blocks",), SIZE, 0))
    shape = TINY.shape
    out = network(
        torch.ones(1, 4, shape.in_channels, dtype=torch.bfloat16), image_ids(2, 2),
        torch.ones(1, 4, shape.text_dim, dtype=torch.bfloat16), text_ids(4),
        torch.tensor([0.5]), torch.ones(1, shape.vec_dim, dtype=torch.bfloat16), torch.ones(1),
    )  # fmt: skip
    out.float().square().mean().backward()
    grads = [p.grad for p in beside.parameters()]
    assert all(grad is not None and grad.dtype == torch.float32 and torch.isfinite(grad).all() for grad in grads)
    assert sum(float(grad.abs().sum()) for grad in grads if grad is not None) > 0


def test_targets_by_preset_and_pattern(network: Flux) -> None:
    def names(*wanted: str) -> set[str]:
        return set(chosen(network, wanted))

    assert names("attention") < names("blocks") < names("blocks", "modulation")
    assert names("single_blocks.1") == {f"single_blocks.1.{leaf}" for leaf in ("linear1", "linear2", "modulation.lin")}
    assert names("blocks", "!double_blocks.0") == {n for n in names("blocks") if not n.startswith("double_blocks.0.")}
    assert names("single") | names("double") == names("blocks")
    for bad in (("blocks", "!blocks"), ("nonsense",), ("blocks", "!nonsense")):
        with pytest.raises(UnknownName):
            chosen(network, bad)


def test_a_model_that_wears_an_adapter_is_refused(network: Flux) -> None:
    from fluxone.errors import BadRequest

    Beside(network, fresh(network, "lora", ("attention",), SIZE, 0))
    with pytest.raises(BadRequest, match="wears an adapter"):
        Beside(network, fresh(network, "lora", ("attention",), SIZE, 0))


def test_the_size_is_told(network: Flux) -> None:
    deltas = fresh(network, "lora", ("single_blocks.*.linear2",), SIZE, 0)
    assert numbers(deltas) == 2 * 3 * (32 + 32 + 128)
    assert all(isinstance(layer, nn.Linear) for layer in chosen(network, ("blocks",)).values())
