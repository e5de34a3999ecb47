"""From a run's checkpoint to weights that can be used: average weights into modules, and into a model folder."""

from __future__ import annotations

import tempfile
from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fluxone import storybook
from fluxone.errors import BadFile, BadRequest, BadWeights
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.recipe import Recipe
from fluxone.shapes import AutoEncoderShape, Intake
from fluxone.storybook import record
from fluxone.train import checkpoint
from fluxone.train import tokenizer as words
from fluxone.train.config import Model, TrainConfig
from fluxone.train.data.scenes import world_of
from fluxone.train.lowrank import LowRankAdapters, write
from fluxone.train.parts import EYE, eye, text_encoders, transformer
from fluxone.variants import MINI, VARIANTS
from fluxone.weights.load import load_bundle
from fluxone.weights.save import save_folder
from fluxone.weights.save_redux import save_redux

PARTS = ("transformer", "autoencoder", "t5", "clip")  # that `RUN:PART` may name
BESIDE = "beside"  # in a checkpoint's metadata: runs or models that hold what it does not, of a part learnt by half
MEAN_OVER_AREAS = 4  # PIL's number of the filter by which pictures are shrunk for the eye in training
WIDENED = "img_in.weight"  # of a transformer that is given pictures as channels


@torch.no_grad()
def load_average(modules: Mapping[str, nn.Module], runs: Sequence[str], frozen: Sequence[str] = ()) -> dict[str, Any]:
    """Fill modules with the average weights of run folders or models; later ones win. Returns their metadata, merged.

    Parts that no run has keep their values; a run's parts that are not asked for are ignored. `RUN:PART` takes that
    part alone. A transformer with more channels than the run's starts deaf to them.

    Args:
        frozen: parts that will never be learnt, so that a run must have them; a run keeps only what it has learnt.

    Raises:
        BadFile, UnknownName: it is neither a folder with a checkpoint nor a model.
        BadRequest: a frozen part is in none of them.
        BadWeights: a run's part has other names or shapes than the module.
    """
    merged: dict[str, Any] = {}
    filled: set[str] = set()
    for run in runs:
        place, _, only = run.rpartition(":") if run.rpartition(":")[2] in PARTS else (run, "", "")
        average, meta = _average(place, modules)
        merged |= meta
        for part, module in modules.items():
            if part != (only or part):
                continue
            rows = {k.removeprefix(f"{part}."): v for k, v in average.items() if k.startswith(f"{part}.")}
            kept = dict(module.named_parameters())
            if not rows:
                continue
            filled.add(part)
            if WIDENED in rows:
                rows[WIDENED] = F.pad(rows[WIDENED], (0, max(0, kept[WIDENED].shape[1] - rows[WIDENED].shape[1])))
            if rows.keys() - kept.keys() or any(rows[k].shape != kept[k].shape for k in rows):
                raise BadWeights(f"{run} holds another {part} than the recipe describes", hint="compare their [model]")
            for name, value in rows.items():
                kept[name].copy_(value)
    if missing := [part for part in frozen if part not in filled]:
        raise BadRequest(
            f"{missing[0]} is frozen, and nothing that the run starts from has it: {', '.join(runs) or 'no start'}",
            hint="put the run or the model that it was learnt in first into `start`",
        )
    return merged


def _average(place: str, wanted: Collection[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The average weights of a run's folder, or the weights of a model (a name, or its folder).

    Of a model's Redux, which lies with it, only if it is `wanted`.
    """
    found = checkpoint.load(Path(place))
    if found is not None:
        groups, meta = found
        before = [_average(run, wanted)[0] for run in meta.get(BESIDE, ())]
        return dict(ChainMap(groups["average"], *reversed(before))), meta
    if place not in VARIANTS and not (Path(place) / "model_index.json").exists():
        raise BadFile(
            f"{place} is neither a run with a checkpoint nor a model", hint="train it first, or mend the recipe's path"
        )
    bundle = load_bundle(place, recipe=Recipe(device="cpu", dtype="float32"))
    shape = bundle.autoencoder.shape
    parts: dict[str, nn.Module | None] = {
        "transformer": bundle.transformer, "autoencoder": bundle.autoencoder, "t5": bundle.t5, "clip": bundle.clip,
    }  # fmt: skip
    if "eye" in wanted and bundle.redux_near is not None:
        redux = bundle.redux_near()
        parts |= {"eye": redux.encoder, "embedder": redux.embedder}
    rows = {
        f"{part}.{name}": p.detach()
        for part, module in parts.items()
        if module is not None
        for name, p in module.named_parameters()
    }
    return rows, {"latent": {"scale": shape.scale, "shift": shape.shift}}


def autoencoder(model: Model) -> AutoEncoder:
    """The trained autoencoder that the recipe names, with its measured scale and shift, frozen."""
    shape = AutoEncoderShape(channels=model.channels, blocks=model.blocks, groups=model.groups)
    probe = AutoEncoder(shape)
    latent = load_average({"autoencoder": probe}, [model.autoencoder])["latent"]
    made = AutoEncoder(AutoEncoderShape(**{**asdict(shape), **latent}))
    made.load_state_dict(probe.state_dict())
    return channels_last(made).eval().requires_grad_(False)


def channels_last(module: AutoEncoder) -> AutoEncoder:
    """The same module with its kernels laid out as a CPU's convolutions want them: a fifth faster."""
    for p in module.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return module


def export(recipe: TrainConfig, runs: Sequence[str], out: Path) -> Path:
    """Write the model that these runs made to `out`, in the diffusers layout, bfloat16, with the world it knows.

    Args:
        recipe: the flow run's: it has the shapes, the words and the autoencoder.
        runs: run folders with the transformer and its text encoders; later ones win.
    """
    world = world_of(recipe.data)
    tokenizer = words.build(storybook.vocabulary(world))
    t5, clip = text_encoders(recipe.model, tokenizer)
    flux = transformer(recipe.model)
    load_average({"transformer": flux, "t5": t5, "clip": clip}, runs)
    length = recipe.model.text_tokens
    row = replace(MINI, size=recipe.data.size, text_tokens=length, shape=flux.shape)
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in ("tokenizer", "tokenizer_2")}
        for folder in folders.values():
            words.save(tokenizer, folder, length)
        save_folder(
            out,
            variant=row,
            transformer=flux,
            autoencoder=autoencoder(recipe.model),
            t5=t5,
            clip=clip,
            tokenizers=folders,
            dtype=torch.bfloat16,
        )
    record.write(world, out)
    return out


def export_adapters(recipe: TrainConfig, out: Path) -> Path:
    """Write the adapters that a run with `model.rank` made to the file `out`, bfloat16, in diffusers' key style."""
    adapters = LowRankAdapters(transformer(recipe.model), recipe.model.rank, whole=recipe.model.whole)
    load_average({"lora": adapters}, [recipe.out])
    write(adapters, out, {"title": Path(recipe.out).name, "objective": recipe.objective}, torch.bfloat16)
    return out


def export_redux(recipe: TrainConfig, out: Path) -> Path:
    """Write the eye and the embedder of a run of `image` to the folder `out`, bfloat16, as the published Redux is."""
    encoder, embedder = eye(recipe.model)
    load_average({"eye": encoder, "embedder": embedder}, [recipe.out])
    intake = Intake(height=EYE.size, width=EYE.size, filter=MEAN_OVER_AREAS)
    save_redux(out, encoder=encoder, embedder=embedder, intake=intake, dtype=torch.bfloat16)
    return out
