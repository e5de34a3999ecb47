"""Blocks whose work between the products is done in few passes: the same function as `nn.layers`.

    normalise, modulate | product | norm, rotate, by heads | attention | activate, beside it | product | gate, add

On a CPU with a compiler the passes are `fused.c`, on a CUDA device Triton kernels. Where they cannot work (adapters
beside a layer, something hooked inside a block, another device, torch's compiler at work, gradients) a block does what
it always did.

Attention of packed int8 blocks is in bfloat16 where the processor multiplies it: what int8 loses is more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fluxone.nn.attention import Attend
from fluxone.nn.layers import DoubleBlock, QKNorm, SingleBlock
from fluxone.nn.rope import Rotation
from fluxone.quant import cuda, fp8, native
from fluxone.quant.layer import QuantLinear
from fluxone.quant.passes import CpuPasses, Mixed, Product, Ready, family

Pair = tuple[Tensor, Tensor]


class Passes(Protocol):
    """What a device does between products, for rows of one sample."""

    def norm(self, x: Tensor, shift: Tensor, scale: Tensor) -> Ready:
        """Normalised and modulated rows, ready for a product."""

    def times(self, layer: nn.Module, x: Ready) -> Product:
        """Rows times the weight of a layer."""

    def room(self, total: int, heads: int, size: int) -> list[Tensor]:
        """Queries, keys and values, still empty."""

    def heads(self, made: Product, norm: QKNorm, pe: Tensor, out: Sequence[Tensor], place: int) -> None:
        """Put the queries, keys and values of some rows to their place among all."""

    def attend(self, out: Sequence[Tensor], backend: Attend) -> Mixed:
        """Attention; its result is for `inner`."""

    def inner(self, mixed: Mixed | None, made: Product | None, rows: int, place: int, inner: int) -> Ready:
        """What attention gave and what is activated, side by side; either may be missing."""

    def gate(self, made: Product, gate: Tensor, x: Tensor) -> Tensor:
        """x + gate * product."""


def passes_for(block: nn.Module, x: Tensor, pe: Rotation) -> Passes | None:
    """The passes that a block's work can go through, or None."""
    if torch.compiler.is_compiling() or (x.requires_grad and torch.is_grad_enabled()):
        return None
    if (pe.turns.ndim > 3 and pe.turns.shape[0] > 1) or not (native.helps(x) or cuda.helps(x)):
        return None
    kinds: set[torch.dtype | None] = set()
    inside: list[nn.Module] | None = block.__dict__.get("_inside")
    if inside is None:
        inside = block.__dict__["_inside"] = [module for module in block.modules() if module is not block]
    for module in inside:
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        if isinstance(module, QuantLinear):
            if type(module) is not QuantLinear:
                return None
            kinds.add(module.scheme.takes)
        elif isinstance(module, nn.Linear) and type(module) is not nn.Linear:
            return None
    takes = kinds.pop() if len(kinds) == 1 else None
    if len(kinds) > 1:
        return None
    if x.is_cuda:
        if takes == torch.int8:
            return None
        whole = takes is not None and fp8.units(x.device)
        return cuda.CudaPasses(x.dtype, x.device, whole=whole)
    return CpuPasses(family(takes, x.dtype)) if takes in (None, torch.int8) else None


class FusedSingle(SingleBlock):
    """A single block in fewer passes."""

    def forward(self, x: Tensor, modulation: Tensor, pe: Rotation, attend: Attend) -> Tensor:
        passes = passes_for(self, x, pe)
        if passes is None:
            return super().forward(x, modulation, pe, attend)
        turns, samples = _turns(pe), _samples(x.contiguous(), modulation)
        return _stacked([self._one(passes, one, rows, turns, attend) for one, rows in samples])

    def _one(self, passes: Passes, x: Tensor, modulation: Tensor, turns: Tensor, attend: Attend) -> Tensor:
        shift, scale, gate = _rows(modulation)
        made = passes.times(self.linear1, passes.norm(x, shift, scale))
        out = passes.room(x.shape[0], self.heads, x.shape[1] // self.heads)
        passes.heads(made, self.norm, turns, out, 0)
        mixed = passes.attend(out, attend)
        wide = passes.inner(mixed, made, x.shape[0], 0, self.sizes[1])
        return passes.gate(passes.times(self.linear2, wide), gate, x)


class FusedDouble(DoubleBlock):
    """A double block in fewer passes."""

    def forward(self, img: Tensor, txt: Tensor, modulation: Pair, pe: Rotation, attend: Attend) -> Pair:
        passes = passes_for(self, img, pe)
        if passes is None or txt.dtype != img.dtype:
            return super().forward(img, txt, modulation, pe, attend)
        turns = _turns(pe)
        pairs = zip(_samples(img.contiguous(), modulation[0]), _samples(txt.contiguous(), modulation[1]), strict=True)
        each = [self._one(passes, image, text, turns, attend) for image, text in pairs]
        return _stacked([image for image, _ in each]), _stacked([text for _, text in each])

    def _one(self, passes: Passes, image: Pair, text: Pair, turns: Tensor, attend: Attend) -> Pair:
        streams = (
            (text[0], _rows(text[1]), self.txt_attn, self.txt_mlp, 0),
            (image[0], _rows(image[1]), self.img_attn, self.img_mlp, text[0].shape[0]),
        )
        heads = self.img_attn.heads
        out = passes.room(text[0].shape[0] + image[0].shape[0], heads, image[0].shape[1] // heads)
        for x, rows, own, _, place in streams:
            passes.heads(passes.times(own.qkv, passes.norm(x, rows[0], rows[1])), own.norm, turns, out, place)
        mixed = passes.attend(out, attend)
        after = []
        for x, rows, own, mlp, place in streams:
            count = x.shape[0]
            x = passes.gate(passes.times(own.proj, passes.inner(mixed, None, count, place, 0)), rows[2], x)
            wide = passes.times(mlp[0], passes.norm(x, rows[3], rows[4]))
            x = passes.gate(passes.times(mlp[2], passes.inner(None, wide, count, 0, wide.sums.shape[1])), rows[5], x)
            after.append(x)
        return after[1], after[0]


def _turns(pe: Rotation) -> Tensor:
    turns = pe.turns[0] if pe.turns.ndim > 3 else pe.turns
    return turns.contiguous()


def _samples(x: Tensor, modulation: Tensor) -> list[Pair]:
    """Each sample of a batch with its modulation."""
    rows = modulation if len(modulation) == len(x) else modulation.expand(len(x), *modulation.shape[1:])
    return list(zip(x.unbind(0), rows.unbind(0), strict=True))


def _stacked(each: Sequence[Tensor]) -> Tensor:
    return each[0][None] if len(each) == 1 else torch.stack(list(each))


def _rows(modulation: Tensor) -> list[Tensor]:
    """Shift, scale, gate ... of one sample, float32."""
    return [row.contiguous() for row in modulation.float().unbind(0)]


FUSED: dict[type[nn.Module], type[nn.Module]] = {SingleBlock: FusedSingle, DoubleBlock: FusedDouble}


def fuse(network: nn.Module) -> None:
    """Let the blocks of a network go through the passes; what they are called and hold stays."""
    for module in network.modules():
        if type(module) in FUSED:
            module.__class__ = FUSED[type(module)]
        if isinstance(module, FusedSingle | FusedDouble):
            module.__dict__.pop("_inside", None)  # its layers may have been replaced

