"""The endings of adapter keys, and how the tensors of one module become deltas.

    "x.lora_down.weight" --split--> ("x", down) ... {down, up, alpha, dora} --deltas--> [Delta]

Every ending of every style is in the one table, since no two styles use an ending in two senses.

Source: kohya-ss/sd-scripts, huggingface/peft, KohakuBlueleaf/LyCORIS and comfyanonymous/ComfyUI (`lora.py`,
`weight_adapter`), for the endings; Kalajdzievski 2023 for the rank-stabilised scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fluxone.errors import BadWeights
from fluxone.lora.delta import Delta, Target
from fluxone.lora.factors import Factor, Full, Hadamard, Instead, Kronecker, LowRank
from fluxone.lora.names import NORM

# What PEFT puts between `lora_A` and `weight` where the adapter's name was not taken out.
NAMED = r"(?:\.(?P<extra>[\w-]+))?"
ENDINGS = {
    "down": rf"(?:lora_A|lora_down|lora\.down|lora_linear_layer\.down|down){NAMED}\.weight",
    "up": rf"(?:lora_B|lora_up|lora\.up|lora_linear_layer\.up|up){NAMED}\.weight",
    "up_bias": rf"(?:lora_B|lora_up){NAMED}\.bias",
    "alpha": r"alpha",
    "dora": rf"(?:dora_scale|lora_magnitude_vector{NAMED}(?:\.weight)?)",
    **{name: name for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")},
    **{name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    "diff": r"(?:diff|w_norm)",
    "diff_b": r"(?:diff_b|b_norm)",
    "set": r"set_weight",
    "reshape": r"reshape_weight",
    "value": r"(?:scale|weight)",
}
PATTERNS = {role: re.compile(rf"(?P<module>.+?)\.{ending}") for role, ending in ENDINGS.items()}

Roles = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How a file that has no alphas scales: alpha over rank, or over the root of the rank.

    Attributes:
        alpha: of all modules; None is each one's rank.
        alphas: ends of module names -> alpha.
        rank: of all modules, for those whose factors have none: PEFT's LoKr scales whole factors too; None is 1.
        ranks: ends of module names -> rank.
        rooted: whether the root of the rank divides alpha (rsLoRA).
    """

    alpha: float | None = None
    alphas: Mapping[str, float] | None = None
    rooted: bool = False
    rank: float | None = None
    ranks: Mapping[str, float] | None = None

    def of(self, module: str, rank: int, own: float | None) -> float:
        """The scale of a module whose file says `own` of its alpha."""
        alpha = _named(self.alphas, module, self.alpha) if own is None else own
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.rooted else rank)

    def whole(self, module: str) -> float:
        """The scale of a module whose factors have no rank."""
        alpha, rank = _named(self.alphas, module, self.alpha), _named(self.ranks, module, self.rank)
        return 1.0 if alpha is None or not rank else alpha / rank


def _named(patterns: Mapping[str, float] | None, module: str, otherwise: float | None) -> float | None:
    """The number of the first pattern that a module's name ends with."""
    found = (value for end, value in (patterns or {}).items() if f".{module}".endswith(f".{end.lstrip('^')}"))
    return next(found, otherwise)


def split(key: str) -> tuple[str, str] | None:
    """The module and the role of a key (`down.1` for the second of several pieces), or None."""
    for role, pattern in PATTERNS.items():
        if (match := pattern.fullmatch(key)) is not None:
            extra = match.groupdict().get("extra") or ""
            return match["module"], f"{role}.{extra}" if extra.isdigit() else role
    return None


