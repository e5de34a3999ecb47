"""Where a picture came from, kept inside its own file, and saving that never leaves half a file.

    Record (request, model, hashes, recipe, version)  --save-->  PNG: text chunks; JPEG, WebP: EXIF UserComment
    file  --read-->  Record  --request_of-->  Request, with which the picture can be made again

Pictures that it was made from are not embedded, only their fingerprints: who wants to replay must bring them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from fluxone import __version__
from fluxone.errors import BadFile, BadRequest, CannotWrite, UnknownName
from fluxone.geometry import Resolution
from fluxone.recipe import Recipe
from fluxone.request import PICTURES, Region, Request

KEY = "fluxone"  # of the PNG text chunk
COMMENT = b"UNICODE\x00"  # EXIF's mark of a UserComment in UTF-16
EXIF_LIMIT = 65_000  # bytes: one JPEG segment holds 65,533
SHORT = 10  # hex digits of a model's hash, as other tools show it
SECRET = {"token", "parallel"}  # fields of the recipe that never leave the machine
SINGLE = ("init", "mask", "control")  # fields that hold one picture
SEVERAL = ("references", "hints", "looks", "image_prompts")  # fields that hold several
ROWS = ("image_prompt_weights", "then")  # fields of the request that are tuples
BESIDE = ("adapters", "controlnets", "ip_adapters", "embeddings")  # fields that name files as `FILE:SCALE`
# Fields that name files on this machine.
PLACES = {"vae", "text_encoder", "text_encoder_2", "image_encoder", "siglip", "decoder", "preview_decoder"}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What made a picture.

    Attributes:
        request: one picture's: count 1 and its own seed, everything resolved.
        init, mask, control: fingerprints of the pictures that it was made from, or None.
        references, hints, looks, image_prompts: their fingerprints; and `regions`, those of the regions' masks.
        hashes: part of the model -> hash of its weights.
        recipe: the fields that are not machine or secret.
    """

    request: Request
    model: str
    init: str | None = None
    mask: str | None = None
    control: str | None = None
    references: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    image_prompts: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    source: str = ""
    hashes: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    version: str = __version__


def record(request: Request, *, model: str, source: str, hashes: Mapping[str, str], recipe: Recipe) -> Record:
    """Describe one picture of a resolved request; `request.count` must be 1."""
    if request.count != 1:
        raise BadRequest(f"the request is for {request.count} pictures", hint="record each with its own seed, count 1")
    if request.wildcards is not None:
        raise BadRequest("the request's choices are not drawn", hint="record what `prompts.settled` makes of it")
    given = {name: getattr(request, name) for name in SINGLE}
    prints: dict[str, Any] = {name: None if image is None else fingerprint(image) for name, image in given.items()}
    prints |= {name: tuple(fingerprint(image) for image in getattr(request, name)) for name in SEVERAL}
    kept = {name: value for name, value in asdict(recipe).items() if name not in SECRET | PLACES}
    for name in BESIDE:
        if files := kept.pop(name):
            kept[name] = [_without_folder(text) for text in files]
    if recipe.redux is not None and Path(recipe.redux).exists():
        del kept["redux"]  # a file or folder of this machine; a name or hub id may be told
    return Record(
        request=replace(_without_pictures(request), regions=_masked(request, ())),
        model=model,
        **prints,
        regions=tuple(fingerprint(region.mask) for region in request.regions if region.mask is not None),
        source=source,
        hashes=dict(hashes),
        recipe=kept,
    )


def _without_pictures(request: Request) -> Request:
    nothing: dict[str, Any] = dict.fromkeys(SINGLE) | dict.fromkeys(SEVERAL, ())
    return replace(request, **nothing)


def _without_folder(adapter: str) -> str:
    """A file's name and scale, as a record may tell them; hub ids and the like are public already."""
    file = adapter if Path(adapter).exists() else adapter.rpartition(":")[0]
    return adapter.removeprefix(f"{Path(file).parent}{os.sep}") if file and Path(file).exists() else adapter


def _masked(request: Request, masks: Sequence[Image.Image]) -> tuple[Region, ...]:
    """The regions of a request with these masks, or without any."""
    return tuple(replace(region, mask=masks[i] if masks else None) for i, region in enumerate(request.regions))


def fingerprint(image: Image.Image) -> str:
    """A hash of a picture's size and RGB values, the same whatever file it came from."""
    pixels = image.convert("RGB")
    return hashlib.sha256(f"{pixels.width}x{pixels.height}".encode() + pixels.tobytes()).hexdigest()


