"""Adapters that learn: beside a network's layers, in float32 whatever the layers are packed in.

    out = layer(x) + strength * change(x)          strength 0: the base itself, at no cost

They stand where `lora.layer` puts finished ones, compute what those compute, and become a `Lora` at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from fluxone.errors import BadRequest, BadWeights, pick
from fluxone.lora.delta import Delta, Target
from fluxone.lora.layer import CHILD, attach, beside, sides_of, weight_of
from fluxone.lora.load import Lora, check_fit, shapes_of
from fluxone.nn.transformer import Flux
from fluxone.tune.kinds import KINDS, Size
from fluxone.tune.targets import chosen
from fluxone.weights.keymap import TRANSFORMER

MAGNITUDE = "magnitude"


class Learning(nn.Module):
    """One delta whose tensors are parameters.

    Args:
        layer: that it stands beside; kept out of this module's own parameters.
    """

    def __init__(self, delta: Delta, layer: nn.Module, rows: slice) -> None:
        super().__init__()
        self._delta, self.rows, self.strength = delta, rows, 1.0
        self._layer = (layer,)  # in a tuple: no submodule
        for name, tensor in delta.factor.tensors().items():
            self.register_parameter(name, nn.Parameter(tensor.detach().float().clone()))
        if delta.magnitude is not None:
            self.register_parameter(MAGNITUDE, nn.Parameter(delta.magnitude.detach().float().clone()))

    def now(self) -> Delta:
        """The delta as it is now, its tensors the parameters themselves."""
        tensors = {name: self.get_parameter(name) for name in self._delta.factor.tensors()}
        factor = replace(self._delta.factor, **tensors)  # type: ignore[arg-type]
        magnitude = None if self._delta.magnitude is None else self.get_parameter(MAGNITUDE)
        return replace(self._delta, factor=factor, magnitude=magnitude)

    def added(self, out: Tensor, x: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's output with this adapter's part in its rows."""
        if self.strength == 0:
            return out
        part = self._change(x, plain)
        part = part if self.strength == 1 else self.strength * part
        if part.shape == out.shape:
            return out + part
        out = out.clone()
        out[..., self.rows] += part
        return out

    def _change(self, x: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
        delta = self.now()
        if delta.target.leaf == "bias":
            return delta.factor.matrix(x.dtype)
        x = x[..., : delta.factor.shape[1]]
        if delta.magnitude is None:
            return delta.factor.times(x)
        with torch.no_grad():  # the norm is no way for gradients: DoRA, section 4.3
            weight = weight_of(self._layer[0])[self.rows].to(torch.float32)
            updated = weight + delta.factor.matrix(torch.float32)
        by_row = delta.magnitude.shape[1] == 1
        norm: Tensor = torch.linalg.vector_norm(updated, dim=1 if by_row else 0, keepdim=True)
        gain: Tensor = (delta.magnitude / (norm + torch.finfo(torch.float32).eps)).flatten()
        more, gain = (gain - 1).to(x.dtype), gain.to(x.dtype)
        if by_row:
            rows: Tensor = more * plain(x)[..., self.rows] + gain * delta.factor.times(x)
            return rows
        out: Tensor = plain(x * more)[..., self.rows] + delta.factor.times(x * gain)
        return out


class Beside(nn.Module):
    """All adapters of one network, attached to it from the beginning.

    Args:
        deltas: what each starts from.

    Raises:
        BadWeights: one of them does not fit the network, or cannot work beside a layer.
    """

    def __init__(self, network: Flux, deltas: Sequence[Delta]) -> None:
        super().__init__()
        width = network.shape.hidden
        check_fit(Lora(deltas=tuple(deltas), path="the adapter"), {TRANSFORMER: _shapes(network)}, width)
        device = next(network.parameters()).device
        self.parts = nn.ModuleDict()
        self._layers: dict[str, nn.Module] = {}
        by_layer: dict[str, list[Learning]] = {}
        for delta in deltas:
            if not beside(delta) or delta.target.part != TRANSFORMER:
                raise BadWeights(
                    f"{delta.target.name} ({delta.kind}) cannot be trained beside a layer",
                    hint="leave it out: LoRA, LoKr, DoRA and differences of the transformer's linear layers can",
                )
            layer = network.get_submodule(delta.target.module)
            height: int = layer.out_features  # type: ignore[assignment]
            one = Learning(delta, layer, delta.target.rows(height, width)).to(device)
            self.parts[_key(delta.target)] = one
            self._layers[delta.target.module] = layer
            by_layer.setdefault(delta.target.module, []).append(one)
        for name, sides in by_layer.items():
            if sides_of(self._layers[name]):
                raise BadRequest("the model wears an adapter already", hint="merge it first: fluxone lora merge")
            attach(self._layers[name], sides)  # type: ignore[arg-type]

    def deltas(self) -> tuple[Delta, ...]:
        """As they are now, in memory of their own."""
        found = []
        for one in self.parts.values():
            assert isinstance(one, Learning)
            found.append(_copied(one.now()))
        return tuple(found)

    def lora(self, metadata: Mapping[str, str] | None = None) -> Lora:
        """The adapter as it is now."""
        return Lora(deltas=self.deltas(), metadata=dict(metadata or {}))

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """A context in which all of them work that strongly."""
        before = {key: one.strength for key, one in self._each().items()}
        try:
            for one in self._each().values():
                one.strength = strength
            yield
        finally:
            for key, one in self._each().items():
                one.strength = before[key]

    def values(self) -> dict[str, Tensor]:
        """What is learnt, by name, in memory of its own."""
        return {name: p.detach().clone() for name, p in self.named_parameters()}

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Take the values of `state_dict` back."""
        own = dict(self.named_parameters())
        for name, value in values.items():
            own[name].copy_(value)

    def leave(self) -> None:
        """Take all of them off the network, which is then what it was."""
        for layer in self._layers.values():
            attach(layer, ())

    def _each(self) -> dict[str, Learning]:
        return {key: one for key, one in self.parts.items() if isinstance(one, Learning)}


def fresh(network: Flux, kind: str, wanted: Sequence[str], size: Size, seed: int) -> list[Delta]:
    """New deltas of a kind for the layers that presets and patterns choose; drawn from the seed.

    Raises:
        UnknownName: there is no such kind, or a pattern chooses nothing.
    """
    make = pick(KINDS, kind, "kind of adapter")
    rng = torch.Generator().manual_seed(seed)
    return [
        make(Target(part=TRANSFORMER, module=name), layer, size, rng) for name, layer in chosen(network, wanted).items()
    ]


def taken(lora: Lora) -> list[Delta]:
    """The deltas of a finished adapter to go on from. What a LoRA's scale says moves into `up`'s training as it is."""
    return [_copied(delta) for delta in lora.deltas]


def rank_of(deltas: Sequence[Delta]) -> int:
    """The largest rank."""
    return max((delta.factor.rank or 0 for delta in deltas), default=0)


def numbers(deltas: Sequence[Delta]) -> int:
    """How many numbers are learnt."""
    own = sum(tensor.numel() for delta in deltas for tensor in delta.factor.tensors().values())
    return own + sum(delta.magnitude.numel() for delta in deltas if delta.magnitude is not None)


def _copied(delta: Delta) -> Delta:
    def own(tensor: Tensor) -> Tensor:
        return tensor.detach().float().cpu().clone()

    magnitude = None if delta.magnitude is None else own(delta.magnitude)
    return replace(delta, factor=delta.factor.each(own), magnitude=magnitude)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes_of(network).items() if f".{CHILD}." not in name}


def _key(target: Target) -> str:
    """A module's name may hold no dot."""
    piece = f"/{target.piece}:{target.span}of{target.pieces}" if target.pieces > 1 else ""
    return f"{target.name}{piece}".replace(".", "/")
