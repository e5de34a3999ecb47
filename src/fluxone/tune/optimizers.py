"""What takes the steps, one class for each way; all of their state is told by `state` and taken back by `load`.

    adamw      Loshchilov & Hutter 2019                     adamw8bit   its momenta in a byte each (`eightbit`)
    prodigy    finds its own rate: give it 1                schedule-free   needs no falling rate: averages instead
    muon       orthogonal steps for matrices, Adam's for the rest

Source: Mishchenko & Defazio 2023 (Prodigy); Defazio et al. 2024 (schedule-free); Jordan et al. 2024 (Muon).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fluxone.errors import pick
from fluxone.train.optim import MUON_RMS, orthogonalize
from fluxone.tune.eightbit import Bytes

Params = Mapping[str, nn.Parameter]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The numbers of an optimizer."""

    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    decay: float = 0.0


class Adamw:
    """AdamW."""

    def __init__(self, params: Params, pace: Pace) -> None:
        self.params, self.pace, self.taken = dict(params), pace, 0
        self.memory: dict[str, dict[str, Tensor]] = {
            name: {"first": torch.zeros_like(p), "second": torch.zeros_like(p)} for name, p in self.params.items()
        }

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step; parameters without a gradient rest."""
        self.taken += 1
        one, two = self.pace.betas
        rate = self.pace.rate * factor
        for name, p in self.params.items():
            if p.grad is None:
                continue
            memory = self._of(name)
            first, second = memory["first"], memory["second"]
            first.lerp_(p.grad, 1 - one)
            second.mul_(two).addcmul_(p.grad, p.grad, value=1 - two)
            width = (second / (1 - two**self.taken)).sqrt_().add_(self.pace.eps)
            p.mul_(1 - rate * self.pace.decay)
            p.addcdiv_(first, width, value=-rate / (1 - one**self.taken))
            self._keep(name, memory)

    def _of(self, name: str) -> dict[str, Tensor]:
        return self.memory[name]

    def _keep(self, name: str, memory: dict[str, Tensor]) -> None:
        """Nothing to do: the tensors were changed in place."""

    def state(self) -> dict[str, Tensor]:
        """Momenta by parameter, and the count of steps."""
        rows = {f"{name}/{key}": tensor for name, own in self.memory.items() for key, tensor in own.items()}
        return rows | {"taken": torch.tensor(self.taken)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.taken = int(state["taken"])
        for name, own in self.memory.items():
            for key, tensor in own.items():
                tensor.copy_(state[f"{name}/{key}"])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The weights as they are."""
        yield


class Adamw8bit(Adamw):
    """AdamW whose momenta take a byte a number between the steps; small parameters keep theirs whole."""

    SMALLEST = 4096  # numbers: what is smaller gains nothing

    def __init__(self, params: Params, pace: Pace) -> None:
        self.params, self.pace, self.taken = dict(params), pace, 0
        self.memory = {}
        self.packed: dict[str, dict[str, Bytes]] = {}
        for name, p in self.params.items():
            if p.numel() < self.SMALLEST:
                self.memory[name] = {"first": torch.zeros_like(p), "second": torch.zeros_like(p)}
            else:
                self.packed[name] = {
                    "first": Bytes.zeros(p, signed=True),
                    "second": Bytes.zeros(p, signed=False),
                }

    def _of(self, name: str) -> dict[str, Tensor]:
        if name in self.memory:
            return self.memory[name]
        return {key: kept.unpack(self.params[name]) for key, kept in self.packed[name].items()}

    def _keep(self, name: str, memory: dict[str, Tensor]) -> None:
        for key, kept in self.packed.get(name, {}).items():
            kept.pack(memory[key])

    def state(self) -> dict[str, Tensor]:
        """Momenta by parameter, packed as they are."""
        rows = super().state()
        for name, own in self.packed.items():
            for key, kept in own.items():
                rows |= {f"{name}/{key}.codes": kept.codes, f"{name}/{key}.scales": kept.scales}
        return rows

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        super().load(state)
        for name, own in self.packed.items():
            for key, kept in own.items():
                kept.codes.copy_(state[f"{name}/{key}.codes"])
                kept.scales.copy_(state[f"{name}/{key}.scales"])


