"""Variant + recipe -> pipeline, in one fixed order.

    plan what is open -> load (meta device, then the files' own memory) -> quantize -> attention backend
        -> share among processes -> compile each block -> offload -> adapters

Adapters work beside the layers, so they come last and can be changed later; the one that makes a row of the package
(mini-depth) is merged as soon as its base is loaded, and quantized with it. The file is not called `assemble`,
because then `fluxone.assemble` would be the file and not the function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from fluxone import parallel
from fluxone.cache.drift import within
from fluxone.cache.rules import read
from fluxone.errors import BadRequest, pick
from fluxone.fitting import auto, is_open
from fluxone.guiding import furnish
from fluxone.lora.joining import joined
from fluxone.lora.load import load_lora
from fluxone.lora.strength import read_strength
from fluxone.nn import graphs
from fluxone.nn.attention import ATTENTION, AUTO, quickest
from fluxone.nn.transformer import Flux
from fluxone.offload import STREAMED, Offload
from fluxone.pipeline import Pipeline
from fluxone.quant.apply import prepare, quantize
from fluxone.quant.fused import fuse
from fluxone.recipe import KEPT, Recipe
from fluxone.text.encode import TextEncoders
from fluxone.text.tokenizers import load_tokenizer
from fluxone.variants import Kind, Variant
from fluxone.weights.additions import inside, on_base, redux_of
from fluxone.weights.keymap import T5, TRANSFORMER
from fluxone.weights.load import Bundle, load_bundle
from fluxone.weights.parts import Part
from fluxone.weights.redux import NOTHING, Given, Redux


def assemble(
    source: Variant | str,
    recipe: Recipe | None = None,
    *,
    variant: str | None = None,
    held: Mapping[str, Part] | None = None,
    prior: Given = NOTHING,
) -> Pipeline:
    """Load a model and make it ready to draw. Its parts come to the device when they are first needed.

    Args:
        source: a row of the table, its name, a hub id, a folder or a file.
        variant: name of the row whose defaults apply, where the files cannot tell.
        held: parts that are in memory already, in place of the source's own (`weights.held.part_of`).
        prior: the same of Redux.

    Raises:
        UserError: the model cannot be found, fetched, read or completed; each its own kind.
    """
    asked = recipe or Recipe()
    if asked.parallel is not None:
        parallel.check(asked)
        parallel.join()
        asked = replace(asked, device=parallel.place(asked.device))
    recipe = settle(asked)
    if recipe.attention != AUTO:
        pick(ATTENTION, recipe.attention, "attention backend")
    name = source.name if isinstance(source, Variant) else source
    own = inside(name)
    name, variant, recipe = on_base(name, variant, recipe)
    recipe = replace(recipe, cache=within(recipe.max_drift) if recipe.cache is None else recipe.cache)
    if is_open(asked):
        recipe = auto(name, recipe, dtype_open=asked.dtype is None, held=held)
    kept = [part for part, quant in ((TRANSFORMER, recipe.quant), (T5, recipe.quant_t5)) if quant == KEPT]
    ready = partial(prepare, kept=kept)
    bundle = load_bundle(name, variant=variant, recipe=replace(recipe, device=None), prepare=ready, held=held)
    bundle = bundle if own is None else joined(bundle, own)
    for network, quant in ((bundle.transformer, recipe.quant), (bundle.t5, recipe.quant_t5)):
        if network is not None and quant is not None:
            quantize(network, quant, getattr(torch, str(recipe.dtype)))
    if isinstance(source, Variant):
        bundle = replace(bundle, variant=_with_files(source, bundle.variant))
    bundle = _with_redux(bundle, recipe, prior)
    recipe = replace(recipe, attention=_attention(recipe, bundle))
    bundle.transformer.attend = ATTENTION[recipe.attention]
    if recipe.parallel is not None:
        parallel.spread(bundle.transformer, recipe.parallel)
        parallel.spread_rows(bundle.autoencoder.decoder)
    if str(recipe.device).startswith("cuda"):
        fuse(bundle.transformer)
    if recipe.compile:
        compile_blocks(bundle.transformer)
    pipeline = connect(bundle, recipe)
    pipeline.yielding = is_open(asked)
    for text in recipe.adapters:
        place, strength = read_strength(text)
        name = Path(place).stem if Path(place).stem not in pipeline.adapters.loaded else place
        pipeline.adapters.load(load_lora(place, token=recipe.token if "civitai" not in place else None), name)
        pipeline.adapters.use({**pipeline.adapters.active, name: strength})
    furnish(pipeline, recipe)
    return pipeline


def compile_blocks(transformer: Flux) -> None:
    """Have every block compiled when it is first used: they are alike, so that two are compiled and not 57."""
    for block in (*transformer.double_blocks, *transformer.single_blocks):
        block.compile()


def _attention(recipe: Recipe, bundle: Bundle) -> str:
    """The attention backend: the recipe's, or the quickest on its device for a picture of the model's own size."""
    if recipe.attention != AUTO:
        return recipe.attention
    row, shape = bundle.variant, bundle.variant.shape
    tokens = (row.size // (2 * bundle.autoencoder.shape.factor)) ** 2 + row.text_tokens
    dtype: torch.dtype = getattr(torch, str(recipe.dtype))
    device = torch.device(str(recipe.device))
    return quickest(device, dtype, tokens=tokens, heads=shape.heads, size=shape.head_dim)


def _with_files(row: Variant, found: Variant) -> Variant:
    """The caller's row, with the shape, and the conditions in channels, that the files have."""
    wide = tuple(kind for kind in found.takes if kind.wide)
    takes = wide or tuple(kind for kind in row.takes if not kind.wide)
    return replace(row, shape=found.shape, takes=takes)