def deltas(target: Target, module: str, roles: Roles, scaling: Scaling) -> tuple[list[Delta], list[str]]:
    """The deltas of one module's tensors, and the roles that were of no use.

    Raises:
        BadWeights: tensors that belong together do not fit together.
    """
    left = dict(roles)
    scale = _Scale(module, scaling, left.pop("alpha", None))
    left.pop("reshape", None)  # the shape of a widened weight, which the factor's own shape tells as well
    if target.leaf == NORM:
        return _norm(target, left)
    found: list[Delta] = []
    magnitude = _magnitude(left.pop("dora", None))
    for factor, place in _factors(target, left, scale):
        found.append(Delta(target=place, factor=factor, magnitude=magnitude))
    if magnitude is not None and not found:
        left["dora"] = magnitude
    if "alpha" in roles and not scale.used and not found:
        left["alpha"] = roles["alpha"]
    bias = replace(target, leaf="bias")
    if found and "up_bias" in left:
        found.append(Delta(target=bias, factor=Full(value=left.pop("up_bias"), scale=scale.last)))
    if "diff_b" in left:
        found.append(Delta(target=bias, factor=Full(value=left.pop("diff_b"))))
    if target.swap:
        found = [delta.swapped() for delta in found]
    return found, sorted(left)


class _Scale:
    """The scale of one module by rank, whether it was asked for, and what it was last."""

    def __init__(self, module: str, scaling: Scaling, alpha: Tensor | None) -> None:
        self.module, self.scaling, self.used, self.last = module, scaling, False, 1.0
        if alpha is not None and alpha.numel() != 1:
            raise BadWeights(f"{module}.alpha has shape {list(alpha.shape)}", hint="one number is needed")
        self.alpha = None if alpha is None else float(alpha.float())

    def __call__(self, rank: int) -> float:
        self.used = True
        if rank == 0:
            raise BadWeights(f"{self.module} has rank 0", hint="get the file again")
        self.last = self.scaling.of(self.module, rank, self.alpha)
        return self.last

    def whole(self) -> float:
        """Of factors that have no rank, which alphas of files do not scale."""
        return self.scaling.whole(self.module) if self.alpha is None else 1.0


