"""`fluxone ultra`: words to pictures of four times the model's own area (FLUX.1: 4 megapixels), in two passes."""

from __future__ import annotations

from dataclasses import replace

import click

from fluxone.cli.generate import Asked, generate, shared
from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.request import ULTRAS

ASPECT = "16:9"
WIDEST = 21 / 9  # and 9:21 the tallest, as the BFL API has it

HELP = """Make a large picture of PROMPT: drawn at the model's own size, enlarged, and drawn again with its details.

\b
fluxone ultra "a red car to the left of a house in the snow" --aspect 1:1
fluxone ultra --model dev "a street in the rain" --aspect 21:9 --raw
"""


def ultra(asked: Asked) -> None:
    """Make the large pictures.

    Raises:
        FluxoneError: whatever stands in the way.
    """
    if asked.size is None:
        asked = replace(asked, aspect=asked.aspect or ASPECT)
        shape = Resolution.from_aspect(asked.aspect or ASPECT, 1024**2)
        across, down = (float(side) for side in (asked.aspect or ASPECT).split(":"))
        if not 1 / WIDEST - 1e-6 <= across / down <= WIDEST + 1e-6:
            raise BadRequest(f"--aspect is {asked.aspect}, {shape}", hint="use 21:9 to 9:21")
    generate(asked)


DETAIL = "How much of the enlarged picture is drawn anew, 0 to 1. Default: the model's own."
OPTIONS: list[click.Parameter] = [
    click.Argument(["prompt"]),
    click.Option(["--aspect"], metavar="W:H", help=f"21:9 to 9:21. Default: {ASPECT}."),
    click.Option(["--size"], metavar="WxH", help="Of the large picture, in place of --aspect."),
    click.Option(["--pass", "ultra"], default="tiled", show_default=True, metavar="NAME", help=f"{', '.join(ULTRAS)}."),
    click.Option(["--detail", "ultra_strength"], type=float, help=DETAIL),
    *shared("aspect", "size", "megapixels", "strength"),
]

command = click.Command(
    "ultra",
    params=OPTIONS,
    callback=lambda **given: ultra(Asked(**given)),
    short_help="A picture of 4 megapixels.",
    help=HELP,
)
