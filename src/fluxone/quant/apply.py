"""Which layers of a network are packed, and packed networks in files.

Packed are the linear layers inside the blocks. Embedders, modulation and the last layer stay as they are: they are
few, and what is lost in them is lost in every block (`docs/performance.md` has the measurement).

network --quantize--> the same with QuantLinear in its blocks --save--> one file, whose metadata names the scheme
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from torch import nn

from fluxone.errors import BadRequest, BadWeights, pick
from fluxone.nn.layers import Modulator
from fluxone.quant.fp8 import FP8, FP8_DYNAMIC
from fluxone.quant.fused import fuse
from fluxone.quant.int8 import DYNAMIC, INT8
from fluxone.quant.kept import ROW as KEPT_ROW
from fluxone.quant.kept import keep
from fluxone.quant.layer import QuantLinear, Scheme
from fluxone.quant.native import Gelu
from fluxone.quant.nf4 import NF4
from fluxone.quant.packed import PACKED
from fluxone.weights.keymap import TRANSFORMER
from fluxone.weights.parts import Part
from fluxone.weights.save import METADATA, save_file

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme for scheme in (FP8, FP8_DYNAMIC, INT8, DYNAMIC, NF4, KEPT_ROW, PACKED)
}
STORED = [name for name, scheme in SCHEMES.items() if scheme.empty is not None]
NOTE = "fluxone.quant"  # key of a file's metadata: part -> scheme


def quantize(network: nn.Module, name: str, dtype: torch.dtype) -> None:
    """Pack the linear layers in a network's blocks, one after the other; the rest gets a type.

    A network that is packed already stays; if the numbers of both schemes are the same, it goes on by this one.

    Args:
        dtype: of everything that is not packed, biases too.

    Raises:
        UnknownName: there is no such scheme.
        BadRequest: the network is packed already, in other numbers.
    """
    scheme = pick(SCHEMES, name, "quantization")
    former = scheme_of(network)
    if former is not None and SCHEMES[former].pack is not scheme.pack:
        raise BadRequest(f"the model is quantized as {former}", hint=f"load it as it is, or its original as {name}")
    for module in network.modules() if former not in (None, name) else ():
        if isinstance(module, QuantLinear):
            module.scheme = scheme
    if former is None:
        for owner, child, layer in list(packable(network)):
            if scheme.fits(layer.out_features, layer.in_features):
                setattr(owner, child, QuantLinear.of(layer, scheme, dtype))
    if not scheme.exact:
        hasten(network)
    settle(network, dtype)


def hasten(network: nn.Module) -> None:
    """Let activations between the layers go through the compiled pass: the same function to the last rounding."""
    for owner in list(network.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.GELU) and child.approximate == "tanh":
                setattr(owner, name, Gelu())
    fuse(network)


def settle(network: nn.Module, dtype: torch.dtype) -> None:
    """Give everything that is not packed a type."""
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_floating_point() and parameter.dtype != dtype:
                module._parameters[name] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)


def scheme_of(network: nn.Module) -> str | None:
    """The scheme that a network's layers are packed by, or None."""
    return next((module.scheme.name for module in network.modules() if isinstance(module, QuantLinear)), None)


def save(network: nn.Module, path: Path | str, *, part: str = TRANSFORMER) -> None:
    """Write a packed network under its own names, whole or not at all; `load_bundle` reads it as one of BFL's layout.

    Raises:
        BadRequest: it is not packed.
        CannotWrite: the disk is full, or the place is not writable.
    """
    scheme = scheme_of(network)
    if scheme is None:
        raise BadRequest("the model is not quantized", hint=f"quantize it first: {', '.join(STORED)}")
    if scheme not in STORED:
        raise BadRequest(f"{scheme} is for this machine alone", hint=f"a file can hold {', '.join(STORED)}")
    save_file(path, network.state_dict(), metadata={**METADATA, NOTE: json.dumps({part: scheme})})


def noted(part: Part) -> str | None:
    """The scheme that a part's files are packed by, as their metadata say, or None.

    Raises:
        BadWeights: they name none that is known.
    """
    notes = {header.metadata[NOTE] for header in part.headers if NOTE in header.metadata}
    if not notes:
        return None
    try:
        schemes = [json.loads(note) for note in notes]
        names = {name for said in schemes if isinstance(name := said.get(part.name), str)}
    except (ValueError, AttributeError, RecursionError):
        names = set()
    if len(names) != 1 or not names <= set(STORED):
        raise BadWeights(
            f"{part.place} is quantized in an unknown way: {sorted(notes)!r:.80}", hint="get a newer fluxone"
        )
    return names.pop()


def prepare(network: nn.Module, part: Part, *, kept: Collection[str] = ()) -> None:
    """Make a network without memory ready for a part's files: packed layers where the metadata say so.

    Args:
        kept: names of the parts whose numbers stay as a GGUF file packs them.
    """
    name = noted(part)
    if name is None and part.name in kept:
        keep(network, part, packable)
    if name is not None:
        for owner, child, layer in list(packable(network)):
            if SCHEMES[name].fits(layer.out_features, layer.in_features):
                setattr(owner, child, QuantLinear.of(layer, SCHEMES[name], torch.float32))
        hasten(network)


def packable(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Owner, name and layer of every linear layer in the network's outermost lists, but for modulation."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from _linear(child)
        else:
            yield from packable(child)


def _linear(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            yield module, name, child
        elif not isinstance(child, Modulator):
            yield from _linear(child)
