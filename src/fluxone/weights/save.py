"""From networks to files: a model's folder in the diffusers layout, all of it or nothing.

The folder is written beside its place under a temporary name and renamed when it is complete. The same model
gives the same bytes.
"""

from __future__ import annotations

import errno
import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fluxone.errors import BadFile, BadWeights, CannotWrite
from fluxone.variants import Variant
from fluxone.weights import configs
from fluxone.weights.formats import autoencoder as autoencoder_names
from fluxone.weights.formats import encoders
from fluxone.weights.formats import transformer as transformer_names
from fluxone.weights.keymap import AUTOENCODER, CLIP, T5, TRANSFORMER, Change, Format, lengths, spread
from fluxone.weights.locate import INDEX, SCHEDULER, TOKENIZERS
from fluxone.weights.mapped import CODES
from fluxone.weights.parts import FOLDERS
from fluxone.weights.safetensors import Outline, write

if TYPE_CHECKING:
    from fluxone.nn.autoencoder import AutoEncoder
    from fluxone.nn.clip import ClipTextEncoder
    from fluxone.nn.t5 import T5Encoder
    from fluxone.nn.transformer import Flux

DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"
TRANSFORMERS_FILE = "model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERIC = "PreTrainedTokenizerFast"  # of a tokenizer.json that is neither CLIP's kind nor T5's, in which others look
WORDS, SHARDS = (".json", ".txt", ".model", ".jinja"), ".safetensors.index.json"
METADATA = {"format": "pt"}  # diffusers and transformers insist on it
CLASSES = {
    "transformer": ["diffusers", configs.TRANSFORMER_CLASS],
    "vae": ["diffusers", configs.AUTOENCODER_CLASS],
    "scheduler": ["diffusers", configs.SCHEDULER_CLASS],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
}


