"""`fluxone replay IMAGE`: make a picture again from its own metadata, and compare."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxone.cli import console, options
from fluxone.cli.beside import FILES, PICTURES, Beside
from fluxone.errors import BadRequest
from fluxone.recipe import Recipe
from fluxone.variants import VARIANTS

if TYPE_CHECKING:
    from fluxone.provenance import Record

EQUAL, DIFFERENT = 0, 1


@click.command("replay", short_help="Make a picture again and compare.")
@click.argument("image")
@click.option("--init", metavar="IMAGE", help="The picture it started from, if it did.")
@click.option("--mask", metavar="IMAGE", help="The mask, if it had one.")
@click.option("--control", metavar="IMAGE", help="The picture of edges or depths, or the one they were found in.")
@click.option("--reference", "references", metavar="IMAGE", multiple=True, help="A reference; give all, in order.")
@click.option("--image-prompt", "image_prompts", metavar="IMAGE", multiple=True, help="One it varies; give all.")
@click.option("--redux", metavar="FILE", help="Where that which makes words of images lies now, if it is a file.")
@click.option("--siglip", metavar="FILE", help="Its SigLIP, where it comes without.")
@click.option("--region", "regions", metavar="MASK", multiple=True, help="The mask of a region; give all, in order.")
@click.option("--lora", "loras", metavar="FILE[:SCALE]", multiple=True, help="Its adapters where they lie now, all.")
@click.option("--model", metavar="NAME", help="In place of the one that the record names.")
@click.option("--tolerance", type=click.IntRange(0, 255), default=0, show_default=True, help="Difference that is fine.")
@click.option("--device", metavar="NAME", help=options.DEVICE_HELP)
@click.option("--offload", default="none", metavar="NAME", help=options.OFFLOAD_HELP)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--quiet", is_flag=True, help="Nothing on standard error but errors.")
def command(
    image: str,
    init: str | None,
    mask: str | None,
    control: str | None,
    references: tuple[str, ...],
    image_prompts: tuple[str, ...],
    redux: str | None,
    siglip: str | None,
    regions: tuple[str, ...],
    loras: tuple[str, ...],
    controlnets: tuple[str, ...],
    control_images: tuple[str, ...],
    ip_adapters: tuple[str, ...],
    ip_images: tuple[str, ...],
    image_encoder: str | None,
    embeddings: tuple[str, ...],
    decoder: str | None,
    model: str | None,
    tolerance: int,
    device: str | None,
    offload: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Make IMAGE again from the record in its metadata, and report the largest difference of a pixel, 0 to 255.

    The picture made again goes through the same file format. Exit code 0: no pixel differs by more than
    the tolerance; 1: some do; 2: there is no record.
    """
    from fluxone import provenance

    console.listen(quiet=quiet)
    path = Path(image)
    entry = provenance.read(path)
    options.read_image(image)  # a picture that was cut has its record, but cannot be compared: said before the work
    single = {"init": init, "mask": mask, "control": control}
    readers = {"mask": options.read_mask}
    given: dict[str, Any] = {
        role: None if file is None else readers.get(role, options.read_image)(file) for role, file in single.items()
    }
    several = {"references": references, "hints": control_images, "looks": ip_images, "image_prompts": image_prompts}
    pictures: dict[str, Any] = {role: [options.read_image(file) for file in files] for role, files in several.items()}
    pictures["regions"] = [options.read_mask(file) for file in regions]
    request = provenance.request_of(path, **given, **pictures)
    name = model or entry.source or entry.model
    from fluxone.assembly import assemble
    from fluxone.cli.generate import make

    if not quiet:
        console.notice(f"loading {name}")
    variant = entry.model if model is None and entry.model in VARIANTS else None
    recipe = recipe_of(entry, device=device, offload=offload, loras=loras)
    asked = Beside(
        controlnets=controlnets,
        ip_adapters=ip_adapters,
        image_encoder=image_encoder,
        embeddings=embeddings,
        decoder=decoder,
    )
    recipe = replace(recipe, **{name: files for name, files in asked.of_recipe().items() if files})
    recipe = replace(recipe, redux=redux or recipe.redux, siglip=siglip)
    pipeline = assemble(name, recipe, variant=variant)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / f"again{path.suffix}"
        make(pipeline, pipeline.resolve(request), again, preview=False, quiet=quiet)
        if pipeline.hashes != entry.hashes:  # after it is drawn: some parts are loaded when they are first used
            console.notice("notice: the model's weights are not the ones that made this picture")
        largest, pixels = difference(path, again)
    if as_json:
        equal = largest <= tolerance
        console.document({"image": image, "equal": equal, "largest_difference": largest, "pixels_that_differ": pixels})
    else:
        console.result(f"largest difference {largest} of 255, {pixels} pixels differ")
    return EQUAL if largest <= tolerance else DIFFERENT


command.params[5:5] = [*FILES, *PICTURES]


def recipe_of(entry: Record, *, device: str | None, offload: str, loras: tuple[str, ...] = ()) -> Recipe:
    """The recipe of the record, as far as this version knows its fields, on this machine's device.

    Args:
        loras: in place of the record's, which names files without their folders.

    Raises:
        BadRequest: a file of the record's adapters is not here.
    """
    from fluxone.lora.strength import read_strength
    from fluxone.provenance import PLACES, SECRET

    known = {field.name for field in fields(Recipe)} - PLACES - SECRET
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.recipe.items()}
    kept: dict[str, Any] = {name: value for name, value in lists.items() if name in known}
    adapters = loras or kept.get("adapters", ())
    for adapter in adapters if not loras else ():
        place = read_strength(adapter)[0]
        if place.endswith(".safetensors") and "/" not in place and not Path(place).is_file():
            asked = " ".join(f"--lora FOLDER/{each}" for each in adapters)
            raise BadRequest(f"the adapter {place} is not in this folder", hint=f"say where each lies now: {asked}")
    return Recipe(**{**kept, "device": device, "offload": offload, "adapters": adapters})


def difference(one: Path, other: Path) -> tuple[int, int]:
    """The largest difference of a channel's value, and how many pixels differ at all.

    Raises:
        BadRequest: the pictures have different sizes.
    """
    import numpy as np
    from PIL import Image

    arrays = []
    for path in (one, other):
        with Image.open(path) as picture:
            arrays.append(np.asarray(picture.convert("RGB"), dtype=np.int16))
    first, second = arrays
    if first.shape != second.shape:
        sizes = [f"{a.shape[1]}x{a.shape[0]}" for a in arrays]
        raise BadRequest(f"{one} is {sizes[0]}, made again it is {sizes[1]}", hint="it was resized after it was made")
    gaps = np.abs(first - second)
    return int(gaps.max()), int((gaps.max(axis=2) > 0).sum())
