"""Adapters written in other styles, so that the picture stays: pieces joined, fused ones cut, scales kept as alphas.

    deltas by module --joined or cut as the style names them--> factors --roles, endings--> tensors by key

What a style cannot hold exactly as it is becomes the change itself (`diff`); where even that would not be the same
(DoRA's magnitude over the columns of a fused weight), it is refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fluxone.errors import BadWeights, pick
from fluxone.lora.delta import Delta, Target
from fluxone.lora.factors import Factor, Full, Hadamard, Instead, Kronecker, LowRank
from fluxone.lora.formats import bfl, diffusers, kohya
from fluxone.lora.formats.format import BUNDLED
from fluxone.lora.load import PEFT_METADATA, Lora, load_lora
from fluxone.lora.names import NORM, Table
from fluxone.weights.save import save_file

KRONECKER = {
    "one": "lokr_w1",
    "one_a": "lokr_w1_a",
    "one_b": "lokr_w1_b",
    "two": "lokr_w2",
    "two_a": "lokr_w2_a",
    "two_b": "lokr_w2_b",
}
HADAMARD = {"up1": "hada_w1_a", "down1": "hada_w1_b", "up2": "hada_w2_a", "down2": "hada_w2_b"}
ROUNDINGS = 8  # of the coarsest type on the way that a conversion may differ by
MLP_RATIO = 4  # of every FLUX.1; used where nothing in the adapter tells the height of the MLP


@dataclass(frozen=True, kw_only=True)
class Style:
    """How keys are written.

    Attributes:
        tables: of names, tried in order.
        down, up: endings of the two low-rank factors.
        alphas: whether alpha is always written; else only where it is not the rank.
        norm_value, norm_diff: endings of a norm's new scale, and of the change of it.
    """

    tables: tuple[Table, ...]
    down: str
    up: str
    alphas: bool = False
    norm_value: str = "set_weight"
    norm_diff: str = "diff"

    def name(self, target: Target) -> str | None:
        """Of the target's module or piece."""
        return next((name for table in self.tables if (name := table.write(target)) is not None), None)

    def pieces(self, target: Target) -> int:
        """How many pieces the style names the target's module in."""
        return max(table.pieces(target.module) for table in self.tables)


STYLES: dict[str, Style] = {
    "diffusers": Style(
        tables=(diffusers.FORMAT.own[0], *diffusers.ENCODERS),
        down="lora_A.weight",
        up="lora_B.weight",
        norm_value="weight",
    ),
    "kohya": Style(
        tables=(*kohya.KOHYA.own, kohya.ENCODERS[0], kohya.ENCODERS[2]),
        down="lora_down.weight",
        up="lora_up.weight",
        alphas=True,
    ),
    "comfy": Style(
        tables=(bfl.COMFY.own[0], *bfl.COMFY_ENCODERS[:2]),
        down="lora_A.weight",
        up="lora_B.weight",
        norm_value="scale.set_weight",
        norm_diff="scale.diff",
    ),
}


def save_lora(lora: Lora, path: Path | str, style: str, *, dtype: torch.dtype | None = None) -> None:
    """Write an adapter in a style of `STYLES`, whole or not at all.

    Args:
        dtype: of the tensors; None keeps each as it is.

    Raises:
        BadWeights: the style cannot say the same.
        CannotWrite: the disk is full, or the place is not writable.
    """
    tensors = in_style(lora, style)
    metadata = {key: value for key, value in lora.metadata.items() if key != PEFT_METADATA}
    metadata.setdefault("format", "pt")
    if dtype is None:
        # What had to be computed in float64 is not kept so.
        tensors = {name: t.float() if t.dtype == torch.float64 else t for name, t in tensors.items()}
    save_file(path, tensors, dtype=dtype, metadata=metadata)


