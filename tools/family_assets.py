"""Lay what tools/train_family.py exported out as the package has it: the base, the adapters beside it, Redux below it.

    python tools/family_assets.py OUT src/fluxone/assets/mini

What is not in OUT is told; what lies in the package already stays, so that members may come from several runs.
Adapters are cut to what fits: of the singular values of all their changes those that hold most for their bytes.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fluxone.lora.load import load_lora
from fluxone.lora.save import in_style
from fluxone.variants import FAMILY
from fluxone.weights.save import save_file

BASE, REDUX = "mini", "redux"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
BUDGET = 34.9  # MB of the whole family
STORED = 2  # bytes of a bfloat16
HEADERS = 25_000  # bytes of the names in a file of an adapter, about


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an adapter does to one layer, by its singular values.

    Attributes:
        cost: bytes of one of them.
    """

    u: Tensor
    s: Tensor
    v: Tensor
    cost: int

    @classmethod
    def of(cls, down: Tensor, up: Tensor) -> Change:
        """Of the two factors."""
        q, r = torch.linalg.qr(up.double())
        p, t = torch.linalg.qr(down.double().T)
        u, s, v = torch.linalg.svd(r @ t.T)
        return cls(u=q @ u, s=s, v=v @ p.T, cost=STORED * (down.shape[1] + up.shape[0]))

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """Its two factors of this rank."""
        root = self.s[:rank].sqrt()
        return (root[:, None] * self.v[:rank]).float().contiguous(), (self.u[:, :rank] * root).float().contiguous()


def laid(source: Path, out: Path) -> None:
    """A model's folders and files, each in place of the old one."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        target = out / path.name
        if path.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(path, target)
        else:
            shutil.copyfile(path, target)


def adapters(found: Mapping[str, Path], assets: Path, budget: float) -> None:
    """The adapters in diffusers' keys, cut to what their files may weigh together; tells how much of each is kept."""
    loras = {name: load_lora(path) for name, path in found.items()}
    changes: dict[str, dict[str, Change]] = {}
    for name, lora in loras.items():
        tensors = in_style(lora, "diffusers")
        layers = [key.removesuffix(DOWN) for key in tensors if key.endswith(DOWN)]
        assert len(tensors) == 2 * len(layers), f"{name} holds more than low-rank factors"
        changes[name] = {layer: Change.of(tensors[layer + DOWN], tensors[layer + UP]) for layer in layers}
    ranks = chosen(changes, budget - HEADERS * len(found))
    for name, layers in changes.items():
        tensors = {}
        for layer, change in layers.items():
            tensors[layer + DOWN], tensors[layer + UP] = change.cut(ranks[name, layer])
        whole = sum(float((change.s**2).sum()) for change in layers.values())
        kept = sum(float((change.s[: ranks[name, layer]] ** 2).sum()) for layer, change in layers.items())
        mean = sum(ranks[name, layer] for layer in layers) / len(layers)
        print(f"{name}: rank {mean:.1f} on average, {100 * kept / whole:.2f} % of the change's square norm")
        save_file(assets / name, tensors, dtype=torch.bfloat16, metadata={**loras[name].metadata, "format": "pt"})


def chosen(changes: Mapping[str, Mapping[str, Change]], budget: float) -> dict[tuple[str, str], int]:
    """The rank of every layer, one at the least, by which all adapters keep most of their changes' shares."""
    ranks = {(name, layer): 1 for name, layers in changes.items() for layer in layers}
    spent = sum(change.cost for layers in changes.values() for change in layers.values())
    gains = []
    for name, layers in changes.items():
        whole = sum(float((change.s**2).sum()) for change in layers.values())
        gains += [
            (float(value) ** 2 / whole / change.cost, rank, name, layer)
            for layer, change in layers.items()
            for rank, value in enumerate(change.s[1:].tolist(), 2)
        ]
    for _, _, name, layer in sorted(gains, key=lambda gain: (-gain[0], gain[1])):
        cost = changes[name][layer].cost
        if spent + cost <= budget:
            ranks[name, layer] += 1
            spent += cost
    return ranks


def weight(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Lay out what is there, and tell sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("made", type=Path, metavar="OUT", help="What tools/train_family.py exported.")
    parser.add_argument("assets", type=Path)
    parser.add_argument("--budget", type=float, default=BUDGET, help="MB of the whole family.")
    options = parser.parse_args()
    made, assets = options.made, options.assets
    for source, out in ((made / BASE, assets), (made / REDUX, assets / REDUX)):
        if source.exists():
            laid(source, out)
        else:
            print(f"{source} is not there")
    files = sorted({row.file for row in FAMILY if row.lora})
    found = {name: made / name for name in files if (made / name).exists()}
    for name in found:
        (assets / name).unlink(missing_ok=True)
    adapters(found, assets, options.budget * 1e6 - weight(assets))
    for path in sorted(assets.rglob("*.safetensors")):
        print(f"{path.stat().st_size / 1e6:7.2f} MB  {path.relative_to(assets)}")
    print(f"{weight(assets) / 1e6:7.2f} MB in all")
    for name in files:
        if not (assets / name).exists():
            print(f"{made / name} is not there")


if __name__ == "__main__":
    main()
