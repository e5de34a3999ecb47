"""Options that several commands share, and how their texts become the fields of `Request` and `Recipe`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxone.errors import BadFile, BadRequest, article, pick
from fluxone.geometry import Resolution
from fluxone.recipe import CACHES, COMPATS, DTYPES, OFFLOADS, PARALLELS, QUANTS
from fluxone.request import EMPHASES, Region
from fluxone.variants import VARIANTS, Kind
from fluxone.weights.shipped import place

if TYPE_CHECKING:
    from PIL.Image import Image

# The names of the tables in fluxone.sampling, which cannot be imported here: it needs torch. A test compares.
SAMPLERS = ("euler", "heun", "midpoint", "dpmpp_2m", "euler_ancestral")
SCHEDULES = ("linear", "shifted", "fixed", "beta", "constant")


class Seed(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A whole number, or `random`."""

    name = "seed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, drawn from the system if `random`."""
        if value == "random":
            import secrets

            return secrets.randbelow(2**32)
        return int(click.INT.convert(value, param, ctx))


DEVICE_HELP = "cpu, cuda, cuda:1, mps; the best there is by default."
DTYPE_HELP = f"{', '.join(DTYPES)}; float32 on a CPU, else bfloat16 by default."
QUANT_HELP = f"{', '.join(QUANTS)}: the transformer's blocks in fewer bits."
CACHE_HELP = f"{', '.join(CACHES)}: guess steps; without, all are computed."
OFFLOAD_HELP = f"{', '.join(OFFLOADS)}: what may wait outside the device."
PARALLEL_HELP = f"{', '.join(PARALLELS)}: what the processes share that torchrun has started."
COMPAT_HELP = f"{', '.join(COMPATS)}: whose rounding and padding to follow."
EMPHASIS_HELP = f"{', '.join(EMPHASES)}: whether (red:1.3) weighs words; auto where a bracket has a number."
REGION_HELP = "Words for where the mask is white, besides the prompt; repeat."
MODEL_HELP = "A name, a hub id, a file or a folder."


def check_model(name: str) -> None:
    """Refuse a bare word that is no model before anything slow is imported.

    Raises:
        UnknownName: it is no row, no hub id, no file and no folder.
    """
    if "/" not in name and not Path(name).exists() and not Path(name).suffix:
        pick(VARIANTS, name, "model")


def model_for(command: str, kind: Kind, shows: str | None = None, *, instead: str | None = None) -> str:
    """The model of a command where none is named: one inside the package that takes what it gives.

    Args:
        shows: what the control picture shows.
        instead: the model that does it in another way, where none takes it.

    Raises:
        BadRequest: there is none; it says which models fit.
    """
    rows = [row for row in VARIANTS.values() if kind in row.takes and (shows is None or shows in row.maps)]
    for row in rows:
        if row.assets and place(row).exists():
            return row.name
    if instead is not None:
        return instead
    what = kind.value if shows is None else f"{kind.value} of {shows}"
    fitting = ", ".join(row.name for row in rows)
    hint = f"add --model with one of {fitting}, or a file of such a model" if rows else "add --model with its file"
    needs = f"{command} needs a model that takes {article(what)} {what}"
    raise BadRequest(f"{needs}, and none comes with fluxone", hint=hint)


def read_prompt(text: str) -> str:
    """The prompt itself; `-` reads it from standard input.

    Raises:
        BadRequest: standard input is not text.
    """
    if text != "-":
        return text
    try:
        return sys.stdin.buffer.read().decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadRequest("standard input is not UTF-8 text", hint="pipe the prompt in as text") from None


def read_resolution(size: str | None, aspect: str | None, megapixels: float | None) -> Resolution | None:
    """The resolution of `--size`, or of `--aspect` and `--megapixels`; None if neither is given.

    Raises:
        BadRequest: the options contradict each other or say no size.
    """
    if size is not None and aspect is not None:
        raise BadRequest("both --size and --aspect are given", hint="drop one of them")
    if aspect is None and megapixels is not None:
        raise BadRequest("--megapixels is given without --aspect", hint="add --aspect 1:1, or use --size")
    if aspect is not None:
        megapixels = 1.0 if megapixels is None else megapixels
        if not 0 < megapixels <= 64:
            raise BadRequest(f"--megapixels is {megapixels:g}", hint="use a number above 0, at most 64")
        return Resolution.from_aspect(aspect, megapixels * 1024 * 1024)
    return None if size is None else Resolution.parse(size)


def read_interval(text: str | None, option: str = "--cfg-interval") -> tuple[float, float]:
    """`0.1:0.8` as two numbers; None is the whole schedule.

    Raises:
        BadRequest: not two numbers.
    """
    if text is None:
        return 0.0, 1.0
    start, _, end = text.partition(":")
    try:
        return float(start), float(end)
    except ValueError:
        raise BadRequest(f"{option} is {text!r}", hint="write START:END, e.g. 0.1:0.8") from None


def read_region(text: str) -> Region:
    """`MASK:PROMPT` as a region; `MASK:STRENGTH:PROMPT` says how strongly it holds.

    Raises:
        BadRequest: there is no colon after the mask.
        BadFile: there is no such mask.
    """
    parts = text.split(":")
    split = next((i for i in range(1, len(parts)) if Path(":".join(parts[:i])).is_file()), 1)
    mask, words = ":".join(parts[:split]), parts[split:]
    if not words:
        raise BadRequest(f"--region is {text!r}", hint="write MASK:PROMPT, e.g. left.png:'a red car'")
    strength = 1.0
    if len(words) > 1 and words[0].replace(".", "", 1).isdecimal():
        strength, words = float(words[0]), words[1:]
    return Region(mask=read_mask(mask), prompt=":".join(words), strength=strength)


def raw_model(name: str) -> str:
    """The model that draws in place of a row of the table for `--raw`; any other name as it is.

    Raises:
        BadRequest: the row has no raw pictures.
    """
    if name not in VARIANTS:
        return name
    if not VARIANTS[name].raw:
        rows = [row.name for row in VARIANTS.values() if row.raw]
        raise BadRequest(f"{name} has no raw pictures", hint=f"models that do: {', '.join(rows)}")
    return VARIANTS[name].raw


def read_image(path: str) -> Image:
    """The picture in the file, upright, as RGB.

    Raises:
        BadFile: there is no file, or no picture in it.
    """
    return _read(path, "RGB")


def read_mask(path: str) -> Image:
    """The mask in the file, upright, as greys: its alpha channel if it is not opaque, else its brightness.

    Raises:
        BadFile: there is no file, or no picture in it.
    """
    whole = _read(path, "RGBA")
    alpha = whole.getchannel("A")
    return whole.convert("L") if alpha.getextrema() == (255, 255) else alpha


def _read(path: str, mode: str) -> Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert(mode)
    except (FileNotFoundError, IsADirectoryError):
        raise BadFile(f"there is no picture file {path}", hint="give the path of a PNG, JPEG or WebP file") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise BadFile(f"{path} cannot be read as a picture: {error}", hint="give a PNG, JPEG or WebP file") from None
