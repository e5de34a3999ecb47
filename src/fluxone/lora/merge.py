"""Adapters put into a model's files, and taken out of two models' difference: tensor by tensor, whole or not at all.

merge    file or folder + adapters -> the same layout, the same types, other numbers
extract  tuned - base --SVD--> an adapter of the rank that is asked for, and how much of the change it holds
"""

from __future__ import annotations

import errno
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fluxone.errors import BadRequest, BadWeights, CannotWrite
from fluxone.lora.adapters import Strength
from fluxone.lora.base import ENTRANCE, Base
from fluxone.lora.delta import Delta, Target, merged
from fluxone.lora.factors import Factor, Full, LowRank
from fluxone.lora.load import Lora, check_fit
from fluxone.weights.keymap import TRANSFORMER, Change, lengths
from fluxone.weights.locate import INDEX
from fluxone.weights.parts import FOLDERS
from fluxone.weights.safetensors import Header, Outline, write

EXACT_SVD = 1024  # sizes up to which all singular values are worked out
OVERSAMPLE, ROUNDS = 16, 6  # of the randomised method beyond (Halko et al. 2011)

Deltas = dict[tuple[str, str], list[tuple[Delta, float]]]


def _note(strength: Strength) -> float | str:
    return str(strength) if strength.blocks else strength.scale