def _with_redux(bundle: Bundle, recipe: Recipe, prior: Given) -> Bundle:
    """The model with the Redux that the recipe asks for, or with a way to the one that lies with it, loaded when it is
    first used; without, it takes no image prompts, whatever its row says."""
    load = redux_of(recipe, bundle.variant, bundle.place, prior)
    takes = tuple(kind for kind in bundle.variant.takes if kind is not Kind.PROMPT)
    if load is None:
        return replace(bundle, variant=replace(bundle.variant, takes=takes))
    bundle = replace(bundle, variant=replace(bundle.variant, takes=(*takes, Kind.PROMPT)))
    if recipe.redux is None and prior.embedder is None:
        return replace(bundle, redux_near=load)
    redux = load()
    return replace(bundle, redux=redux, hashes={**bundle.hashes, **redux.hashes})


def connect(bundle: Bundle, recipe: Recipe) -> Pipeline:
    """Make a pipeline of a loaded model, whose modules are on the CPU; nothing is moved yet."""
    recipe = settle(recipe)
    text = _text(bundle)
    parts: dict[str, list[nn.Module]] = {
        "text": [] if text is None else [text.t5, text.clip],
        "modulators": bundle.transformer.modulators(),
        "transformer": [bundle.transformer],
        "autoencoder": [bundle.autoencoder],
        "image": [] if bundle.redux is None else [bundle.redux.encoder, bundle.redux.embedder],
    }
    device = torch.device(recipe.device or "cpu")
    offload = Offload(parts, device, recipe.offload, streamed=("transformer", "modulators", "text", "image"))
    if text is not None and recipe.offload == "none" and graphs.wanted(device, compiled=recipe.compile):
        text.record()
    pipeline = Pipeline(bundle, recipe, text, offload)
    if bundle.redux_near is not None:
        pipeline.prompting.load = partial(_bring_redux, pipeline, bundle.redux_near)
    return pipeline


def _bring_redux(pipeline: Pipeline, load: Callable[[], Redux]) -> Redux:
    """Load a Redux as a part of the pipeline."""
    redux = load()
    pipeline.bundle.hashes.update(redux.hashes)
    pipeline.on_device.drop("image")
    pipeline.on_device.add("image", [redux.encoder, redux.embedder], streamed=True)
    return redux


def settle(recipe: Recipe) -> Recipe:
    """The recipe with device and dtype decided, never to be asked again.

    Raises:
        BadRequest: the device is not there, or two fields exclude each other.
    """
    if "packed" in (recipe.quant, recipe.quant_t5) and (recipe.device or best_device()) != "cpu":
        raise BadRequest("quant packed is for CPUs", hint="use fp8 or int8-dynamic, or device cpu")
    if "packed" in (recipe.quant, recipe.quant_t5) and recipe.compile:
        raise BadRequest("compile and quant packed are both on", hint="the compiler orders weights itself: use one")
    if recipe.compile and recipe.offload in STREAMED:
        hint = "compiled blocks stay: use offload model"
        raise BadRequest(f"compile and offload {recipe.offload} are both on", hint=hint)
    if recipe.cache is not None:
        read(recipe.cache)
    device = recipe.device or best_device()
    kind = device.split(":")[0]
    if kind != "cpu" and not _there(kind):
        raise BadRequest(f"this machine has no {kind} that torch {torch.__version__} can use", hint="use device cpu")
    return replace(recipe, device=device, dtype=recipe.dtype or ("float32" if kind == "cpu" else "bfloat16"))


def best_device() -> str:
    """The fastest kind of device that this machine has."""
    return next((kind for kind in ("cuda", "xpu", "mps") if _there(kind)), "cpu")


def _there(kind: str) -> bool:
    backend = torch.backends.mps if kind == "mps" else getattr(torch, kind)
    return bool(backend.is_available())


def _text(bundle: Bundle) -> TextEncoders | None:
    if bundle.t5 is None or bundle.clip is None or bundle.t5_tokenizer is None or bundle.clip_tokenizer is None:
        return None
    t5_tokenizer, clip_tokenizer = load_tokenizer(bundle.t5_tokenizer), load_tokenizer(bundle.clip_tokenizer)
    return TextEncoders(bundle.t5, bundle.clip, t5_tokenizer, clip_tokenizer)