def to_json(entry: Record) -> str:
    """The record as one line of JSON; fields of the request that are None are left out."""
    request: dict[str, Any] = {}
    for item in fields(Request):
        value = getattr(entry.request, item.name)
        if value is not None and item.name not in PICTURES:
            request[item.name] = str(value) if isinstance(value, Resolution) else value
    request["regions"] = [{"prompt": row.prompt, "strength": row.strength} for row in entry.request.regions]
    whole = {
        "fluxone": entry.version,
        "model": entry.model,
        "source": entry.source,
        "hashes": entry.hashes,
        "request": request,
        **{name: getattr(entry, name) for name in PICTURES if name == "init" or getattr(entry, name)},
        **({"regions": entry.regions} if entry.regions else {}),
        "recipe": entry.recipe,
    }
    return json.dumps(whole, ensure_ascii=False)


def from_json(text: str) -> Record:
    """Read a record back.

    Raises:
        BadFile: it is no record of ours, or its request is not one that can be made.
    """
    try:
        whole = json.loads(text)
        known = {item.name for item in fields(Request)} - set(PICTURES)
        wanted = {name: value for name, value in whole["request"].items() if name in known}
        for name in ("sigmas", "cfg_interval", "expand", "hint_scales", "hint_modes", "hint_range", *ROWS):
            if name in wanted:
                wanted[name] = tuple(wanted[name])
        if wanted.get("adapters") is not None:
            wanted["adapters"] = tuple((name, scale) for name, scale in wanted["adapters"])
        if "regions" in wanted:
            wanted["regions"] = tuple(Region(**row) for row in wanted["regions"])
        for name in ("resolution", "frame"):
            if name in wanted:
                wanted[name] = Resolution.parse(wanted[name])
        given: dict[str, Any] = {name: whole.get(name) for name in SINGLE}
        given |= {name: tuple(whole.get(name, ())) for name in (*SEVERAL, "regions")}
        hashes = dict(whole.get("hashes", {}))
        said = [*hashes.values(), *(text for name in (*SEVERAL, "regions") for text in given[name])]
        if not all(isinstance(text, str) for text in [*said, *(given[name] or "" for name in SINGLE)]):
            raise TypeError("a hash is no text")
        return Record(
            request=Request(**wanted),
            model=str(whole["model"]),
            **given,
            source=str(whole.get("source", "")),
            hashes=hashes,
            recipe=dict(whole.get("recipe", {})),
            version=str(whole["fluxone"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadRequest, UnknownName) as error:
        raise BadFile(f"the picture's metadata cannot be read: {error}") from error


def parameters(entry: Record) -> str:
    """The same in the words that other tools show: prompt, negative prompt, then one line of settings."""
    request = entry.request
    settings = {
        "Steps": request.steps,
        "Sampler": request.sampler,
        "Schedule type": request.schedule,
        "CFG scale": request.cfg,
        "Distilled CFG Scale": request.guidance,
        "Seed": request.seed,
        "Size": request.resolution,
        "Model": entry.model,
        "Model hash": entry.hashes.get("transformer", "").rpartition(":")[2][:SHORT] or None,
        "Denoising strength": None if entry.init is None else request.strength,
        "Version": f"fluxone {entry.version}",
    }
    lines = [request.prompt]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None))
    return "\n".join(lines)