class Prodigy(Adamw):
    """Prodigy: Adam with a rate that grows to the distance from the start that the gradients tell of."""

    START = 1e-6  # the first guess of the distance

    def __init__(self, params: Params, pace: Pace) -> None:
        super().__init__(params, pace)
        self.distance, self.sum = self.START, 0.0
        for name, p in self.params.items():
            self.memory[name] |= {"start": p.detach().clone(), "slope": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step at `factor` times the rate, which is best left at 1."""
        self.taken += 1
        one, two = self.pace.betas
        root = two**0.5
        fix = (1 - two**self.taken) ** 0.5 / (1 - one**self.taken)
        d = self.distance
        rate = d * self.pace.rate * factor * fix
        moved, slope = 0.0, 0.0
        there = [(name, p, p.grad) for name, p in self.params.items() if p.grad is not None]
        for name, p, grad in there:
            own = self.memory[name]
            moved += float((grad * (own["start"] - p)).sum())
            own["first"].mul_(one).add_(grad, alpha=d * (1 - one))
            own["second"].mul_(two).addcmul_(grad, grad, value=d * d * (1 - two))
            own["slope"].mul_(root).add_(grad, alpha=(d / self.START) * rate)
            slope += float(own["slope"].abs().sum())
        self.sum = root * self.sum + (d / self.START) * rate * moved
        if slope > 0:
            self.distance = max(d, self.sum / slope)
        for name, p, _ in there:
            own = self.memory[name]
            p.mul_(1 - rate * self.pace.decay)
            p.addcdiv_(own["first"], own["second"].sqrt().add_(d * self.pace.eps), value=-rate)

    def state(self) -> dict[str, Tensor]:
        """Momenta, start, and the distance."""
        return super().state() | {"distance": torch.tensor([self.distance, self.sum], dtype=torch.float64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        super().load(state)
        self.distance, self.sum = state["distance"].tolist()


class ScheduleFree(Adamw):
    """Schedule-free AdamW: gradients at a point between the walk `z` and its average `x`; the average is the result."""

    def __init__(self, params: Params, pace: Pace) -> None:
        self.params, self.pace, self.taken = dict(params), pace, 0
        self.weight = 0.0
        self.memory = {
            name: {"walk": p.detach().clone(), "second": torch.zeros_like(p)} for name, p in self.params.items()
        }

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step at `factor` of the rate."""
        self.taken += 1
        one, two = self.pace.betas
        rate = self.pace.rate * factor
        self.weight += rate**2
        share = rate**2 / self.weight if self.weight else 0.0
        for name, p in self.params.items():
            if p.grad is None:
                continue
            walk, second = self.memory[name]["walk"], self.memory[name]["second"]
            second.mul_(two).addcmul_(p.grad, p.grad, value=1 - two)
            grad = p.grad / (second / (1 - two**self.taken)).sqrt_().add_(self.pace.eps)
            grad.add_(p, alpha=self.pace.decay)
            average = torch.lerp(walk, p, 1 / one)  # p = one * average + (1 - one) * walk
            walk.sub_(grad, alpha=rate)
            average.lerp_(walk, share)
            p.copy_(torch.lerp(walk, average, one))

    def state(self) -> dict[str, Tensor]:
        """The walk, its momenta and weights."""
        return super().state() | {"weight": torch.tensor(self.weight, dtype=torch.float64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        super().load(state)
        self.weight = float(state["weight"])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The average in the weights' place."""
        one = self.pace.betas[0]
        kept = {name: p.detach().clone() for name, p in self.params.items()}
        with torch.no_grad():
            for name, p in self.params.items():
                p.copy_(torch.lerp(self.memory[name]["walk"], p, 1 / one))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self.params.items():
                    p.copy_(kept[name])


class Muon(Adamw):
    """Orthogonal steps for matrices, Adam's for what has another shape or a side of 1."""

    MOMENTUM = 0.95

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step at `factor` of the rate."""
        rate = self.pace.rate * factor
        matrices = {name: p for name, p in self.params.items() if p.ndim == 2 and min(p.shape) > 1}
        for name, p in matrices.items():
            if p.grad is None:
                continue
            momentum = self.memory[name]["first"].mul_(self.MOMENTUM).add_(p.grad)
            update = orthogonalize((p.grad + self.MOMENTUM * momentum)[None])[0]
            p.mul_(1 - rate * self.pace.decay)
            p.sub_(update, alpha=rate * MUON_RMS * max(p.shape) ** 0.5)
        kept = {name: p.grad for name, p in matrices.items()}
        for p in matrices.values():
            p.grad = None
        super().step(factor)
        for name, p in matrices.items():
            p.grad = kept[name]


OPTIMIZERS: dict[str, type[Adamw]] = {
    "adamw": Adamw,
    "adamw8bit": Adamw8bit,
    "prodigy": Prodigy,
    "schedule-free": ScheduleFree,
    "muon": Muon,
}
BY_NUMBER = ("adamw", "schedule-free")  # what they do to a number depends on that number alone
# Numbers that each remembers for one that it trains, in bytes.
BYTES = {"adamw": 8.0, "adamw8bit": 2.02, "prodigy": 16.0, "schedule-free": 8.0, "muon": 8.0}


def make(name: str, params: Params, pace: Pace) -> Adamw:
    """The optimizer of that name.

    Raises:
        UnknownName: there is none.
    """
    return pick(OPTIMIZERS, name, "optimizer")(params, pace)