def in_style(lora: Lora, style: str) -> dict[str, Tensor]:
    """The adapter's tensors under a style's keys.

    Raises:
        BadWeights: the style cannot say the same.
    """
    row = pick(STYLES, style, "LoRA style")
    groups: dict[tuple[str, str, str], list[Delta]] = {}
    for delta in lora.deltas:
        groups.setdefault((delta.target.part, delta.target.module, delta.target.leaf), []).append(delta)
    heights = _Heights(lora.deltas)
    out: dict[str, Tensor] = {}
    for group in groups.values():
        for delta in _laid(group, row, heights):
            name = row.name(delta.target)
            if name is None:
                raise BadWeights(f"{style} has no name for {delta.target.name}", hint="use another style")
            swapped = row.tables[0].find(name)
            out |= _written(delta.swapped() if swapped is not None and swapped.swap else delta, name, row)
    for name, encoders in lora.embeddings.items():
        out |= {f"{BUNDLED}{name}.{encoder}": tensor for encoder, tensor in encoders.items()}
    return {name: tensor.contiguous() for name, tensor in out.items()}


class _Heights:
    """How wide the network and how high its MLP is, as far as an adapter tells."""

    def __init__(self, deltas: Iterable[Delta]) -> None:
        self.mlp: int | None = None
        for delta in deltas:
            target, shape = delta.target, delta.factor.shape
            if target.pieces == 4 and target.piece == 3:
                self.mlp = shape[0]
            elif target.module.endswith("linear2") and len(shape) == 2:
                self.mlp = shape[1] - shape[0]

    def total(self, target: Target, width: int) -> int:
        """Rows of a whole fused tensor."""
        return 3 * width if target.pieces == 3 else 3 * width + (self.mlp or MLP_RATIO * width)


def _laid(group: Sequence[Delta], style: Style, heights: _Heights) -> list[Delta]:
    """A module's deltas in the pieces that the style has names for."""
    target = group[0].target
    wanted = style.pieces(target)
    if all(delta.target.pieces == wanted and delta.target.span == 1 for delta in group):
        return list(group)
    if wanted == 1:
        return [_joined(group, heights)]
    return [piece for delta in group for piece in _cut(delta, wanted, heights)]


def _joined(group: Sequence[Delta], heights: _Heights) -> Delta:
    """The pieces of a fused tensor as one delta of the whole."""
    target = group[0].target
    width = _width(group[0])
    total = heights.total(target, width)
    whole = replace(target, piece=0, pieces=1, span=1)
    factors = [(delta.factor, delta.target.rows(total, width)) for delta in group]
    magnitude = _joined_magnitude(group, total, width)
    if all(isinstance(factor, LowRank) for factor, _ in factors):
        return Delta(target=whole, factor=_stacked(factors, total), magnitude=magnitude)
    if any(isinstance(factor, Instead) for factor, _ in factors):
        raise BadWeights(f"{target.name}: pieces of new weights cannot be joined", hint="use the diffusers style")
    value = torch.zeros((total, *factors[0][0].shape[1:]))
    for factor, rows in factors:
        value[rows] = factor.matrix(torch.float32)
    return Delta(target=whole, factor=Full(value=value), magnitude=magnitude)


def _stacked(factors: Sequence[tuple[Factor, slice]], total: int) -> LowRank:
    """Low-rank pieces as one low-rank factor: one `down` where they share it, else one under the other."""
    pieces = [(factor, rows) for factor, rows in factors if isinstance(factor, LowRank)]
    first = pieces[0][0]
    shared = all(factor.down.shape == first.down.shape and torch.equal(factor.down, first.down) for factor, _ in pieces)
    even = all(factor.scale == first.scale for factor, _ in pieces)
    rank = first.down.shape[0] if shared else sum(factor.down.shape[0] for factor, _ in pieces)
    up = torch.zeros((total, rank), dtype=first.up.dtype)
    at = 0
    for factor, rows in pieces:
        here = slice(0, rank) if shared else slice(at, at + factor.down.shape[0])
        up[rows, here] = factor.up if even else (factor.scale * factor.up.double()).to(first.up.dtype)
        at += factor.down.shape[0]
    down = first.down if shared else torch.cat([factor.down for factor, _ in pieces])
    return LowRank(down=down, up=up, scale=first.scale if even else 1.0)