def _factors(target: Target, left: Roles, scale: _Scale) -> list[tuple[Factor, Target]]:
    """Whichever of the kinds is complete; what it used is taken out of `left`."""
    if {"down", "up"} <= left.keys():
        return [(_low_rank(left.pop("down"), left.pop("up"), scale), target)]
    numbered = sorted(role for role in left if role.startswith("down."))
    if numbered and all(role.replace("down", "up") in left for role in numbered):
        pieces = [(left.pop(role), left.pop(role.replace("down", "up")), int(role.split(".")[1])) for role in numbered]
        count = 4 if target.module.endswith("linear1") else 3
        return [
            (_low_rank(down, up, scale), replace(target, piece=piece, pieces=count))
            for down, up, piece in pieces
            if piece < count
        ]
    if (kronecker := _kronecker(left, scale)) is not None:
        return [(kronecker, target)]
    if {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= left.keys():
        return [(_hadamard(left, scale), target)]
    if "diff" in left:
        return [(Full(value=left.pop("diff")), target)]
    if "set" in left:
        return [(Instead(value=left.pop("set")), target)]
    return []


def _low_rank(down: Tensor, up: Tensor, scale: _Scale) -> LowRank:
    down, up = _matrix(down, scale.module), _matrix(up, scale.module)
    if up.shape[1] != down.shape[0]:
        raise BadWeights(
            f"{scale.module}: up is {list(up.shape)}, down {list(down.shape)}", hint="the file is broken: get it again"
        )
    return LowRank(down=down, up=up, scale=scale(down.shape[0]))


def _kronecker(left: Roles, scale: _Scale) -> Kronecker | None:
    sides: dict[str, Tensor | None] = {}
    for side, word in (("lokr_w1", "one"), ("lokr_w2", "two")):
        if side in left:
            sides[word] = left[side]
        elif {f"{side}_a", f"{side}_b"} <= left.keys():
            sides[f"{word}_a"], sides[f"{word}_b"] = left[f"{side}_a"], left[f"{side}_b"]
        else:
            return None
    core = left.pop("lokr_t2", None)
    if core is not None and sides.get("two_a") is not None:
        sides["two"] = _tucker(core, sides.pop("two_b"), sides.pop("two_a"), scale.module)
    for role in [role for role in left if role.startswith("lokr_")]:
        left.pop(role)
    flat: dict[str, Any] = {word: _matrix(tensor, scale.module) for word, tensor in sides.items() if tensor is not None}
    for word in ("one", "two"):
        if f"{word}_a" in flat:
            pair = flat[f"{word}_a"], flat[f"{word}_b"]
            _check_chain(scale.module, pair[0].shape[1] == pair[1].shape[0], *pair)
    if core is not None:
        return Kronecker(scale=scale(core.shape[0]), **flat)
    factor = Kronecker(**flat)
    return replace(factor, scale=scale.whole() if factor.rank is None else scale(factor.rank))


def _hadamard(left: Roles, scale: _Scale) -> Factor:
    up1, down1, up2, down2 = (_matrix(left.pop(f"hada_w{i}_{side}"), scale.module) for i in (1, 2) for side in "ab")
    rank = down1.shape[0]
    if "hada_t1" in left and "hada_t2" in left:
        first = _tucker(left.pop("hada_t1"), down1, up1, scale.module)
        second = _tucker(left.pop("hada_t2"), down2, up2, scale.module)
        _check_chain(scale.module, first.shape == second.shape, first, second)
        return Full(value=first * second, scale=scale(rank))
    fits = up1.shape[1] == rank and up2.shape[1] == down2.shape[0]
    fits = fits and (up1.shape[0], down1.shape[1]) == (up2.shape[0], down2.shape[1])
    _check_chain(scale.module, fits, up1, down1, up2, down2)
    return Hadamard(scale=scale(rank), up1=up1, down1=down1, up2=up2, down2=down2)


def _check_chain(module: str, fits: bool, *tensors: Tensor) -> None:
    """Refuse factors whose product there is not."""
    if not fits:
        shapes = " and ".join(str(list(tensor.shape)) for tensor in tensors)
        raise BadWeights(f"{module}: factors of shapes {shapes} do not multiply", hint="get the file again")


def _tucker(core: Tensor, b: Tensor | None, a: Tensor | None, module: str) -> Tensor:
    """The matrix of a Tucker product with core (i, j, 1, 1): a (i, out), b (j, in)."""
    assert a is not None and b is not None
    core = _matrix(core, module)
    if core.shape != (a.shape[0], b.shape[0]):
        raise BadWeights(
            f"{module}: a core of {list(core.shape)} for {list(a.shape)} and {list(b.shape)}", hint="get the file again"
        )
    return torch.einsum("ij,jr,ip->pr", core.double(), b.double(), a.double())


def _norm(target: Target, left: Roles) -> tuple[list[Delta], list[str]]:
    """Of a norm's scale: its new value, or what is added to it."""
    found = []
    for role in ("value", "set"):
        if role in left:
            found.append(Delta(target=target, factor=Instead(value=left.pop(role))))
    if "diff" in left:
        found.append(Delta(target=target, factor=Full(value=left.pop("diff"))))
    return found, sorted(left)


def _magnitude(tensor: Tensor | None) -> Tensor | None:
    """DoRA's magnitude as (out, 1) or (1, in): PEFT writes (out,)."""
    if tensor is None:
        return None
    flat = tensor.flatten(1) if tensor.ndim > 2 else tensor
    return flat[:, None] if flat.ndim == 1 else flat


def _matrix(tensor: Tensor, module: str) -> Tensor:
    """A linear layer's matrix, which some write as a 1x1 convolution."""
    if tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        tensor = tensor.flatten(1)
    if tensor.ndim != 2:
        raise BadWeights(f"{module}: a factor has shape {list(tensor.shape)}", hint="a matrix is needed")
    return tensor
