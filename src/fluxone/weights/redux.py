"""From files to Redux: its embedder, the SigLIP that looks at pictures for it, and how they are brought to that.

    folder (image_embedder/, image_encoder/, feature_extractor/) or file (flux1-redux-dev.safetensors) --> Redux

A file holds the embedder alone: SigLIP is looked for near it, unless it is given. Both may be networks in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fluxone.errors import BadFile, BadWeights, FluxoneError, MissingParts
from fluxone.nn.siglip import ReduxEmbedder, SiglipEncoder
from fluxone.shapes import FluxShape, Intake, ReduxShape, SiglipShape
from fluxone.weights import configs, sizes
from fluxone.weights.beside import CONFIG, config_of, hash_of, matrix, open_beside, shapes_in
from fluxone.weights.extractor import Extract, extract_with
from fluxone.weights.fill import load_module
from fluxone.weights.formats.beside import REDUX, SIGLIP
from fluxone.weights.locate import INDEX
from fluxone.weights.parts import Part, read_headers
from fluxone.weights.safetensors import merge, read_json

EMBEDDER, ENCODER, EXTRACTOR = "image_embedder", "image_encoder", "feature_extractor"
CLASS = "FluxPriorReduxPipeline"
PREPROCESSOR = "preprocessor_config.json"
NEAR = (".", "clip_vision", "../clip_vision")  # where single files of encoders are kept, from the embedder's
FILE = "*redux*.safetensors"  # what a single file is called, where it is looked for
NAMES = ("sigclip_vision*.safetensors", "siglip*.safetensors")
HEADS = {1152: 16}  # of the so400m encoders; others have heads of 64
HEAD = 64
SIDES = {(14, 729): 384}  # (patch, patches) -> px, where patches do not fill the picture
HOW = "give siglip: a folder of google/siglip-so400m-patch14-384, or sigclip_vision_patch14_384.safetensors"


@dataclass(frozen=True, kw_only=True)
class Redux:
    """What makes tokens of pictures.

    Attributes:
        hashes: of its files.
        extract: makes pixels of a picture, in place of what `intake` says.
    """

    encoder: SiglipEncoder
    embedder: ReduxEmbedder
    intake: Intake
    hashes: dict[str, str]
    extract: Extract | None = None


@dataclass(frozen=True, kw_only=True)
class Given:
    """Parts that are in memory already: diffusers' embedder, transformers' SigLIP and what brings pictures to it."""

    embedder: nn.Module | None = None
    encoder: Path | nn.Module | None = None
    extractor: object = None


NOTHING = Given()


def load_redux(
    path: Path | nn.Module,
    flux: FluxShape,
    dtype: torch.dtype | str,
    *,
    encoder: Path | nn.Module | None = None,
    extractor: object = None,
) -> Redux:
    """Load Redux for a transformer.

    Args:
        path: a folder in the diffusers layout, or the embedder's file or folder, or itself.
        encoder: SigLIP's folder or file, or itself, where it is not near.
        extractor: what brings pictures to it (`weights.extractor`), in place of the config that lies there.

    Raises:
        BadFile: there is no such file.
        BadWeights: it is something else, or its parts, or it and the transformer, do not belong together.
        MissingParts: there is no picture encoder.
        BadRequest: the feature extractor does not fit it.
    """
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    own = path / EMBEDDER if isinstance(path, Path) and (path / EMBEDDER).is_dir() else path
    part = open_beside(own, REDUX)
    shapes = shapes_in(part)
    up, down = (matrix(shapes, f"redux_{name}.weight", part.place) for name in ("up", "down"))
    shape = ReduxShape(image=up[1], text=down[0])
    if shape.text != flux.text_dim:
        raise BadWeights(
            f"{part.place} gives {shape.text} text channels, the transformer takes {flux.text_dim}",
            hint="use it with the model that it was made for",
        )
    place = _encoder_near(own) if encoder is None and isinstance(own, Path) else encoder
    if place is None:
        raise MissingParts(f"{part.place} comes without its picture encoder, SigLIP", hint=HOW)
    seeing = open_beside(place, SIGLIP)
    siglip = siglip_shape(seeing)
    if siglip.hidden != shape.image:
        raise BadWeights(
            f"{seeing.place} gives {siglip.hidden} channels, {part.place} takes {shape.image}",
            hint="give the picture encoder that it was made for",
        )
    return Redux(
        encoder=load_module(lambda: SiglipEncoder(siglip), seeing, dtype=dtype),
        embedder=load_module(lambda: ReduxEmbedder(shape), part, dtype=dtype),
        intake=_intake(place, siglip) if isinstance(place, Path) else Intake(height=siglip.size, width=siglip.size),
        hashes={"redux": hash_of(own, REDUX), "image encoder": hash_of(place, SIGLIP)},
        extract=None if extractor is None else extract_with(extractor, siglip.size),
    )


def is_redux(path: Path) -> bool:
    """Whether a folder or file is Redux, which is no model, but an addition to one."""
    if path.is_dir():
        return (path / INDEX).is_file() and read_json(path / INDEX).get("_class_name") == CLASS
    return path.suffix == ".safetensors" and "redux_up.weight" in merge(read_headers(path))


def near(place: Path, width: int) -> Path | None:
    """The Redux that lies with a model and fits it: in its folder, in a folder of that, or beside it.

    Args:
        place: the model's folder or file.
        width: channels of its text.
    """
    for path in (place, *around(place)):
        named = path.match(FILE) if path.is_file() else path != place or (path / EMBEDDER).is_dir()
        try:
            if named and (is_redux(path) or (path / EMBEDDER).is_dir()) and text_width(path) == width:
                return path
        except FluxoneError:
            continue  # whatever it is, nobody has asked for it
    return None


def around(place: Path) -> list[Path]:
    """What lies in a folder, and then beside it; beside a file, and in ComfyUI's folder for such files."""
    places = (place, place.parent) if place.is_dir() else (place.parent, place.parent.parent / "style_models")
    found: list[Path] = []
    for folder in places:
        try:
            found += sorted(path for path in folder.iterdir() if path != place)
        except OSError:
            continue
    return found