def _joined_magnitude(group: Sequence[Delta], total: int, width: int) -> Tensor | None:
    magnitudes = [delta.magnitude for delta in group]
    if all(magnitude is None for magnitude in magnitudes):
        return None
    rows = sum(delta.target.rows(total, width).stop - delta.target.rows(total, width).start for delta in group)
    by_row = [magnitude for magnitude in magnitudes if magnitude is not None and magnitude.shape[1] == 1]
    if len(by_row) < len(group) or rows < total:
        raise BadWeights(
            f"{group[0].target.name}: DoRA's magnitudes of its pieces are not one of the whole",
            hint="use the diffusers style, or merge it into a model",
        )
    order = sorted(range(len(group)), key=lambda i: group[i].target.piece)
    return torch.cat([by_row[i] for i in order])


def _cut(delta: Delta, count: int, heights: _Heights) -> list[Delta]:
    """A delta of several pieces as one of each."""
    target, shape = delta.target, delta.factor.shape
    if delta.magnitude is not None and delta.magnitude.shape[1] != 1:
        raise BadWeights(
            f"{target.name}: DoRA's magnitude of a fused weight's columns cannot be cut",
            hint="use the comfy or kohya style, or merge it into a model",
        )
    pieces = range(count) if target.pieces == 1 else range(target.piece, target.piece + target.span)
    width = shape[0] // 3 if count == 3 or target.pieces > 1 else _width(delta)
    out = []
    for number, piece in enumerate(pieces):
        stop = shape[0] if piece == pieces[-1] else (number + 1) * width
        rows = slice(number * width, stop)
        magnitude = None if delta.magnitude is None else delta.magnitude[rows]
        place = replace(target, piece=piece, pieces=count, span=1)
        factor = _rows(delta.factor, rows)
        if isinstance(factor, LowRank) and magnitude is None and factor.down.shape[0] == 0:
            continue  # nothing of the change is in this piece
        out.append(Delta(target=place, factor=factor, magnitude=magnitude))
    return out


def _rows(factor: Factor, rows: slice) -> Factor:
    """Some rows of a change."""
    if isinstance(factor, LowRank):
        up = factor.up[rows]
        used = (up != 0).any(dim=0)  # of a block-diagonal `up` (kohya's split_qkv), each piece needs its own columns
        return replace(factor, up=up[:, used], down=factor.down[used])
    if isinstance(factor, Hadamard):
        return replace(factor, up1=factor.up1[rows], up2=factor.up2[rows])
    if isinstance(factor, Instead):
        return Instead(value=factor.value[rows])
    return Full(value=factor.matrix(torch.float32)[rows])


def _width(delta: Delta) -> int:
    """Of the network, from a delta of a fused layer: its columns, or a piece's rows."""
    shape = delta.factor.shape
    if len(shape) == 2:
        return shape[1]
    target = delta.target
    if target.pieces == 3 or (target.pieces == 4 and target.piece < 3):
        return shape[0] // target.span
    if target.pieces == 1 and not target.module.endswith("linear1"):
        return shape[0] // 3
    return shape[0] // (MLP_RATIO if target.pieces == 4 else 3 + MLP_RATIO)


