"""From a part's files to a network: built without memory, filled strictly, tensor by tensor, from the memory map.

While a module is filled, memory holds what is filled so far and the one tensor in hand. A tensor that needs no
change is not even copied: its parameter shares the map's pages (see `mapped`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fluxone.errors import BadWeights
from fluxone.weights.keymap import Change, Pick, native_shapes, packing, plan
from fluxone.weights.mapped import Mapped
from fluxone.weights.parts import Part
from fluxone.weights.safetensors import listing

M = TypeVar("M", bound=nn.Module)

PACKED_BECOMES = torch.bfloat16  # where no type is asked for
CHUNK = 1 << 22  # numbers looked at together by `first_nonfinite`


class Unfilled(TorchFunctionMode):
    """Layers are built without the random numbers that they start with: they have no memory to hold them, and to draw
    them on the meta device torch would import its compiler first, for a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Leave the tensor that is to be filled as it is; call all else."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def load_module(
    build: Callable[[], M],
    part: Part,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    mmap: bool = True,
) -> M:
    """Build a network and fill it from a part's files; every name and every shape must fit.

    Args:
        dtype: what floating-point tensors become; None keeps each as it is stored, fp8 too, and makes packed numbers
            bfloat16. Buffers, which hold quantized weights, have the type that they are built with.
        mmap: let parameters that need no change share the file's pages; False copies them all.

    Raises:
        BadWeights: names are unknown or missing, or shapes or packed types differ.
    """
    with torch.device("meta"), Unfilled():
        module = build()
    raw = {
        f"{place}.{name}": shape for place, child in module.named_modules() for name, shape in _raw(child).items()
    }
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} | raw
    tensors = Mapped(part.headers)
    picks = fitting(part, wanted, tensors)
    packed = {name: buffer.dtype for name, buffer in module.named_buffers() if name in wanted.keys() - raw.keys()}
    for name, needed in packed.items():
        if tensors.dtype(picks[name].names[0]) != needed:
            raise BadWeights(f"{part.place} does not hold {name} as {needed}", hint="it is not what its metadata say")
    state: dict[str, Tensor] = {}
    for name in sorted(wanted, key=lambda name: tensors.place(picks[name].names[0])):
        if name in raw:
            bytes_ = tensors.stored(tensors.entries[picks[name].names[0]]).view(raw[name][0], -1)
            state[name] = (bytes_ if mmap else bytes_.clone()).to(device)
            continue
        own = None if name in packed else dtype
        state[name] = _gather(tensors, picks[name], wanted[name], dtype=own, device=device, mmap=mmap)
    module.requires_grad_(False)
    module.load_state_dict(state, strict=True, assign=True)
    empty = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    assert not empty, f"{type(module).__name__} builds the buffers {empty} at construction, where there is no memory"
    return module.requires_grad_(False).eval()


def _raw(module: nn.Module) -> Mapping[str, tuple[int, ...]]:
    """The buffers of a layer that take a file's bytes as they lie, and the shapes that these stand for."""
    found: Mapping[str, tuple[int, ...]] = getattr(module, "raw", {})
    return found


def refuse_packed(part: Part) -> None:
    """Refuse a file whose numbers are packed in a way that cannot be unpacked.

    Raises:
        BadWeights: it is such a file.
    """
    if packed := packing(part.names):
        kind, name = packed
        raise BadWeights(f"{part.place} is {kind} ({name})", hint="use the bf16, fp8, GGUF or nf4 file of this model")


def first_nonfinite(module: nn.Module) -> str | None:
    """The name of the first parameter, or part of a packed one, that holds NaN or infinity, or None."""
    for name, parameter in (*module.named_parameters(), *module.named_buffers()):
        if not parameter.is_floating_point():
            continue
        for chunk in torch.split(parameter.detach().flatten(), CHUNK):
            if not torch.isfinite(chunk.float()).all():
                return name
    return None


def fitting(part: Part, wanted: Mapping[str, tuple[int, ...]], tensors: Mapped) -> dict[str, Pick]:
    """The plan for a part, after everything that could be wrong with it has been said in one error.

    Args:
        wanted: the network's names and shapes.

    Raises:
        BadWeights: names are unknown or missing, or shapes differ.
    """
    refuse_packed(part)
    leads = plan(part.names, part.form)
    shapes = native_shapes({name: leads.picks[name] for name in leads.picks.keys() & wanted.keys()}, tensors.shape)
    strangers = [found for name, way in leads.picks.items() if name not in wanted for found in way.names]
    complete = leads.picks.keys() if not leads.incomplete else ()
    missing = [*leads.incomplete, *(name for name in wanted if name not in leads.picks)]
    wrong = [
        f"{name} is {list(shapes[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in shapes and name in complete and shapes[name] != shape
    ]
    faults = {"unknown": sorted([*leads.unknown, *strangers]), "missing": missing, "of another shape": wrong}
    if any(faults.values()):
        told = "; ".join(f"{len(names)} {fault}: {listing(names)}" for fault, names in faults.items() if names)
        raise BadWeights(
            f"{part.place} does not fit the {part.name}: {told}", hint="check that file and config belong together"
        )
    return leads.picks


def _gather(
    tensors: Mapped, way: Pick, shape: tuple[int, ...], *, dtype: torch.dtype | None, device: str, mmap: bool
) -> Tensor:
    """One native tensor: the file's own pages if they can be used as they are, else a filled copy."""
    stored = tensors.dtype(way.names[0])
    if dtype is None and any(tensors.entries[name].packing for name in way.names):
        dtype = PACKED_BECOMES
    kind = dtype if dtype is not None and stored.is_floating_point else stored
    if mmap and device == "cpu" and kind == stored and len(way.names) == 1 and way.change is not Change.SWAP:
        return tensors.read(way.names[0]).view(shape)
    out = torch.empty(shape, dtype=kind, device=device)
    ends = [0]
    for name in way.names:
        ends.append(ends[-1] + tensors.shape(name)[0])
    half = shape[0] // 2 if way.change is Change.SWAP else 0
    for name, start, stop in zip(way.names, ends, ends[1:], strict=False):
        piece = tensors.read(name, kind)
        if half:
            out[:half].copy_(piece[half:])
            out[half:].copy_(piece[:half])
        else:
            out[start:stop].copy_(piece.view(stop - start, *shape[1:]))
        del piece
        tensors.release(name)
    return out