def text_width(path: Path) -> int:
    """Channels of the text tokens that a Redux gives, by which the model that it is made for is told."""
    part = open_beside(path / EMBEDDER if path.is_dir() else path, REDUX)
    return matrix(shapes_in(part), "redux_down.weight", part.place)[0]


def siglip_shape(part: Part) -> SiglipShape:
    """Of its config if there is one, else of its tensors."""
    if (config := config_of(part)) is not None:
        return read_siglip(config, part.config or part.place)
    shapes = shapes_in(part)
    tokens, hidden = matrix(shapes, "vision_model.embeddings.position_embedding.weight", part.place)
    patch = shapes["vision_model.embeddings.patch_embedding.weight"][-1]
    heads = HEADS.get(hidden, hidden // HEAD)
    if heads == 0 or hidden % heads:
        raise BadWeights(f"{part.place}: SigLIP's width is {hidden}", hint="put its config.json beside the file")
    return SiglipShape(
        hidden=hidden,
        layers=sizes.count(shapes, r"vision_model\.encoder\.layers\.(\d+)\."),
        heads=heads,
        mlp=matrix(shapes, "vision_model.encoder.layers.0.mlp.fc1.weight", part.place)[0],
        size=SIDES.get((patch, tokens), round(tokens**0.5) * patch),
        patch=patch,
    )


def read_siglip(config: Mapping[str, Any], path: object) -> SiglipShape:
    """Read SigLIP's config, alone or inside that of a whole SigLIP; its keys are those of CLIP's.

    Raises:
        BadFile: a value is no number, or out of range.
        BadWeights: it describes another architecture.
    """
    own = config.get("vision_config") or config
    usual = {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
    clip = configs.read_clip_vision({**usual, **own}, path)
    return SiglipShape(
        hidden=clip.hidden,
        layers=clip.layers,
        heads=clip.heads,
        mlp=clip.mlp,
        size=clip.size,
        patch=clip.patch,
        activation=clip.activation,
        eps=clip.eps,
    )


def read_intake(config: Mapping[str, Any], shape: SiglipShape, path: object) -> Intake:
    """How the feature extractor's config says that pictures are brought to the encoder.

    Raises:
        BadFile: it says something else than three colours stretched to a size, or not the encoder's.
    """
    size = config.get("size", {"height": shape.size, "width": shape.size})
    usual = Intake(height=shape.size, width=shape.size)
    mean, spread = config.get("image_mean", usual.mean), config.get("image_std", usual.spread)
    plain = all(config.get(key, True) for key in ("do_resize", "do_rescale", "do_normalize"))
    colours = all(_three(values) for values in (mean, spread)) and 0 not in spread
    if not plain or not colours or size != {"height": shape.size, "width": shape.size}:
        raise BadFile(f"{path} does not say how pictures of {shape.size} px are made", hint="download it again")
    return Intake(
        height=shape.size,
        width=shape.size,
        filter=_filter(config.get("resample", usual.filter), path),
        mean=tuple(mean),
        spread=tuple(spread),
    )


def _three(values: object) -> bool:
    return (
        isinstance(values, list | tuple) and len(values) == 3 and all(type(value) in (int, float) for value in values)
    )


def _filter(value: object, path: object) -> int:
    if type(value) is not int or not 0 <= value <= 5:
        raise BadFile(f"{path}: resample is {value!r:.80}", hint="PIL's filters are 0 to 5; 3 is bicubic")
    return value


def _intake(place: Path, shape: SiglipShape) -> Intake:
    folder = place if place.is_dir() else place.parent
    for file in (folder.parent / EXTRACTOR / PREPROCESSOR, folder / PREPROCESSOR):
        if file.is_file():
            return read_intake(read_json(file), shape, file)
    return Intake(height=shape.size, width=shape.size)


def _encoder_near(own: Path) -> Path | None:
    """A folder or file with SigLIP: beside the embedder's folder or file, or in ComfyUI's folders."""
    folder = own.parent
    for place in (folder / ENCODER, folder.parent / ENCODER):
        if (place / CONFIG).is_file():
            return place
    files = [file for near in NEAR for name in NAMES for file in sorted((folder / near).glob(name))]
    return next(iter(files), None)
