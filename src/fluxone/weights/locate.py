"""Where the parts of a model lie: in a diffusers folder, in one file, or in several files near each other.

    path --locate--> Source { transformer, autoencoder, t5, clip: Part } + tokenizers + scheduler

It reads headers and configs, no tensors, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fluxone.errors import BadFile, BadWeights, MissingParts
from fluxone.weights.keymap import AUTOENCODER, CLIP, PARTS, T5, TRANSFORMER
from fluxone.weights.parts import FILES, FOLDERS, TITLES, Part, file_parts, folder_part, holds, open_part
from fluxone.weights.safetensors import listing, read_json

TOKENIZERS = {T5: "tokenizer_2", CLIP: "tokenizer"}
TOKENIZER_TITLES = {T5: "T5's tokenizer (folder tokenizer_2)", CLIP: "CLIP's tokenizer (folder tokenizer)"}
TOKENIZER_FILES = {T5: ("tokenizer.json", "spiece.model"), CLIP: ("tokenizer.json", "vocab.json")}
FETCHED = {
    T5: "hf download google/t5-v1_1-xxl spiece.model --local-dir tokenizer_2",
    CLIP: "hf download openai/clip-vit-large-patch14 tokenizer.json --local-dir tokenizer",
}  # FLUX.1's own, where they lie free for all; no single file holds them
SCHEDULER = Path("scheduler", "scheduler_config.json")
INDEX = "model_index.json"

# Where single files are looked for, from the folder of the transformer's file.
PLACES = {
    AUTOENCODER: (".", "vae", "../vae"),
    T5: (".", "text_encoders", "clip", "../text_encoders", "../clip"),
    CLIP: (".", "text_encoders", "clip", "../text_encoders", "../clip"),
}
HOW = (
    "put them beside the file (or in vae/, text_encoders/, tokenizer/, tokenizer_2/), or give vae, text_encoder and "
    "text_encoder_2: each a file or a folder, where a text encoder's folder may hold its tokenizer"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model's parts as they were found.

    Attributes:
        pipeline: diffusers' class for the model, where a folder's index names it.
        left_out: parts that the folder's index says it does without.
    """

    path: Path
    layout: str
    pipeline: str = ""
    parts: dict[str, Part] = field(default_factory=dict)
    tokenizers: dict[str, Path] = field(default_factory=dict)
    scheduler: Path | None = None
    left_out: frozenset[str] = frozenset()

    @property
    def missing(self) -> list[str]:
        """Titles of what is not there and should be."""
        parts = [TITLES[part] for part in PARTS if part not in self.parts and part not in self.left_out]
        needed = [part for part in TOKENIZERS if part not in self.tokenizers and part not in self.left_out]
        return parts + [TOKENIZER_TITLES[part] for part in needed]


def locate(path: Path, given: Mapping[str, Path | Part]) -> Source:
    """Find all parts of the model at a folder or file; those in `given` (part -> file or folder) lie elsewhere, or are
    there already.

    Raises:
        BadFile: nothing usable is there.
        BadWeights: the file holds something else than a model.
        MissingParts: one or more parts are nowhere to be found.
    """
    source = in_folder(path, skip=given.keys()) if path.is_dir() else _file(path, skip=given.keys())
    parts = {name: place if isinstance(place, Part) else open_part(place, name) for name, place in given.items()}
    places = {name: place for name, place in given.items() if name in TOKENIZERS and not isinstance(place, Part)}
    words = {name: near for name, place in places.items() if (near := tokenizer_near(place, name))}
    source = replace(
        source,
        parts=source.parts | parts,
        tokenizers=source.tokenizers | words,
        left_out=source.left_out - parts.keys(),
    )
    if source.missing:
        lacking = [line for name, line in FETCHED.items() if TOKENIZER_TITLES[name] in source.missing]
        hint = f"{HOW}; FLUX.1's tokenizers come with: {', '.join(lacking)}" if lacking else HOW
        raise MissingParts(f"{path} comes without {listing(source.missing)}", hint=hint)
    return source


