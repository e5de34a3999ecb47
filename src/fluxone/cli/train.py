"""`fluxone train CONFIG.toml`: train what the recipe says. `fluxone train character FOLDER`: fine-tune on pictures."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import click

from fluxone.cli import captions, console, finetune, options
from fluxone.errors import BadRequest


@click.command("train", short_help="Train a model from a recipe, or fine-tune one on pictures.")
@click.argument("what", metavar="CONFIG.toml|lora|character|style|product|captions")
@click.argument("folder", metavar="[FOLDER]", required=False)
@click.option("--model", default="mini", show_default=True, help=options.MODEL_HELP)
@click.option("--name", default="", metavar="WORD", help="What it is called in prompts and captions.")
@click.option("--class", "class_word", default="", metavar="WORDS", help="What kind of thing it is, such as girl.")
@click.option("--steps", type=int, metavar="N", help="Default: by the number of pictures.")
@click.option("--rank", type=int, metavar="R", help="Of the adapter.")
@click.option("--kind", metavar="NAME", help="lora, lokr, dora or full.")
@click.option("--targets", metavar="NAME,...", help="Presets and patterns of layers; ! takes out.")
@click.option("--rate", type=float, metavar="X", help="Learning rate.")
@click.option("--optimizer", metavar="NAME", help="adamw, adamw8bit, prodigy, schedule-free or muon.")
@click.option("--size", type=int, metavar="PX", help="Of the square whose area pictures are brought to.")
@click.option("--preserve", metavar="NAME", help="What must stay as it is: none, blank, class, other or pictures.")
@click.option("--seed", type=int, metavar="N", help="Of everything that is drawn by chance.")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Drawn at each look as well; repeat.")
@click.option("--logo", metavar="FILE", help="A picture of a logo, looked for in what is drawn.")
@click.option("--from", "start", metavar="FILE", help="An adapter to go on from.")
@click.option("-o", "--out", metavar="DIR", help="Default: runs/FOLDER's name.")
@click.option("--device", metavar="NAME", help=options.DEVICE_HELP)
@click.option("--dtype", metavar="NAME", help=options.DTYPE_HELP)
@click.option("--quant", metavar="NAME", help=options.QUANT_HELP)
@click.option("--offload", default="none", metavar="NAME", help=options.OFFLOAD_HELP)
@click.option("--vram", type=float, metavar="GIB", help="Choose what fits: 24, 16, 12, 8.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--fresh", is_flag=True, help="Forget what the folder's run has done.")
@click.option("--reader", metavar="DIR", help="captions: a vision-language model that looks at the pictures.")
@click.option("--style", is_flag=True, help="captions: the name is of a style, and stands at their end.")
@click.option("--force", is_flag=True, help="captions: write over those that are there.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other setting; may be repeated.")
@click.option("--quiet", is_flag=True, help="Nothing on standard error but errors.")
def command(
    what: str, folder: str | None, model: str, name: str, class_word: str, steps: int | None, rank: int | None,
    kind: str | None, targets: str | None, rate: float | None, optimizer: str | None, size: int | None,
    preserve: str | None, seed: int | None, prompts: tuple[str, ...], start: str | None, out: str | None,
    device: str | None, dtype: str | None, quant: str | None, offload: str, vram: float | None, dry_run: bool,
    fresh: bool, reader: str | None, style: bool, force: bool, settings: tuple[str, ...], quiet: bool,
    logo: str | None,
) -> None:  # fmt: skip
    """Train what CONFIG.toml describes, and print the run's folder; or fine-tune on the pictures of FOLDER.

    lora, character, style and product write an adapter in two key styles and a report into DIR. A run that was
    interrupted goes on from its last checkpoint, exactly as if it had not been. captions writes a .txt beside each
    picture of FOLDER that has none: storybook pictures are described by the package's own judge, others by --reader.
    """
    more = read_settings(settings)
    console.listen(quiet=quiet)
    if what == captions.WHAT:
        if folder is None:
            raise BadRequest("train captions has no folder", hint="fluxone train captions FOLDER")
        named = {"name": name.strip(), "class_word": class_word.strip(), "style": style}
        captions.go(Path(folder), named, reader=reader, device=device, force=force, dry_run=dry_run)
        return
    if reader is not None or style or force:
        raise BadRequest("--reader, --style and --force belong to train captions", hint="take them out")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve whoever else is on the machine
    if what not in finetune.WHAT:
        _recipe(what, folder, more, quiet)
        return
    if folder is None:
        raise BadRequest(f"train {what} has no folder", hint=f"fluxone train {what} FOLDER")
    options.check_model(model)
    chosen = {
        "steps": steps, "rank": rank, "kind": kind, "rate": rate, "optimizer": optimizer, "size": size,
        "preserve": preserve, "seed": seed, "targets": None if targets is None else tuple(targets.split(",")),
    }  # fmt: skip
    asked = finetune.Asked(
        what=what,
        folder=Path(folder),
        out=Path(out) if out else Path("runs") / (Path(folder).resolve().name or what),
        model=model,
        name=name.strip(),
        class_word=class_word.strip(),
        given={key: value for key, value in chosen.items() if value is not None} | more,
        recipe={"device": device, "dtype": dtype, "quant": quant, "offload": offload},
        vram=vram,
        start=start,
        prompts=prompts,
        fresh=fresh,
        logo=None if logo is None else Path(logo),
    )
    finetune.go(asked, dry_run=dry_run, quiet=quiet)


def _recipe(config: str, folder: str | None, overrides: dict[str, Any], quiet: bool) -> None:
    if folder is not None:
        words = ", ".join((*finetune.WHAT, captions.WHAT))
        raise BadRequest(f"{config!r} with a folder is nothing that can be trained", hint=f"use one of {words}")
    from fluxone.train.run import train

    done = train(Path(config), overrides=overrides, report=_silence if quiet else console.notice)
    console.result(str(done))


def read_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`steps=20` and `out="runs/a"` as TOML has them; a bare word is text.

    Raises:
        BadRequest: no `=`.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise BadRequest(f"--set is {setting!r}", hint="write KEY=VALUE, e.g. --set steps=200")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text
    return values


def _silence(line: str) -> None:
    """Say nothing."""
