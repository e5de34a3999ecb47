"""`fluxone models convert IN OUT --to LAYOUT`: the same weights in another layout, or in fewer bits."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fluxone.cli import console
from fluxone.cli.pull import Transfer, size

GIVEN = {"vae": "autoencoder", "text_encoder": "clip", "text_encoder_2": "t5"}


@click.command("convert", short_help="Write weights in another layout.")
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="LAYOUT", help="bfl, diffusers, comfy, gguf or fp8.")
@click.option("--dtype", help="bfloat16, float8_e4m3fn ...; for gguf F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0.")
@click.option("--scaled", is_flag=True, help="fp8 with a scale for each weight.")
@click.option("--part", help="What of IN to write: transformer, autoencoder, t5 or clip.")
@click.option("--vae", type=click.Path(path_type=Path), help="The autoencoder, where IN has none.")
@click.option("--text-encoder", type=click.Path(path_type=Path), help="CLIP, where IN has none.")
@click.option("--text-encoder-2", type=click.Path(path_type=Path), help="T5, where IN has none.")
@click.option("--check/--no-check", default=True, help="Read OUT again and hold every number against IN.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--quiet", is_flag=True, help="No progress.")
def convert(
    source: str,
    out: Path,
    to: str,
    dtype: str | None,
    scaled: bool,
    part: str | None,
    vae: Path | None,
    text_encoder: Path | None,
    text_encoder_2: Path | None,
    check: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write IN (a name, hub id, folder or file) as OUT in another layout.

    OUT is whole or not there; memory holds a tensor at a time. A narrow type is for the matrices of the transformer and
    T5, the rest stays as it is. Prints OUT.
    """
    from fluxone.weights.convert import convert as write
    from fluxone.weights.layouts import wanted

    bar = Transfer(sys.stderr, quiet=quiet)
    places = {"vae": vae, "text_encoder": text_encoder, "text_encoder_2": text_encoder_2}
    given = {GIVEN[option]: place.expanduser() for option, place in places.items() if place is not None}
    try:
        want = wanted(to, dtype, scaled=scaled)
        done = write(source, out.expanduser(), want, part=part, given=given, check=check, told=bar)
    finally:
        bar.clear()
    checked = done.checked
    if as_json:
        fields = {"path": str(done.path), "parts": list(done.parts), "bytes": done.size}
        found = None if checked is None else vars(checked)
        console.document({**fields, "left_out": list(done.left_out), "lacking": list(done.lacking), "check": found})
        return
    if not quiet:
        for line in done.left_out:
            console.notice(f"notice: left out: {line}")
        for line in done.lacking:
            console.notice(f"notice: IN comes without {line}; put it into the folder, or give loading its place")
        if checked is not None:
            worst = f"; {checked.rounded} rounded, at most {checked.worst:.2%} of {checked.where}'s largest number"
            rounded = worst if checked.rounded else ""
            console.notice(f"{size(done.size)}, read again: {checked.exact} tensors are equal{rounded}")
    console.result(str(done.path))
