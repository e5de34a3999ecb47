"""Weights that stay as a GGUF file packs them: its bytes in memory, unpacked for each product, layer by layer.

    file's bytes (O, bytes a row) --map--> the layer's buffer --unpack--> weight (O I) in the dtype --> product, forget

The weight is the one that is loaded without this, to the last bit, and the blocks do what they always do; so pictures
are the same. Kept are the types that `packed.blocks` knows; what a file holds otherwise is loaded as ever.

    keep     makes a network without memory ready for a part's bytes
    held     how many bytes that is, for plans
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fluxone.errors import BadRequest
from fluxone.quant.layer import Packed, QuantLinear, Scheme
from fluxone.recipe import KEPT
from fluxone.weights.keymap import Change, plan
from fluxone.weights.packed.blocks import NUMBERS, numbers_of
from fluxone.weights.packed.ggml import TYPES
from fluxone.weights.parts import Part
from fluxone.weights.safetensors import Entry, merge

CHUNK = 1 << 20  # numbers unpacked together
Found = Iterator[tuple[nn.Module, str, nn.Linear]]
Packable = Callable[[nn.Module], Found]


def unpack(name: str, packed: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The weight in numbers."""
    raw, kind = packed["weight"], TYPES[name]
    columns = raw.shape[1] // kind.bytes * kind.block
    out = torch.empty(raw.shape[0], columns, dtype=dtype, device=raw.device)
    each = max(1, CHUNK // columns)
    for to, part in zip(out.split(each), raw.split(each), strict=True):
        to.copy_(numbers_of(name, part.reshape(-1, kind.bytes)).view(to.shape))
    return out


def multiply(name: str, x: Tensor, packed: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    """Unpack, multiply, forget."""
    out: Tensor = F.linear(x, unpack(name, packed, x.dtype), bias)
    return out


def empty(name: str, rows: int, columns: int) -> Packed:
    """What a file holds of a weight, without memory."""
    kind = TYPES[name]
    return {"weight": torch.empty(rows, columns // kind.block * kind.bytes, dtype=torch.uint8, device="meta")}


def _pack(weight: Tensor) -> Packed:
    raise BadRequest("the file's numbers are not packed as in GGUF", hint="leave quant kept out, or take a GGUF file")


@cache
def scheme(name: str) -> Scheme:
    """The scheme of one of GGML's types; to recipes all are one."""
    return Scheme(
        name=KEPT, bits=8 * TYPES[name].bytes / TYPES[name].block, pack=_pack, unpack=partial(unpack, name),
        multiply=partial(multiply, name), empty=partial(empty, name), unpacks=True, exact=True,
    )  # fmt: skip


ROW = Scheme(
    name=KEPT, bits=5, pack=_pack, unpack=partial(unpack, "Q4_K"), multiply=partial(multiply, "Q4_K"), unpacks=True,
    exact=True,
)  # fmt: skip


def keep(network: nn.Module, part: Part, packable: Packable) -> None:
    """Put layers in a network without memory that hold a part's bytes as they lie."""
    found = list(_entries(network, part, packable))
    for owner, child, layer, entry in found:
        if entry is not None:
            kept = QuantLinear.of(layer, scheme(entry.dtype), torch.float32)
            kept.raw = {"weight": (layer.out_features, layer.in_features)}
            setattr(owner, child, kept)


def held(network: nn.Module, part: Part, packable: Packable) -> tuple[int, int] | None:
    """Bytes of the layers that would stay packed, and numbers of those that would not; None if none would."""
    found = [(layer.weight.numel(), entry) for _, _, layer, entry in _entries(network, part, packable)]
    if not any(entry for _, entry in found):
        return None
    return (
        sum(entry.stop - entry.start for _, entry in found if entry is not None),
        sum(count for count, entry in found if entry is None),
    )


def _entries(
    network: nn.Module, part: Part, packable: Packable
) -> Iterator[tuple[nn.Module, str, nn.Linear, Entry | None]]:
    """Every layer that can be packed, with the tensor of the file that can stay as it is for it."""
    entries, picks = merge(part.headers), plan(part.names, part.form).picks
    names = {id(module): name for name, module in network.named_modules()}
    for owner, child, layer in packable(network):
        pick = picks.get(f"{names[id(layer)]}.weight")
        one = pick is not None and len(pick.names) == 1 and pick.change is Change.SAME
        entry = entries[pick.names[0]] if one and pick is not None else None
        fits = entry is not None and entry.packing == "ggml" and entry.dtype in NUMBERS
        if fits and entry is not None:
            fits = entry.shape == tuple(layer.weight.shape) and layer.in_features % TYPES[entry.dtype].block == 0
        yield owner, child, layer, entry if fits else None
