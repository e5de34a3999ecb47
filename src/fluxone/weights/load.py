"""From a name, hub id, folder or file to a loaded model.

source --resolve--> path --locate--> parts --shape_of--> shapes --load_module--> Bundle
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from fluxone.errors import BadFile, BadWeights, pick
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.recipe import KEPT, Recipe
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.variants import VARIANTS, Variant
from fluxone.weights import configs, hub, identify, sizes
from fluxone.weights.fill import first_nonfinite as first_nonfinite
from fluxone.weights.fill import load_module as load_module
from fluxone.weights.fill import refuse_packed
from fluxone.weights.fingerprint import fingerprint
from fluxone.weights.keymap import AUTOENCODER, CLIP, T5, TRANSFORMER
from fluxone.weights.locate import locate
from fluxone.weights.parts import Part
from fluxone.weights.redux import Redux
from fluxone.weights.shipped import shipped

M = TypeVar("M", bound=nn.Module)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_LINK = re.compile(rf"(?:https?://)?(?:huggingface\.co|hf\.co)/({HUB_ID.pattern})/(?:blob|resolve)/main/([^?#]+)")
FILES = (".safetensors", ".sft", ".gguf")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A loaded model.

    Attributes:
        variant: the row whose conditions and defaults apply, with the files' own shape and schedule.
        t5_tokenizer, clip_tokenizer: folders that `text.tokenizers.load_tokenizer` reads.
        hashes: part -> fingerprint of its files.
        source: what was asked for, and `place`, where that is.
        redux: what makes words of pictures, if it is there; and `redux_near` loads the one that lies with the model.
    """

    variant: Variant
    transformer: Flux
    autoencoder: AutoEncoder
    t5: T5Encoder | None
    clip: ClipTextEncoder | None
    t5_tokenizer: Path | None
    clip_tokenizer: Path | None
    hashes: dict[str, str] = field(default_factory=dict)
    source: str = ""
    place: Path | None = None
    redux: Redux | None = None
    redux_near: Callable[[], Redux] | None = None


Prepare = Callable[[nn.Module, Part], None]


def load_bundle(
    source: str,
    *,
    variant: str | None = None,
    recipe: Recipe,
    prepare: Prepare = lambda module, part: None,
    held: Mapping[str, Part] | None = None,
) -> Bundle:
    """Load the model that a registered name, hub id, folder or file stands for.

    The transformer and the text encoders come in the recipe's dtype, the autoencoder in float32; all are in eval
    mode, without gradients, on the recipe's device if nothing is offloaded, else on the CPU. What is to be quantized
    comes as it is stored.

    Args:
        prepare: changes a network, still without memory, to what the files of a part hold: packed layers.
        held: parts that are given already, in place of the source's own.

    Raises:
        UnknownName: the source is no name, no path and no hub id.
        HubError: a repository cannot be reached.
        BadFile, BadWeights: a file is broken, or does not fit.
        MissingParts: a part is nowhere to be found.
    """
    row, path = resolve(source, token=recipe.token)
    if variant is not None:
        row = pick(VARIANTS, variant, "variant")
    found = locate(path, given_parts(recipe, held))
    parts = found.parts
    for part in parts.values():
        refuse_packed(part)
    flux = identify.shape_of(parts[TRANSFORMER], configs.read_flux, sizes.flux)
    autoencoder = identify.shape_of(parts[AUTOENCODER], configs.read_autoencoder, sizes.autoencoder)
    t5 = identify.shape_of(parts[T5], configs.read_t5, sizes.t5) if T5 in parts else None
    clip = identify.shape_of(parts[CLIP], configs.read_clip, sizes.clip) if CLIP in parts else None
    _check_together(flux, autoencoder, t5, clip, found.path)
    device = recipe.device if recipe.device is not None and recipe.offload == "none" else "cpu"
    dtype = _dtype(recipe)

    def ready(build: Callable[[], M], name: str) -> Callable[[], M]:
        def built() -> M:
            module = build()
            prepare(module, parts[name])
            return module

        return built

    return Bundle(
        variant=identify.variant_of(found, flux, autoencoder, row),
        transformer=load_module(
            ready(lambda: Flux(flux), TRANSFORMER),
            parts[TRANSFORMER],
            dtype=dtype if recipe.quant in (None, KEPT) else None,
            device=device,
        ),
        autoencoder=load_module(
            lambda: AutoEncoder(autoencoder), parts[AUTOENCODER], dtype=torch.float32, device=device
        ),
        t5=None
        if t5 is None
        else load_module(
            ready(lambda: T5Encoder(t5), T5),
            parts[T5],
            dtype=dtype if recipe.quant_t5 in (None, KEPT) else None,
            device=device,
        ),
        clip=None
        if clip is None
        else load_module(lambda: ClipTextEncoder(clip), parts[CLIP], dtype=dtype, device=device),
        t5_tokenizer=found.tokenizers.get(T5),
        clip_tokenizer=found.tokenizers.get(CLIP),
        hashes={name: fingerprint(part.headers) for name, part in parts.items()},
        source=source,
        place=path,
    )