def save_folder(
    path: Path | str,
    *,
    variant: Variant,
    transformer: Flux,
    autoencoder: AutoEncoder,
    t5: T5Encoder | None,
    clip: ClipTextEncoder | None,
    tokenizers: Mapping[str, Path],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a folder that diffusers' FluxPipeline and `load_bundle` load; replace an older model there.

    Args:
        tokenizers: `tokenizer` (CLIP's) and `tokenizer_2` (T5's): folders whose files are copied.
        dtype: what floating-point tensors become; None keeps each as it is.

    Raises:
        CannotWrite: the disk is full, the folder is not writable, or it holds something else than a model.
        BadWeights: the layout cannot say what the network is.
        BadFile: a tokenizer's folder is not there.
    """
    for name, source in tokenizers.items():
        assert name in TOKENIZERS.values(), f"{name!r} is no tokenizer's folder"
        if not Path(source).is_dir():
            raise BadFile(f"{source}, the {name} to save, is no folder", hint="give the folder with its files")
    parts: dict[str, tuple[Mapping[str, Any], list[Outline]]] = {
        TRANSFORMER: (
            configs.write_flux(replace(transformer.shape, in_channels=transformer.img_in.in_features)),
            _outlines(transformer, transformer_names.DIFFUSERS, dtype),
        ),
        AUTOENCODER: (
            configs.write_autoencoder(autoencoder.shape, variant.size),
            _outlines(autoencoder, autoencoder_names.DIFFUSERS, dtype),
        ),
    }
    if t5 is not None:
        parts[T5] = (configs.write_t5(t5.shape), _outlines(t5, encoders.T5_NATIVE, dtype))
    if clip is not None:
        parts[CLIP] = (configs.write_clip(clip.shape), _outlines(clip, encoders.CLIP_NATIVE, dtype))
    write_folder(path, variant=variant, parts=parts, tokenizers=tokenizers)


def write_folder(
    path: Path | str,
    *,
    variant: Variant,
    parts: Mapping[str, tuple[Mapping[str, Any], Iterable[Outline]]],
    tokenizers: Mapping[str, Path],
    check: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write a model's folder of parts: each a config and the tensors to be written.

    Args:
        tokenizers: name of the folder -> folder whose files are copied.
        check: called with the folder before it takes its place; what it raises keeps it from there.

    Raises:
        CannotWrite: the disk is full, the folder is not writable, or it holds something else than a model.
    """
    with _whole_folder(Path(path)) as folder:
        for name, (config, outlines) in parts.items():
            place = folder / FOLDERS[name]
            place.mkdir()
            _json(place / "config.json", config)
            file = DIFFUSERS_FILE if "_class_name" in config else TRANSFORMERS_FILE
            write(place / file, outlines, METADATA)
        for name, source in tokenizers.items():
            _copy_words(source, folder / name)
        _json(folder / SCHEDULER, configs.write_scheduler(variant))
        present = {name: _class_of(folder / name, value) for name, value in CLASSES.items()}
        _json(folder / INDEX, {"_class_name": variant.pipeline, **present})
        check(folder)


def _copy_words(source: Path, place: Path) -> None:
    """Copy a tokenizer's own files: its folder may be that of an encoder, weights and all."""
    place.mkdir()
    for file in sorted(source.iterdir()):
        if file.suffix in WORDS and file.is_file() and not file.name.endswith(SHARDS):
            shutil.copyfile(file, place / file.name)


def save_file(
    path: Path | str, tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None = None, metadata: Mapping[str, str]
) -> None:
    """Write tensors to one safetensors file, whole or not at all.

    Raises:
        CannotWrite: the disk is full, or the place is not writable.
        BadWeights: a tensor's type cannot be stored.
    """
    with whole_file(Path(path)) as part:
        write(part, [_outline(name, tensor, dtype) for name, tensor in tensors.items()], metadata)


@contextmanager
def whole_file(path: Path, *, parents: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Args:
        parents: make the folders above it.

    Raises:
        CannotWrite: the disk is full, or the place is not writable.
    """
    part = _beside(path)
    with _told(path):
        try:
            if parents:
                path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def in_format(state: Mapping[str, Tensor], form: Format) -> dict[str, Tensor]:
    """A network's tensors under a format's names: fused ones cut to views, others moved as its rows say.

    Raises:
        BadWeights: the format has no place for a name.
    """
    width = state[form.width].shape[0] if form.width else 0
    out: dict[str, Tensor] = {}
    for native, way in spread(state, form).items():
        tensor = state[native]
        if way.change is Change.SWAP:
            tensor = torch.cat(tuple(reversed(tensor.chunk(2))))
        elif way.change is Change.FLAT and tensor.ndim == 4:
            tensor = tensor.flatten(1)
        sizes = lengths(tensor.shape[0], len(way.names), width)
        pieces = torch.split(tensor, sizes) if len(sizes) > 1 else (tensor,)
        out |= dict(zip(way.names, pieces, strict=True))
    return out


def _outlines(module: nn.Module, form: Format, dtype: torch.dtype | None) -> list[Outline]:
    return [_outline(key, tensor, dtype) for key, tensor in in_format(module.state_dict(), form).items()]


def _outline(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Outline:
    kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if kind not in CODES:
        raise BadWeights(f"{name} is {kind}", hint="safetensors has no such type: give a dtype")

    def content() -> bytes:
        plain = tensor.detach().to(device="cpu", dtype=kind).contiguous()
        return plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""

    return Outline(name=name, dtype=CODES[kind], shape=tuple(tensor.shape), content=content)


def _class_of(folder: Path, usual: list[str]) -> list[str] | list[None]:
    """What an index says of a part's folder: nothing if it is not there, of a tokenizer what its own config says."""
    if not folder.is_dir():
        return [None, None]
    config = folder / TOKENIZER_CONFIG
    own = json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class") if config.is_file() else None
    return ["transformers", GENERIC] if own == GENERIC else usual


def _json(path: Path, fields: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    if path.exists() and not (path / INDEX).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise CannotWrite(f"{path} is there already and holds no model", hint="give another folder, or an empty one")
    part, old = _beside(path), _beside(path)
    with _told(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()
            yield part
            if path.exists():
                path.rename(old)
            part.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name beside `path` that nothing has, not even what a killed process left."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn the system's refusals into a sentence."""
    try:
        yield
    except OSError as error:
        hints = {errno.ENOSPC: "make room on the disk", errno.EDQUOT: "make room in your quota"}
        hint = hints.get(error.errno or 0, "check the folder and its rights")
        raise CannotWrite(f"{path} cannot be saved: {error.strerror or error}", hint=hint) from None