def in_folder(path: Path, *, skip: Collection[str] = ()) -> Source:
    """What a model's folder holds, complete or not, without the parts in `skip`.

    Raises:
        BadFile: it is no model's folder, or a file is missing or broken.
        BadWeights: a file holds something else.
    """
    index: dict[str, Any] = read_json(path / INDEX) if (path / INDEX).is_file() else {}
    present = [name for name, folder in FOLDERS.items() if (path / folder).is_dir()]
    if not index and not present:
        files = sorted(file.name for kind in ("*.safetensors", "*.gguf") for file in path.glob(kind))
        hint = f"give one of its files: {listing(files)}" if files else "give a model's folder or a .safetensors file"
        raise BadFile(f"{path} is a folder without {INDEX}", hint=hint)
    kind = index.get("_class_name", "FluxPipeline")
    if not isinstance(kind, str) or not kind.startswith("Flux"):
        raise BadWeights(f"{path} holds a {kind}", hint="only FLUX.1 models can be run")
    nothing = frozenset(name for name, folder in FOLDERS.items() if index.get(folder) == [None, None])
    parts = {
        name: folder_part(path / FOLDERS[name], name) for name in present if name not in skip and name not in nothing
    }
    words = {name: path / folder for name, folder in TOKENIZERS.items() if _is_tokenizer(path / folder, name)}
    scheduler = path / SCHEDULER
    return Source(
        path=path,
        layout="diffusers folder",
        pipeline=kind,
        parts=parts,
        tokenizers=words,
        scheduler=scheduler if scheduler.is_file() else None,
        left_out=nothing & {T5, CLIP},
    )


def layout_of(parts: Mapping[str, Part]) -> str:
    """What people call a file with these parts."""
    if len(parts) > 1:
        return "ComfyUI all-in-one file"
    part = next(iter(parts.values()))
    kind = "" if part.headers[0].container == "safetensors" else f"{part.headers[0].container} "
    return f"{part.form.name} {kind}file"


def tokenizer_near(place: Path, name: str) -> Path | None:
    """The folder of an encoder's tokenizer: in a folder or below it, or beside a file or folder."""
    folder = place if place.is_dir() else place.parent
    near = [folder / TOKENIZERS[name], folder, folder.parent / TOKENIZERS[name]]
    return next((found for found in near if _is_tokenizer(found, name) and (found != folder or place.is_dir())), None)


def _is_tokenizer(folder: Path, name: str) -> bool:
    return any((folder / file).is_file() for file in TOKENIZER_FILES[name])


def _file(path: Path, skip: Collection[str]) -> Source:
    parts = file_parts(path)
    if TRANSFORMER not in parts:
        raise BadWeights(f"{path} holds {holds(parts)}, no transformer", hint="give the transformer's file or a folder")
    layout = layout_of(parts)
    parts |= {
        name: found
        for name in PARTS
        if name not in parts and name not in skip and (found := _companion(path.parent, name))
    }
    places = {name: [path, *([parts[name].place] if name in parts else [])] for name in TOKENIZERS}
    words = {
        name: near[0]
        for name, around in places.items()
        if (near := [folder for place in around if (folder := tokenizer_near(place, name))])
    }
    scheduler = path.parent / SCHEDULER
    return Source(
        path=path,
        layout=layout,
        parts=parts,
        tokenizers=words,
        scheduler=scheduler if scheduler.is_file() else None,
    )


def _companion(folder: Path, name: str) -> Part | None:
    """A part near a single file; among several the largest, since it is the most precise."""
    for place in PLACES[name]:
        files = [file for pattern in FILES[name] for file in (folder / place).glob(pattern)]
        for file in sorted(files, key=lambda file: (-file.stat().st_size, file.name)):
            if part := file_parts(file, strict=False).get(name):
                return part
    for own in (folder / FOLDERS[name], folder.parent / FOLDERS[name]):
        if (own / "config.json").is_file():
            return folder_part(own, name)
    return None
