"""Muon for the matrices inside blocks, AdamW for everything else, as one optimizer with one state.

Muon replaces each matrix's momentum by the nearest orthogonal one, so every direction learns at the same
rate; on small models it needs about half of AdamW's steps. The step's size follows Moonlight: scaled to an
RMS of 0.2, so that both halves take similar learning rates.

Source: Jordan et al. 2024, "Muon"; Liu et al. 2025, "Muon is scalable for LLM training".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fluxone.train.group import Group, total

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al.: quintic with the steepest slope at zero
MUON_RMS = 0.2


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates and momenta.

    Attributes:
        muon, adam: peak learning rates of the two halves.
        warmup: steps of linear rise.
        decay: share of the run, at its end, over which rates fall linearly to `floor`.
    """

    muon: float = 3e-3
    adam: float = 1.8e-3
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.97)
    eps: float = 1e-8
    warmup: int = 50
    decay: float = 0.4
    floor: float = 0.02
    clip: float = 1.0

    def factor(self, step: int, progress: float) -> float:
        """Share of the peak rates at `step`, `progress` (0 to 1) through the run: rise, plateau, linear fall."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        left = (1 - progress) / self.decay if self.decay else 1.0
        return rise * max(self.floor, min(1.0, left))


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Bring the singular values of a stack of matrices (N, rows, columns) near 1, in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).contiguous()  # a fifth quicker than a transposed view
    for _ in range(iterations):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    out: Tensor = x.mT if tall else x
    return out.to(matrices.dtype)


class MuonAdamW:
    """Both optimizers over named parameters. `muon` says which names Muon takes.

    Convolution kernels are taken as matrices (out, in * height * width). The processes of a group share the
    work of orthogonalizing: on a small model it is a third of a step.

    Args:
        paces: share of the rates that a parameter takes, where it is not 1.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        muon: set[str],
        rates: Rates,
        group: Group | None = None,
        paces: Mapping[str, float] | None = None,
    ) -> None:
        self.rates, self.group, self.paces = rates, group or Group(), paces or {}
        self.params = {name: p for name, p in named if p.requires_grad}
        self.muon = [name for name in self.params if name in muon]
        self.adam = [name for name in self.params if name not in muon]
        self.taken = 0
        self.first = {name: torch.zeros_like(p) for name, p in self.params.items()}
        self.second = {name: torch.zeros_like(self.params[name]) for name in self.adam}

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Take one step at `factor` of the peak rates. Parameters without a gradient rest."""
        self.taken += 1
        self._step_muon(self.rates.muon * factor)
        self._step_adam(self.rates.adam * factor)

    def _step_muon(self, rate: float) -> None:
        names = [name for name in self.muon if self.params[name].grad is not None]
        if not names:
            return
        grads = [grad for name in names if (grad := self.params[name].grad) is not None]
        momenta = [self.first[name] for name in names]
        torch._foreach_mul_(momenta, self.rates.momentum)
        torch._foreach_add_(momenta, grads)
        updates = torch._foreach_mul(momenta, self.rates.momentum)
        torch._foreach_add_(updates, grads)
        stacks: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}
        for name, update in zip(names, updates, strict=True):
            matrix = update.flatten(1)
            stacks.setdefault((matrix.shape[0], matrix.shape[1]), []).append((name, matrix))
        for shape, rows in stacks.items():
            scale = -rate * MUON_RMS * max(shape) ** 0.5
            made = self._orthogonal(torch.stack([update for _, update in rows]))
            params: list[Tensor] = [self.params[name] for name, _ in rows]
            steps = [one.view_as(p) for one, p in zip(made, params, strict=True)]
            torch._foreach_mul_(steps, [scale * self.paces.get(name, 1.0) for name, _ in rows])
            torch._foreach_add_(params, steps)

    def _orthogonal(self, stack: Tensor) -> Tensor:
        rank, world = self.group.rank, self.group.world
        if world == 1:
            return orthogonalize(stack)
        out = torch.zeros_like(stack)
        if len(stack) > rank:
            out[rank::world] = orthogonalize(stack[rank::world])
        return total(self.group, out)

    def _step_adam(self, rate: float) -> None:
        names = [name for name in self.adam if self.params[name].grad is not None]
        if not names:
            return
        one, two = self.rates.betas
        params: list[Tensor] = [self.params[name] for name in names]
        grads = [p.grad for p in params if p.grad is not None]
        first, second = [self.first[name] for name in names], [self.second[name] for name in names]
        torch._foreach_lerp_(first, grads, 1 - one)
        torch._foreach_mul_(second, two)
        torch._foreach_addcmul_(second, grads, grads, 1 - two)
        width = torch._foreach_div(second, 1 - two**self.taken)
        torch._foreach_sqrt_(width)
        torch._foreach_add_(width, self.rates.eps)
        step = -rate / (1 - one**self.taken)
        torch._foreach_addcdiv_(params, first, width, [step * self.paces.get(name, 1.0) for name in names])

    def state(self) -> dict[str, Tensor]:
        """All momenta, by name; `load` takes them back."""
        rows = {f"first.{name}": value for name, value in self.first.items()}
        rows |= {f"second.{name}": value for name, value in self.second.items()}
        return rows | {"taken": torch.tensor(self.taken)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave.

        Raises:
            KeyError: the state belongs to other parameters.
        """
        self.taken = int(state["taken"])
        for name, value in self.first.items():
            value.copy_(state[f"first.{name}"])
        for name, value in self.second.items():
            value.copy_(state[f"second.{name}"])


def clip(params: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their norm is at most `limit`; returns the norm before, without waiting for it."""
    return nn.utils.clip_grad_norm_([p for p in params if p.grad is not None], limit)
