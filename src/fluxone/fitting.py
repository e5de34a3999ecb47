"""The quickest way of running a model that fits, chosen before it is loaded; and a way down where that was too much.

    auto      a recipe that leaves quant or offload open --plan--> one that leaves nothing open
    enduring  out of memory --> the next rung of the ladder, and once more; the picture is the same
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch

from fluxone.errors import BadRequest
from fluxone.extent import TILE, extent_of, shapes_of
from fluxone.geometry import Resolution
from fluxone.machine import free, here
from fluxone.plan import Budget, Estimate, best, choices
from fluxone.recipe import AUTO, Recipe

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline
    from fluxone.weights.parts import Part

T = TypeVar("T")
LOG = logging.getLogger("fluxone")
LADDER = ("none", "lean", "model", "block", "disk")  # each needs less of the device than the one before
NO_MEMORY = "can't allocate memory"  # how torch says it of the CPU


def is_open(recipe: Recipe) -> bool:
    """Whether the recipe leaves something to be planned."""
    return AUTO in (recipe.quant, recipe.quant_t5, recipe.offload)


def auto(source: str, recipe: Recipe, *, dtype_open: bool = False, held: Mapping[str, Part] | None = None) -> Recipe:
    """The recipe with the quickest choice that fits the memory that is free now, at the model's own size.

    Args:
        recipe: settled: its device is known.
        dtype_open: whether its dtype may be another, where a CPU's memory asks for it.
        held: see `load_bundle`.

    Raises:
        BadRequest: nothing fits; it says what the least would be.
        UserError: the model cannot be found or read.
    """
    variant, shapes, packed = shapes_of(source, recipe, held)
    machine = here(recipe.device or "cpu")
    extent = extent_of(variant, shapes, Resolution(width=variant.size, height=variant.size), packed)
    planned = replace(recipe, dtype=None) if dtype_open else recipe
    found = choices(extent, planned, machine, variant.steps)
    device, host = free(recipe.device or "cpu")
    chosen = best(found, Budget(device=device, host=host))
    if chosen is None:
        least = min(found, key=lambda one: (one.device, one.host))
        raise BadRequest(
            f"{source} needs {least.device / 1e9:.1f} GB on {recipe.device} and {least.host / 1e9:.1f} GB beside it at "
            f"the least; {device / 1e9:.1f} and {host / 1e9:.1f} GB are free",
            hint="free some, or see what fits: fluxone plan",
        )
    LOG.info("%s", told(chosen))
    return chosen.choice.of(recipe)


def told(estimate: Estimate) -> str:
    """A choice in one line."""
    choice = estimate.choice
    words = [choice.dtype, f"quant {choice.quant or 'none'}", f"quant-t5 {choice.quant_t5 or 'none'}"]
    words += [f"offload {choice.offload}", *(["tiled"] if choice.tiled else [])]
    return f"{', '.join(words)}: {estimate.device / 1e9:.1f} GB, about {estimate.total:.3g} s a picture"


def enduring(pipeline: Pipeline, work: Callable[[], T]) -> T:
    """The result of some work; out of memory, it steps down a rung and does it again, if the recipe left that open.

    Raises:
        RuntimeError: torch's own, where no rung is left or the recipe decided.
    """
    while True:
        try:
            return work()
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not pipeline.yielding or not out_of_memory(error) or not descend(pipeline):
                raise
            LOG.warning(
                "out of memory: going on with offload %s%s",
                pipeline.on_device.mode, ", tiled" if pipeline.tile else "",
            )  # fmt: skip
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory has run out."""
    return isinstance(error, torch.OutOfMemoryError) or NO_MEMORY in str(error)


def descend(pipeline: Pipeline) -> bool:
    """Take the next rung: the autoencoder in tiles, then the next offload mode. False if there is none."""
    if pipeline.tile is None:
        pipeline.tile = TILE
        pipeline.recipe = replace(pipeline.recipe, tiled=True)
        return True
    rungs = [rung for rung in LADDER if not (pipeline.recipe.compile and rung in LADDER[3:])]
    below = rungs[rungs.index(pipeline.on_device.mode) + 1 :]
    if not below:
        return False
    pipeline.on_device.change(below[0], pipeline.on_device.device)
    pipeline.recipe = replace(pipeline.recipe, offload=below[0])
    return True