def read(path: str | Path) -> Record:
    """Read the record out of a picture.

    Raises:
        BadFile: no such file, no picture, or a picture without a record of ours.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # Pillow warns of what is broken and goes on
            text = image.info.get(KEY) or _comment(image.getexif())
    except FileNotFoundError:
        raise BadFile(f"there is no file {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFile(f"{path} is no picture that can be read: {error}") from error
    if not text:
        raise BadFile(f"{path} carries no record of fluxone", hint="other tools and many web sites strip metadata")
    return from_json(text)


def request_of(  # noqa: PLR0913
    path: str | Path,
    *,
    init: Image.Image | None = None,
    mask: Image.Image | None = None,
    control: Image.Image | None = None,
    references: Sequence[Image.Image] = (),
    hints: Sequence[Image.Image] = (),
    looks: Sequence[Image.Image] = (),
    image_prompts: Sequence[Image.Image] = (),
    regions: Sequence[Image.Image] = (),
) -> Request:
    """The request that made a picture.

    Raises:
        BadFile: see `read`; or the picture was made from others, and one of them is missing or not that one.
    """
    entry = read(path)
    single: dict[str, Any] = {"init": init, "mask": mask, "control": control}
    for name, image in single.items():
        _same(path, name, getattr(entry, name), image)
    rows = (references, hints, looks, image_prompts)
    several: dict[str, Any] = {name: tuple(images) for name, images in zip(SEVERAL, rows, strict=True)}
    for name, images in (*several.items(), ("regions", regions)):
        prints: tuple[str, ...] = getattr(entry, name)
        if len(prints) != len(images):
            raise BadFile(
                f"{path} was made from {len(prints)} {name}, {len(images)} are given",
                hint="give them all, in their order",
            )
        for print_, image in zip(prints, images, strict=True):
            _same(path, name, print_, image)
    return replace(entry.request, **single, **several, regions=_masked(entry.request, regions))


def _same(path: str | Path, name: str, wanted: str | None, image: Image.Image | None) -> None:
    if wanted is not None and image is None:
        raise BadFile(
            f"{path} was made from another picture, which is not inside it", hint=f"give that picture too, as {name}"
        )
    if image is not None and wanted != fingerprint(image):
        raise BadFile(
            f"{path} was not made from the picture that was given as {name}",
            hint="leave it out" if wanted is None else "give the one it was made from",
        )


def save(image: Image.Image, path: str | Path, entry: Record | None = None, *, quality: int = 95) -> Path:
    """Save a picture with its record: wholly, or not at all. The suffix chooses PNG, JPEG or WebP.

    Args:
        quality: of JPEG and WebP, 1 to 100; a WebP of 100 is lossless.

    Raises:
        CannotWrite: full disk, unwritable folder, unknown suffix, or a record too long for the format.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in WRITERS:
        raise CannotWrite(f"{target.name} ends in {suffix!r}", hint=f"use one of {', '.join(sorted(WRITERS))}")
    write_whole(target, WRITERS[suffix](image.convert("RGB"), entry, quality))
    return target


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name in its folder and rename it, so that no reader ever sees half of it.

    Raises:
        CannotWrite: the folder is missing or not writable, the disk is full, or the name is taken by a folder.
    """
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        known = error.errno is not None and error.errno in REASONS
        reason, hint = REASONS[error.errno] if known else (error.strerror or str(error), None)  # type: ignore[index]
        raise CannotWrite(f"cannot save {path}: {reason}", hint=hint) from error


def _png(image: Image.Image, entry: Record | None, quality: int) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    if entry is not None:
        chunks.add_itxt("parameters", parameters(entry))
        chunks.add_itxt(KEY, to_json(entry))
        chunks.add_text("Software", _software(entry))
    return _bytes(lambda file: image.save(file, "PNG", pnginfo=chunks))


def _jpeg(image: Image.Image, entry: Record | None, quality: int) -> bytes:
    exif = _exif(entry)
    if len(exif) > EXIF_LIMIT:
        raise CannotWrite(
            f"the record is {len(exif)} bytes long, a JPEG holds {EXIF_LIMIT}", hint="save as PNG or WebP, or say less"
        )
    return _bytes(lambda file: image.save(file, "JPEG", quality=quality, subsampling=0, exif=exif))


def _webp(image: Image.Image, entry: Record | None, quality: int) -> bytes:
    exif = _exif(entry)
    return _bytes(lambda file: image.save(file, "WEBP", quality=quality, lossless=quality == 100, exif=exif))


def _exif(entry: Record | None) -> bytes:
    exif = Image.Exif()
    if entry is not None:
        exif[ExifTags.Base.Software] = _software(entry)
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = COMMENT + to_json(entry).encode("utf-16-be")
    return exif.tobytes()


def _comment(exif: Image.Exif) -> str | None:
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if not isinstance(comment, bytes) or not comment.startswith(COMMENT):
        return None
    return comment[len(COMMENT) :].decode("utf-16-be", errors="replace")


def _software(entry: Record) -> str:
    return f"fluxone {entry.version} (AI generated)"


def _bytes(write: Callable[[io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


Writer = Callable[[Image.Image, Record | None, int], bytes]
WRITERS: dict[str, Writer] = {".png": _png, ".jpg": _jpeg, ".jpeg": _jpeg, ".webp": _webp}
REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space, or save elsewhere"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or save elsewhere"),
    errno.EFBIG: ("the file is larger than allowed here", "save elsewhere"),
    errno.EACCES: ("the folder is not writable", "choose another folder"),
    errno.EPERM: ("the folder is not writable", "choose another folder"),
    errno.EROFS: ("the disk is read-only", "choose another folder"),
    errno.ENOENT: ("there is no such folder", "make it first"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another folder"),
    errno.EISDIR: ("there is a folder of that name", "choose another name"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
}
