"""Low-rank adapters in training: every linear layer of the blocks gets `up @ down` beside it, the network rests.

    out = linear(x) + up @ down @ x          down (rank, in), up (out, rank), up starts at zero
    out = linear(x) + change @ x             whole: change (out, in), starts at zero, cut to its rank when it is written

On a network as small as the mini a whole change costs no more than a pair, and Muon can step it.

Source: Hu et al. 2021, "LoRA".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fluxone.errors import BadWeights
from fluxone.lora.delta import Delta, Target
from fluxone.lora.factors import Factor, LowRank
from fluxone.lora.load import Lora, check_fit, shapes_of
from fluxone.lora.merge import nearest
from fluxone.lora.save import save_lora
from fluxone.nn.transformer import Flux
from fluxone.weights.keymap import TRANSFORMER

STYLE = "diffusers"  # of the files that are written
MODULATION = ".lin"  # how the names of its layers end; single blocks have a `linear1` and a `linear2` to adapt


class Pair(nn.Module):
    """The two factors beside one linear layer."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        rank = min(rank, layer.in_features, layer.out_features)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) * layer.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor, layer: nn.Linear) -> Tensor:
        return F.linear(x, layer.weight, layer.bias) + F.linear(F.linear(x, self.down), self.up)

    def take(self, change: Tensor) -> None:
        """Start at this change, or at what is nearest to it."""
        near = nearest(change, len(self.down), torch.float32).tensors()
        self.down.copy_(near["down"])
        self.up.copy_(near["up"])

    def factor(self) -> Factor:
        """As a file holds it."""
        return LowRank(down=self.down.detach().clone(), up=self.up.detach().clone(), scale=1.0)


class Whole(nn.Module):
    """What is added to one linear layer's weight."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.change = nn.Parameter(torch.zeros_like(layer.weight))

    def forward(self, x: Tensor, layer: nn.Linear) -> Tensor:
        return F.linear(x, layer.weight + self.change, layer.bias)  # one product instead of two

    def take(self, change: Tensor) -> None:
        """Start at this change."""
        self.change.copy_(change)

    def factor(self) -> Factor:
        """As a file holds it: the nearest of its rank."""
        return nearest(self.change.detach(), self.rank, torch.float32)


class Beside(nn.Linear):
    """A linear layer with a pair beside it. A class, not a hook, so that compiled blocks are alike."""

    beside: tuple[Pair | Whole]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.beside[0](x, self)
        return out


class LowRankAdapters(nn.Module):
    """Adapters at work beside a network's layers, and no part of it.

    Args:
        rank: of what is written.
        whole: whether any change is learnt, or only one of that rank.
    """

    def __init__(self, flux: Flux, rank: int, *, whole: bool = False) -> None:
        super().__init__()
        flux.requires_grad_(False)
        self.pairs = nn.ModuleDict()
        for name, layer in layers(flux).items():
            pair = Whole(layer, rank) if whole else Pair(layer, rank)
            self.pairs[_key(name)] = pair
            layer.__class__ = Beside
            cast("Beside", layer).beside = (pair,)  # in a tuple: no part of the network

    @torch.no_grad()
    def take(self, lora: Lora, flux: Flux) -> None:
        """Go on from what an adapter does to the network.

        Raises:
            BadWeights: it changes what these adapters do not, or is of another network.
        """
        check_fit(lora, {TRANSFORMER: shapes_of(flux)}, flux.shape.hidden)
        found = layers(flux)
        changes = {name: torch.zeros_like(layer.weight) for name, layer in found.items()}
        for delta in lora.deltas:
            target = delta.target
            if target.module not in found or target.leaf != "weight" or delta.magnitude is not None:
                raise BadWeights(
                    f"{lora.path} changes {target.name} ({delta.kind}), which is not learnt here",
                    hint="go on from an adapter that `fluxone train` made with a recipe like this one",
                )
            change = changes[target.module]
            change[target.rows(len(change), flux.shape.hidden)] += delta.factor.matrix(change.dtype)
        for name, change in changes.items():
            cast("Pair | Whole", self.pairs[_key(name)]).take(change)

    def lora(self, metadata: Mapping[str, str]) -> Lora:
        """The adapters as they are now."""
        deltas = [
            Delta(target=Target(part=TRANSFORMER, module=key.replace("/", ".")), factor=pair.factor())
            for key, pair in self.pairs.items()
            if isinstance(pair, (Pair, Whole))
        ]
        return Lora(deltas=tuple(deltas), metadata=dict(metadata))


def layers(flux: Flux) -> dict[str, nn.Linear]:
    """The layers that are adapted: `img_in`, which hears what is given, and all of the blocks but modulation."""
    return {
        name: layer
        for name, layer in flux.named_modules()
        if isinstance(layer, nn.Linear)
        and (name == "img_in" or "_blocks." in name)
        and not name.endswith(MODULATION)
    }


def write(adapters: LowRankAdapters, path: Path, metadata: Mapping[str, str], dtype: torch.dtype) -> None:
    """Save the adapters as one file, in the key style that diffusers loads."""
    save_lora(adapters.lora(metadata), path, STYLE, dtype=dtype)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's name may hold no dot
