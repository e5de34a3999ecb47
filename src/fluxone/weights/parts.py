"""The parts of a model in files: which part a file holds, and the one file or set of shards that holds a part.

It reads headers and configs, no tensors, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fluxone.errors import BadFile, BadWeights
from fluxone.weights import gguf
from fluxone.weights.formats import FORMATS
from fluxone.weights.keymap import AUTOENCODER, CLIP, PARTS, T5, TRANSFORMER, Format, claim, recognise
from fluxone.weights.packed.find import unpacked
from fluxone.weights.safetensors import (
    AGAIN,
    PICKLED,
    PICKLES,
    Header,
    listing,
    merge,
    read_header,
    read_index,
    read_json,
)

FOLDERS = {TRANSFORMER: "transformer", AUTOENCODER: "vae", T5: "text_encoder_2", CLIP: "text_encoder"}
# What the parts' files are called where people keep single files; globs.
FILES = {
    AUTOENCODER: ("ae.safetensors", "ae.sft", "flux_ae.safetensors"),
    T5: ("t5xxl*.safetensors", "t5*.gguf"),
    CLIP: ("clip_l*.safetensors", "clip_l*.gguf"),
}
TITLES = {
    TRANSFORMER: "the transformer (flux1-*.safetensors)",
    AUTOENCODER: "the autoencoder (ae.safetensors)",
    T5: "the T5 text encoder (t5xxl*.safetensors)",
    CLIP: "the CLIP text encoder (clip_l.safetensors)",
}
LORA_KEYS = (
    "lora_A.",
    "lora_B.",
    "lora_down.",
    "lora_up.",
    "lora.down.",
    "lora.up.",
    "_lora.",
    "_lora1.",
    "lokr_",
    "hada_w",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a model: its files, how they are written, which of their names are its own, its config."""

    name: str
    form: Format
    headers: tuple[Header, ...]
    names: tuple[str, ...]
    config: Path | None = None

    @property
    def place(self) -> Path:
        """What to call it in messages: its file, or the folder of its shards."""
        return self.headers[0].path if len(self.headers) == 1 else self.headers[0].path.parent


def open_part(place: Path, name: str) -> Part:
    """Find one part in a file, in its own folder, in a folder of single files, or in a model's folder.

    Raises:
        BadFile: it is not there, or several candidates are.
    """
    if not place.is_dir():
        parts = file_parts(place)
        if name not in parts:
            raise BadWeights(f"{place} does not hold {TITLES[name]}, but {holds(parts)}", hint="give another file")
        return parts[name]
    if (place / FOLDERS[name]).is_dir():
        place = place / FOLDERS[name]
    if (place / "config.json").is_file():
        return folder_part(place, name)
    files = [file for pattern in FILES.get(name, ()) for file in sorted(place.glob(pattern))] or sorted(
        [*place.glob("*.safetensors"), *place.glob("*.gguf")]
    )
    fitting = [parts[name] for file in files if name in (parts := file_parts(file, strict=False))]
    if len(fitting) != 1:
        found = (
            f"{len(fitting)} files that hold it ({listing(part.place.name for part in fitting)})" if fitting else "none"
        )
        raise BadFile(f"looking for {TITLES[name]} in {place}: {found}", hint="give the file itself")
    return fitting[0]


def folder_part(folder: Path, name: str) -> Part:
    """One part in its own folder of a diffusers layout, with its config.

    Raises:
        BadFile: the config or the weights are missing, or there are several sets of weights.
        BadWeights: the weights are of another part.
    """
    config = folder / "config.json"
    read_json(config)
    file = _weights_in(folder)
    parts = file_parts(file)
    if name not in parts:
        raise BadWeights(f"{file} does not hold {TITLES[name]}, but {holds(parts)}", hint="check the folder")
    return replace(parts[name], config=config)


def file_parts(path: Path, *, strict: bool = True) -> dict[str, Part]:
    """The parts in one file (or in the shards of an index).

    Raises:
        BadWeights: `strict`, and the file holds no part of a model; or a name belongs to none of its parts.
    """
    headers = read_headers(path)
    parts, left = deal(headers)
    if not parts and not strict:
        return {}
    if not parts and is_lora(left):
        raise BadWeights(f"{path} is a LoRA, not a model", hint="give a model, and this file as its LoRA")
    if not parts:
        raise BadWeights(f"{path} is no part of a FLUX.1 model; it holds {listing(left, 4)}", hint="check the file")
    if left:
        raise BadWeights(f"{path} holds {len(left)} tensors of no known part: {listing(left)}", hint="check the file")
    return parts


def read_headers(path: Path) -> tuple[Header, ...]:
    """The headers of one file, or of the shards of an index, with packed tensors as what they stand for.

    Raises:
        BadFile, BadWeights: a file is missing, broken, or something else.
    """
    if path.name.endswith(".index.json"):
        return unpacked(tuple(read_index(path)))
    return unpacked((gguf.read_header(path) if gguf.is_gguf(path) else read_header(path),))


def deal(headers: tuple[Header, ...]) -> tuple[dict[str, Part], list[str]]:
    """The parts in files that belong together, and the names that belong to no part."""
    names = merge(headers)
    formats = recognise(names, FORMATS.values())
    dealt, left = claim(names, formats)
    config = headers[0].path.parent / "config.json"
    parts = {
        name: Part(
            name=name,
            form=form,
            headers=headers,
            names=tuple(dealt[name]),
            config=config if _fits(config, name) else None,
        )
        for name, form in formats.items()
    }
    return parts, sorted(left)


def is_lora(names: Iterable[str]) -> bool:
    """Whether names in a file are those of a LoRA or one of its relatives."""
    return any(key in name for name in names for key in LORA_KEYS)


def holds(parts: Mapping[str, Part]) -> str:
    """What a file with these parts holds, in words."""
    return " and ".join(TITLES[name] for name in PARTS if name in parts)


def _weights_in(folder: Path) -> Path:
    """The one index or file in a part's folder; names without a precision's suffix go first."""
    indexes, files = sorted(folder.glob("*.safetensors.index.json")), sorted(folder.glob("*.safetensors"))
    sets = [*indexes, *(file for file in files if "-of-" not in file.name)]
    plain = [file for file in sets if file.name.split(".", 1)[1] in ("safetensors", "safetensors.index.json")]
    for choice in (plain, sets):
        if len(choice) == 1:
            return choice[0]
    if sets:
        raise BadFile(f"{folder} holds several sets of weights: {listing(file.name for file in sets)}", hint="keep one")
    if files:
        raise BadFile(f"{folder} holds shards ({listing(file.name for file in files)}) without their index", hint=AGAIN)
    pickles = [file.name for file in folder.iterdir() if file.suffix in PICKLES]
    if pickles:
        raise BadFile(f"{folder} holds only pickled weights ({listing(sorted(pickles))})", hint=PICKLED)
    raise BadFile(f"{folder} holds no .safetensors file", hint="download the model again")


def _fits(config: Path, name: str) -> bool:
    """Whether a config.json beside a single file speaks of this part."""
    if not config.is_file():
        return False
    fields = read_json(config)
    wanted = {
        TRANSFORMER: fields.get("_class_name") == "FluxTransformer2DModel",
        AUTOENCODER: fields.get("_class_name") == "AutoencoderKL",
        T5: fields.get("model_type") == "t5",
        CLIP: fields.get("model_type") in ("clip", "clip_text_model"),
    }
    return wanted[name]
