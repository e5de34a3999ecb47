"""`fluxone models quantize MODEL OUT`: a model's transformer or T5 encoder in fewer bits, as one file."""

from __future__ import annotations

from pathlib import Path

import click

from fluxone.cli import console, options
from fluxone.errors import CannotWrite, MissingParts, pick
from fluxone.recipe import QUANTS, Recipe

PARTS = ("transformer", "t5")


@click.command("quantize", short_help="Write a model's transformer in fewer bits.")
@click.argument("model")
@click.argument("out", metavar="OUT")
@click.option("--quant", required=True, metavar="NAME", help=options.QUANT_HELP)
@click.option("--part", type=click.Choice(PARTS), default="transformer", show_default=True, help="What is written.")
@click.option("--dtype", default="bfloat16", show_default=True, metavar="NAME", help="Of what is not packed.")
@click.option("--quiet", is_flag=True, help="Nothing on standard error but errors.")
def quantize(model: str, out: str, quant: str, part: str, dtype: str, quiet: bool) -> None:
    """Pack the blocks of MODEL's transformer and write them to OUT, a .safetensors file; prints its path."""
    console.listen(quiet=quiet)
    pick(QUANTS, quant, "quantization")
    path = Path(out)
    if path.suffix != ".safetensors" or path.exists():
        why = "is there already" if path.exists() else "does not end in .safetensors"
        raise CannotWrite(f"{path} {why}", hint="give another name")
    transformer = part == PARTS[0]
    recipe = Recipe(
        device="cpu", dtype=dtype, quant=quant if transformer else None, quant_t5=None if transformer else quant
    )
    from fluxone.assembly import assemble
    from fluxone.quant.apply import save

    bundle = assemble(model, recipe).bundle
    network = bundle.transformer if transformer else bundle.t5
    if network is None:
        raise MissingParts(f"{model} has no T5 encoder", hint="give a model that has one")
    save(network, path, part=part)
    console.result(str(path))
