"""What a LoRA format is: the tables of its own names, and those of the encoders that may come along.

A file is of the format that owns at least one of its keys. No key belongs to two formats, so a file in two styles
is told from one in a single style, and is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fluxone.errors import BadWeights
from fluxone.lora.delta import Delta, Target
from fluxone.lora.names import Table
from fluxone.lora.roles import Roles, Scaling, deltas, split
from fluxone.weights.safetensors import listing

BUNDLED = "bundle_emb."  # OneTrainer's textual inversions inside an adapter: bundle_emb.NAME.ENCODER
STRANGE = {
    "boft": "BOFT",
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "oft_R": "OFT",
    "hra_u": "HRA",
    "vera_lambda": "VeRA",
    "ia3": "IA3",
    "glora": "GLoRA",
    "b1.weight": "GLoRA",
    "lora_mid": "a convolution's LoRA",
}


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a file says.

    Attributes:
        used: key -> the parameter that it changes; a bundled embedding's key -> nothing.
        embeddings: name -> encoder -> vectors (n, width).
    """

    deltas: list[Delta] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    embeddings: dict[str, dict[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Format:
    """One style of LoRA file.

    Attributes:
        own: tables whose names no other format has.
        shared: tables of names that may come along, and that other formats have as well.
        alone: whether a file with nothing but shared names is of this format.
    """

    name: str
    title: str
    own: tuple[Table, ...]
    shared: tuple[Table, ...] = ()
    alone: bool = False

    def recognise(self, keys: Collection[str]) -> bool:
        """Whether a file with these keys is of this format."""
        modules = {parts[0] for key in keys if (parts := split(key)) is not None}
        if any(table.find(module) for module in modules for table in self.own):
            return True
        return self.alone and bool(modules) and all(_find(self.shared, module) for module in modules)

    def knows(self, keys: Collection[str]) -> bool:
        """Whether the format may stand alone with shared names, and some of the keys are such."""
        return self.alone and any((parts := split(key)) and _find(self.shared, parts[0]) for key in keys)

    def read(self, tensors: Mapping[str, Tensor], scalings: Mapping[str, Scaling]) -> Read:
        """The deltas of a file, and which keys they came from.

        Args:
            scalings: part -> how it scales where the file has no alphas.

        Raises:
            BadWeights: tensors that belong together do not fit together, or a module is there twice.
        """
        said = Read()
        groups: dict[str, dict[str, str]] = {}
        for key in tensors:
            parts = split(key)
            if key.startswith(BUNDLED):
                _bundled(said, key, tensors[key])
            elif parts is None or _find(self.own + self.shared, parts[0]) is None:
                said.unused.append(key)
            elif parts[1] in groups.setdefault(parts[0], {}):
                raise BadWeights(f"{key} and {groups[parts[0]][parts[1]]} are the same", hint="keep one adapter a file")
            else:
                groups[parts[0]][parts[1]] = key
        for module, keys in groups.items():
            target = _find(self.own + self.shared, module)
            assert target is not None
            roles: Roles = {role: tensors[key] for role, key in keys.items()}
            found, left = deltas(target, module, roles, scalings.get(target.part, Scaling()))
            said.deltas.extend(found)
            said.unused.extend(keys[role] for role in left if role in keys)
            said.used.update({key: target.name for role, key in keys.items() if role not in left})
        _refuse_twice(said.deltas)
        return said


def strange(keys: Collection[str]) -> str | None:
    """The name of a relative of LoRA that cannot be read, if the keys are of one."""
    return next((title for ending, title in STRANGE.items() if any(ending in key for key in keys)), None)


def _find(tables: Collection[Table], module: str) -> Target | None:
    return next((target for table in tables if (target := table.find(module)) is not None), None)


def _bundled(said: Read, key: str, tensor: Tensor) -> None:
    name, _, encoder = key[len(BUNDLED) :].rpartition(".")
    said.embeddings.setdefault(name, {})[encoder] = tensor
    said.used[key] = ""


def _refuse_twice(found: Collection[Delta]) -> None:
    places: dict[tuple[object, ...], Delta] = {}
    twice = []
    for delta in found:
        target = delta.target
        place = (target.part, target.name, target.piece, target.pieces)
        if place in places:
            twice.append(target.name)
        places[place] = delta
    if twice:
        raise BadWeights(f"changes these twice: {listing(twice)}", hint="keep one adapter a file")
