"""What a way of running a model will need, before anything is loaded: memory on the device and beside it, and time.

    files' headers (or a row of the table) --measure--> Model: numbers of every part, bytes of activations, operations
    Model x Choice x Machine --estimate--> Estimate: peaks by stage, seconds by stage
    all choices --choices--> those that fit, the quickest first

Weights are counted exactly. Activations are those of the real code, run on tensors without memory (`nn.peak`). Time
comes from the machine's rates and is the coarser figure of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from fluxone.extent import Extent, Layers
from fluxone.machine import Machine
from fluxone.offload import STREAMED
from fluxone.quant.apply import SCHEMES
from fluxone.recipe import AUTO, DTYPES, KEPT, Recipe

# Relative error of a velocity on random weights, from docs/performance.md: what is picked between equals.
ERRORS: dict[str | None, float] = {None: 0.0, "fp8": 0.028, "fp8-dynamic": 0.04, "int8": 0.013,
                                   "int8-dynamic": 0.016, "nf4": 0.093, KEPT: 0.0}  # fmt: skip
TEXT_QUANTS: tuple[str | None, ...] = (None, "fp8", "nf4")
BETWEEN = 0.05  # share of time within which the smaller error wins
TILES = (False, True)
HELD = 3  # blocks on an accelerator at once: one computes, one comes, one has just gone
HEADROOM = 0.03  # share of a device's memory that an allocator leaves in pieces


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A way of running."""

    dtype: str
    quant: str | None = None
    quant_t5: str | None = None
    offload: str = "none"
    tiled: bool = False

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with this choice made."""
        return replace(
            recipe, dtype=self.dtype, quant=self.quant, quant_t5=self.quant_t5, offload=self.offload, tiled=self.tiled
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a choice will need.

    Attributes:
        device: bytes on the device at the worst moment.
        host: bytes beside it; 0 where the device is the CPU.
        seconds: by stage: text, steps (all of them), decode.
        stages: bytes on the device, by stage.
    """

    choice: Choice
    device: int
    host: int
    seconds: dict[str, float]
    stages: dict[str, int]

    @property
    def total(self) -> float:
        """Seconds of a picture."""
        return sum(self.seconds.values())


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes that may be used, on the device and beside it."""

    device: int
    host: int

    def holds(self, estimate: Estimate) -> bool:
        """Whether it is enough."""
        return estimate.device <= self.device and estimate.host <= self.host


def estimate(extent: Extent, choice: Choice, machine: Machine, steps: int) -> Estimate:
    """Peaks and seconds of one picture.

    Args:
        steps: calls of the network.
    """
    each = weights(extent, choice)
    on_cpu = machine.kind == "cpu"
    stays = {"none": set(each), "lean": {"transformer"}}.get(choice.offload, set())
    streams = choice.offload in STREAMED and not on_cpu
    held = {name: _held(extent, choice, name, each[name], streams) for name in each}
    tables = extent.tables * steps * DTYPES[choice.dtype]
    scale = DTYPES[choice.dtype] / 2  # activations are counted in bfloat16
    work = {
        "text": int(extent.text_peak * scale),
        "modulators": tables,
        "transformer": int(extent.step_peak * scale) + tables + _unpacked(extent, choice),
        "autoencoder": extent.tile_peak if choice.tiled else extent.decode_peak,
    }
    stages = {}
    here: set[str] = set()
    for name in each:  # in the order in which they are used
        here = (here & stays) | {name}
        stages[name] = sum(held[part] for part in here) + work[name] + machine.base
    device = max(stages.values())
    if on_cpu:
        device = machine.base + sum(each.values()) + max(work.values()) if choice.offload == "none" else device
    else:
        device = int(device * (1 + HEADROOM))
    host = 0 if on_cpu else machine.host_base + sum(size for name, size in each.items() if name not in stays)
    return Estimate(
        choice=choice, device=device, host=host, stages=stages, seconds=_seconds(extent, choice, machine, steps, each)
    )


def weights(extent: Extent, choice: Choice) -> dict[str, int]:
    """Bytes of every part's weights, in the order in which a picture needs them."""
    width = DTYPES[choice.dtype]
    t5 = extent.t5
    return {
        "text": (0 if t5 is None else packed_bytes(t5, choice.quant_t5, width)) + extent.clip * width,
        "modulators": extent.modulators * width,
        "transformer": packed_bytes(extent.transformer, choice.quant, width),
        "autoencoder": extent.autoencoder * 4,
    }


def packed_bytes(layers: Layers, quant: str | None, width: int) -> int:
    """Bytes of a part whose blocks are packed by a scheme, the rest `width` bytes a number."""
    if quant == KEPT and layers.kept is not None:
        return (layers.rest + layers.kept[1]) * width + layers.kept[0]
    scheme = None if quant is None else SCHEMES[quant]
    total = layers.rest * width
    for (rows, columns), count in layers.linear.items():
        if scheme is None or scheme.empty is None or not scheme.fits(rows, columns):
            total += count * rows * columns * width
        else:
            total += count * sum(t.numel() * t.itemsize for t in scheme.empty(rows, columns).values())
    return total