def merge(
    model: str,
    loras: Sequence[tuple[Lora, Strength]],
    out: Path | str,
    *,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Write a model with adapters in its weights: a folder if the model is one, else a file.

    Args:
        told: called with how many files are written, of how many.

    Raises:
        BadWeights: an adapter does not fit, or the model's numbers are packed.
        CannotWrite: the place is taken, not writable, or full.
    """
    base, out = Base(model), Path(out)
    packed = {entry.path for held in base.tensors.values() for entry in held.entries.values() if entry.packing}
    if packed:
        raise BadWeights(f"{min(packed)} holds packed numbers", hint="make them plain first: fluxone models convert")
    deltas: Deltas = {}
    modules = {part: {name.rpartition(".")[0] for name in shapes} for part, shapes in base.shapes.items()}
    for lora, strength in loras:
        check_fit(lora, base.shapes, base.width)
        strength.check(modules)
        if strength.course:
            raise BadRequest(f"the strength of {lora.path} runs over the steps", hint="give it a single one")
        for delta in lora.deltas:
            place = (delta.target.part, delta.target.name)
            deltas.setdefault(place, []).append((delta, strength.at(place[0], delta.target.module)))
    note = {"fluxone.merged": json.dumps([[Path(lora.path).name, _note(strength)] for lora, strength in loras])}
    headers = {header.path: header for part in base.parts.values() for header in part.headers}
    if out.exists() and (out.is_dir() or out.resolve() == base.path.resolve()):
        raise CannotWrite(f"{out} is there already", hint="give a new name")
    with _whole(out) as part:
        if not base.path.is_dir():
            told(0, 1)
            _write(part, headers[base.path], base, deltas, note)
            told(1, 1)
            return
        changed = {header.path for name, _ in deltas for header in base.parts[name].headers}
        part.mkdir()
        own = {header.path for part in base.parts.values() for header in part.headers}
        for source in sorted(base.path.rglob("*")):
            if source.is_file() and source not in changed and not _aside(source, base.path, own):
                copy = part / source.relative_to(base.path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
        for done, path in enumerate(sorted(changed)):
            told(done, len(changed))
            target = part / path.relative_to(base.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, headers[path], base, deltas, note)
        told(len(changed), len(changed))
        _widen_config(part, _shape(base, deltas, TRANSFORMER, ENTRANCE)[1])


def _aside(file: Path, folder: Path, own: set[Path]) -> bool:
    """Whether a file lies in a model's folder without being the model's: an adapter beside it, a model of its own."""
    if file.parent == folder:
        return file.suffix == ".safetensors" and file not in own
    return (folder / file.relative_to(folder).parts[0] / INDEX).is_file()


def _write(path: Path, header: Header, base: Base, deltas: Deltas, note: dict[str, str]) -> None:
    """One file with its tensors changed where there are deltas."""
    owners = {
        piece: (part, native, index)
        for part, picks in base.picks.items()
        for native, way in picks.items()
        for index, piece in enumerate(way.names)
        if (part, native) in deltas
    }
    tensors = base.tensors
    home = next(part for part, held in tensors.items() if header in held.headers)

    def outline(name: str) -> Outline:
        entry = header.entries[name]
        if name not in owners:
            return Outline(
                name=name, dtype=entry.dtype, shape=entry.shape, content=lambda: _bytes(tensors[home].read(name))
            )
        part, native, index = owners[name]
        shape = entry.shape if native != ENTRANCE else _shape(base, deltas, part, native)

        def content() -> bytes:
            data = _bytes(_piece(base, part, native, index, deltas[part, native]))
            base.release(part, native)
            return data

        return Outline(name=name, dtype=entry.dtype, shape=shape, content=content)

    write(path, [outline(name) for name in header.entries], header.metadata | note)


def _piece(base: Base, part: str, native: str, index: int, deltas: list[tuple[Delta, float]]) -> Tensor:
    """What a file's tensor becomes: the native one merged, then cut and turned as the file has it."""
    way = base.picks[part][native]
    whole = merged(base.read(part, native), deltas, base.width)
    if way.change is Change.SWAP:
        whole = torch.cat(tuple(reversed(whole.chunk(2))))
    if len(way.names) == 1:
        return whole
    return torch.split(whole, lengths(whole.shape[0], len(way.names), base.width))[index]


def _shape(base: Base, deltas: Deltas, part: str, native: str) -> tuple[int, ...]:
    """A native tensor's shape after merging, which only a control LoRA changes."""
    shape = base.shapes[part][native]
    columns = [d.factor.shape[1] for d, at in deltas.get((part, native), []) if at and len(d.factor.shape) == 2]
    return (shape[0], max([*columns, shape[1]])) if len(shape) == 2 else shape


def _widen_config(folder: Path, channels: int) -> None:
    config = folder / FOLDERS[TRANSFORMER] / "config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    if fields.get("in_channels") != channels:
        fields["in_channels"] = channels
        config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name beside `path` that becomes it when the block ends well, and vanishes when it does not."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            part.replace(path)
        finally:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
    except OSError as error:
        hint = "make room on the disk" if error.errno == errno.ENOSPC else "check the folder and its rights"
        raise CannotWrite(f"{path} cannot be saved: {error.strerror or error}", hint=hint) from None


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """An adapter made of the difference of two models. `kept`: share of the change's square norm that it holds."""

    lora: Lora
    kept: float


def extract(
    tuned: str,
    base: str,
    *,
    rank: int,
    dtype: torch.dtype | None = None,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Extracted:
    """Make an adapter of what training changed, by the singular values of each weight's change.

    Args:
        rank: of each weight's change; biases and norms are kept whole.
        dtype: of the factors; None is the tuned model's.

    Raises:
        BadWeights: the models are of different shapes, or the same.
    """
    if rank < 1:
        raise BadRequest(f"rank is {rank}", hint="use 1 or more")
    new, old = Base(tuned), Base(base)
    both = [place for place in new.names() if place[0] in old.shapes]
    other = [name for part, name in both if old.shapes[part].get(name) != new.shapes[part][name]]
    if other:
        raise BadWeights(
            f"{tuned} and {base} are of different shapes: {len(other)}, such as {other[0]}",
            hint="give the model that the tuned one was made from",
        )
    deltas, all_square, lost = [], 0.0, 0.0
    for done, (part, name) in enumerate(both):
        told(done, len(both))
        first, second = new.read(part, name), old.read(part, name)
        change = first.float() - second.float()
        square = float(change.square().sum())
        if square:
            module, _, leaf = name.rpartition(".")
            factor = nearest(change, rank, dtype or first.dtype)
            all_square += square
            lost += float((change - factor.matrix(torch.float32)).square().sum())
            deltas.append(Delta(target=Target(part=part, module=module, leaf=leaf), factor=factor))
        new.release(part, name)
        old.release(part, name)
    told(len(both), len(both))
    if not deltas:
        raise BadWeights(f"{tuned} and {base} hold the same numbers", hint="there is nothing to extract")
    return Extracted(lora=Lora(deltas=tuple(deltas), path=str(tuned)), kept=1 - lost / all_square)


def nearest(change: Tensor, rank: int, dtype: torch.dtype) -> Factor:
    """The factors of this rank that are nearest to a matrix, by its singular values; a vector stays whole."""
    if change.ndim != 2:
        return Full(value=change.to(dtype))
    rank = min(rank, *change.shape)
    if min(change.shape) <= EXACT_SVD:
        u, s, vh = torch.linalg.svd(change, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, s, v = torch.svd_lowrank(change, q=min(rank + OVERSAMPLE, *change.shape), niter=ROUNDS)
        vh = v.T
    root = s[:rank].sqrt()
    return LowRank(down=(root[:, None] * vh[:rank]).to(dtype), up=(u[:, :rank] * root).to(dtype))