def _written(delta: Delta, name: str, style: Style) -> dict[str, Tensor]:
    """A delta's tensors by key."""
    factor, leaf = delta.factor, delta.target.leaf
    out: dict[str, Tensor] = {}
    if leaf == "bias":
        return {f"{name}.diff_b": factor.matrix(torch.float32)}
    if leaf == NORM:
        new = isinstance(factor, Instead)
        value = factor.matrix(torch.float32)
        return {f"{name}.{style.norm_value if new else style.norm_diff}": value}
    if isinstance(factor, LowRank):
        rank = factor.down.shape[0]
        out = {f"{name}.{style.down}": factor.down, f"{name}.{style.up}": factor.up}
        if style.alphas or factor.scale != 1:
            out[f"{name}.alpha"] = torch.tensor(factor.scale * rank, dtype=torch.float32)
    elif isinstance(factor, Kronecker):
        out = {f"{name}.{KRONECKER[item]}": tensor for item, tensor in factor.tensors().items()}
        if factor.rank is not None:
            out[f"{name}.alpha"] = torch.tensor(factor.scale * factor.rank, dtype=torch.float32)
        elif factor.scale != 1:
            out[f"{name}.lokr_w1"] = factor.scale * out[f"{name}.lokr_w1"]
    elif isinstance(factor, Hadamard):
        out = {f"{name}.{HADAMARD[item]}": tensor for item, tensor in factor.tensors().items()}
        out[f"{name}.alpha"] = torch.tensor(factor.scale * factor.down1.shape[0], dtype=torch.float32)
    elif isinstance(factor, Instead):
        out = {f"{name}.set_weight": factor.value}
    elif isinstance(factor, Full):
        out = {f"{name}.diff": factor.value if factor.scale == 1 else factor.matrix(torch.float32)}
    if delta.magnitude is not None:
        out[f"{name}.dora_scale"] = delta.magnitude
    return out


def convert_lora(lora: Lora, path: Path | str, style: str, *, dtype: torch.dtype | None = None) -> float:
    """Write an adapter in a style, read it back, and compare the change of every parameter.

    Returns:
        The largest difference, relative to the parameter's largest change.

    Raises:
        BadWeights: the style cannot say the same, or what was written differs by more than its type's rounding.
        CannotWrite: see `save_lora`.
    """
    path = Path(path)
    part = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.part.safetensors")
    try:
        save_lora(lora, part, style, dtype=dtype)
        apart = difference(lora, load_lora(part))
        kinds = {tensor.dtype for delta in lora.deltas for tensor in delta.factor.tensors().values()}
        rough = max(torch.finfo(kind).eps for kind in {dtype or torch.float32, *kinds} if kind.is_floating_point)
        if not apart <= ROUNDINGS * rough:
            raise BadWeights(f"{style} says something else: {apart:.1e} apart", hint="use another style or float32")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return apart


def difference(first: Lora, second: Lora) -> float:
    """The largest difference between two adapters' changes of any parameter, relative to the parameter's largest."""
    heights = _Heights((*first.deltas, *second.deltas))
    places: dict[tuple[str, str], tuple[list[Delta], list[Delta]]] = {}
    for index, lora in enumerate((first, second)):
        for delta in lora.deltas:
            places.setdefault((delta.target.part, delta.target.name), ([], []))[index].append(delta)
    worst = 0.0
    for pair in places.values():
        ours, theirs = (_change(group, pair[0] + pair[1], heights) for group in pair)
        top = max(ours.abs().max().item(), theirs.abs().max().item())
        worst = max(worst, (ours - theirs).abs().max().item() / top if top else 0.0)
    return worst


def _change(group: Sequence[Delta], both: Sequence[Delta], heights: _Heights) -> Tensor:
    """What one adapter changes in a parameter, columns for magnitudes beside it."""
    whole = next((delta for delta in both if delta.target.pieces == 1), None)
    width = _width(both[0])
    total = whole.factor.shape[0] if whole is not None else heights.total(both[0].target, width)
    columns = both[0].factor.shape[1:]
    out = torch.zeros((total, *columns))
    told = torch.zeros((total, 1)) if columns else torch.zeros(total)
    for delta in group:
        rows = delta.target.rows(total, width)
        out[rows] += delta.factor.matrix(torch.float32)
        if delta.magnitude is not None and delta.magnitude.shape[1] == 1:
            told[rows] = delta.magnitude.float()
    return torch.cat((out.flatten(), told.flatten()))