def _held(extent: Extent, choice: Choice, name: str, size: int, streams: bool) -> int:
    """Bytes that a part holds while it works: all, or what is outside its blocks and two of these."""
    if streams and name == "modulators":
        return HELD * size // max(1, extent.transformer.blocks)  # a double block's two are the largest
    layers = {"text": extent.t5, "transformer": extent.transformer}.get(name)
    if not streams or layers is None or not layers.blocks:
        return size
    rest = layers.rest * DTYPES[choice.dtype]
    return rest + HELD * -(-(size - rest) // layers.blocks)


def _unpacked(extent: Extent, choice: Choice) -> int:
    """Bytes of the largest weight in numbers, where it is unpacked for each product."""
    unpacks = choice.quant is not None and SCHEMES[choice.quant].unpacks
    return max(rows * columns for rows, columns in extent.transformer.linear) * DTYPES[choice.dtype] if unpacks else 0


def _seconds(
    extent: Extent, choice: Choice, machine: Machine, steps: int, each: Mapping[str, int]
) -> dict[str, float]:
    rate, attends = machine.rate(choice.quant, choice.dtype), machine.attention(choice.dtype)
    step = extent.linear_flops / rate + extent.attention_flops / attends + machine.overhead(extent)
    step += machine.unpack(choice.quant) * extent.transformer.packed
    text = extent.text_flops / machine.rate(choice.quant_t5, choice.dtype)
    text += machine.unpack(choice.quant_t5) * (0 if extent.t5 is None else extent.t5.packed)
    modulation = extent.modulators * DTYPES[choice.dtype] / machine.memory
    decode = extent.decode_flops / machine.decode
    if machine.kind == "cpu":
        if choice.offload == "disk":
            step = max(step, each["transformer"] / machine.disk)
            text = max(text, each["text"] / machine.disk)
        return {"text": text + modulation, "steps": steps * step, "decode": decode}
    brought = {name: size / machine.bus for name, size in each.items()}
    if choice.offload == "none":
        brought = dict.fromkeys(each, 0.0)
    elif choice.offload == "lean":
        brought["transformer"] = 0.0
    elif choice.offload in STREAMED:
        slow = machine.disk if choice.offload == "disk" else machine.bus
        step = max(step, each["transformer"] / slow)
        text = max(text, each["text"] / slow)
        brought["transformer"] = brought["text"] = 0.0
        brought["modulators"] = each["modulators"] / slow
    return {
        "text": text + brought["text"] + modulation + brought["modulators"],
        "steps": steps * step + brought["transformer"],
        "decode": decode + brought["autoencoder"],
    }


def choices(extent: Extent, recipe: Recipe, machine: Machine, steps: int) -> list[Estimate]:
    """Every choice that the recipe leaves open, those with fewer seconds first.

    Where the recipe decides something, so it stays; what a file is packed by decides too.
    """
    found = [estimate(extent, choice, machine, steps) for choice in _open(extent, recipe, machine)]
    return sorted(found, key=lambda one: (one.total, ERRORS[one.choice.quant]))


def best(found: list[Estimate], budget: Budget) -> Estimate | None:
    """The quickest that fits; between about equals, the one that loses least and needs no tiles."""
    fitting = [one for one in found if budget.holds(one)]
    if not fitting:
        return None
    limit = min(one.total for one in fitting) * (1 + BETWEEN)
    return min((one for one in fitting if one.total <= limit), key=_losses)


def useful(found: list[Estimate]) -> list[Estimate]:
    """Those that no other beats, or equals and comes before, in every way: memory, time and what is lost."""
    kept: list[Estimate] = []
    for one in sorted(found, key=lambda one: (one.total, *_losses(one))):
        if not any(_beats(other, one) for other in kept):
            kept.append(one)
    return kept


def _beats(other: Estimate, one: Estimate) -> bool:
    return (
        other.device <= one.device and other.host <= one.host and other.total <= one.total
        and _losses(other)[:2] <= _losses(one)[:2]
    )  # fmt: skip


def _losses(one: Estimate) -> tuple[float, float, bool, float]:
    choice = one.choice
    return ERRORS[choice.quant], ERRORS[choice.quant_t5], choice.tiled, one.total


def _open(extent: Extent, recipe: Recipe, machine: Machine) -> Iterator[Choice]:
    on_cpu = machine.kind == "cpu"
    dtypes = (recipe.dtype,) if recipe.dtype is not None else (("float32", "bfloat16") if on_cpu else ("bfloat16",))
    quants: tuple[str | None, ...] = (recipe.quant,)
    if recipe.quant == AUTO:
        quants = machine.quants if extent.packed is None else _same(extent.packed, machine)
        quants = quants if extent.transformer.kept is None else (*quants, KEPT)
    text: tuple[str | None, ...] = (recipe.quant_t5,)
    if AUTO in (recipe.quant_t5, recipe.quant) and recipe.quant_t5 in (AUTO, None):
        text = (extent.t5_packed,) if extent.t5_packed else TEXT_QUANTS
        text = text if extent.t5 is None or extent.t5.kept is None else (*text, KEPT)
    offloads: tuple[str, ...] = (recipe.offload,)
    if recipe.offload == AUTO:
        offloads = ("none", "disk") if on_cpu else ("none", "lean", "model", "block", "disk")
        offloads = tuple(name for name in offloads if not (recipe.compile and name in STREAMED))
    tiles = (True,) if recipe.tiled or AUTO not in (recipe.quant, recipe.offload) else TILES
    tiles = (recipe.tiled,) if AUTO not in (recipe.quant, recipe.offload) else tiles
    for dtype, quant, quant_t5, offload, tiled in product(dtypes, quants, text, offloads, tiles):
        yield Choice(dtype=dtype, quant=quant, quant_t5=quant_t5, offload=offload, tiled=tiled)


def _same(packed: str, machine: Machine) -> tuple[str | None, ...]:
    """The schemes that a packed file can go on by: those with the same numbers."""
    rows = [name for name in machine.quants if name is not None and SCHEMES[name].pack is SCHEMES[packed].pack]
    return tuple(rows) or (packed,)