def given_parts(recipe: Recipe, held: Mapping[str, Part] | None = None) -> dict[str, Path | Part]:
    """The parts that do not come from the source: where the recipe says that they lie, or themselves."""
    given = {AUTOENCODER: recipe.vae, T5: recipe.text_encoder_2, CLIP: recipe.text_encoder}
    return {name: Path(place).expanduser() for name, place in given.items() if place is not None} | dict(held or {})


def resolve(source: str, *, token: str | None = None) -> tuple[Variant | None, Path]:
    """Find the row (if a name was given) and the folder or file that a source stands for; download what is remote:
    a hub id, or the address of a file there.

    A registered name goes before a folder of the same name: write `./mini` for the folder. What a name of an addition
    stands for is the addition alone.

    Raises:
        UnknownName: the source is no name, no path and no hub id.
        BadFile: it looks like a path, and nothing is there.
        HubError: a repository cannot be reached.
    """
    if source in VARIANTS:
        row = VARIANTS[source]
        return row, shipped(row) if row.assets else hub.download(row.repo, token=token)
    if (link := HUB_LINK.match(source)) is not None and link[2].endswith(FILES):
        return None, hub.download(link[1], file=link[2], token=token)
    path = Path(source).expanduser()
    if path.exists():
        return None, path
    if HUB_ID.fullmatch(source) and path.suffix not in FILES:
        return None, hub.download(source, token=token)
    if path.suffix or os.sep in source:
        raise BadFile(f"{source} does not exist", hint="give a file, a folder, a hub id (org/name) or a model's name")
    pick(VARIANTS, source, "model")
    raise AssertionError("pick raises for names that are in no table")


def _dtype(recipe: Recipe) -> torch.dtype:
    if recipe.dtype is not None:
        kind: torch.dtype = getattr(torch, recipe.dtype)
        return kind
    device = recipe.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.float32 if device == "cpu" else torch.bfloat16


def _check_together(
    flux: FluxShape, autoencoder: AutoEncoderShape, t5: T5Shape | None, clip: ClipShape | None, path: Path
) -> None:
    """Refuse parts that do not belong together."""
    meets = [("autoencoder's latent, 2x2 cells a token,", 4 * autoencoder.latent, "channels", flux.out_channels)]
    if t5 is not None:
        meets.append(("T5 encoder", t5.hidden, "text channels", flux.text_dim))
    if clip is not None:
        meets.append(("CLIP encoder", clip.hidden, "pooled channels", flux.vec_dim))
    for part, gives, what, takes in meets:
        if gives != takes:
            raise BadWeights(
                f"{path}: the {part} gives {gives} {what}, the transformer takes {takes}",
                hint="these parts are of different models",
            )
