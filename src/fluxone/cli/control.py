"""`fluxone control`: a picture that follows the edges or depths of another."""

from __future__ import annotations

from dataclasses import replace

import click

from fluxone.cli import options
from fluxone.cli.generate import Asked, generate, shared
from fluxone.errors import BadRequest, pick
from fluxone.request import Request

# kind of picture -> what finds it in another; None: a picture of it must be given
KINDS: dict[str, str | None] = {"canny": "canny", "depth": None}

HELP = """Draw PROMPT along the edges (canny) or depths (depth) of IMAGE.

Edges are found in IMAGE, unless --map says that it shows them already; this needs the control extra. Depths must
be given: a picture whose nearest points are white.

\b
fluxone control canny --model canny photo.jpg "a house of glass"
fluxone control depth --model depth depths.png "a cave" --map
"""


def control(kind: str, image: str, asked: Asked, *, is_map: bool) -> None:
    """Make the pictures.

    Raises:
        FluxoneError: whatever stands in the way.
    """
    detector = pick(KINDS, kind, "kind of control")
    if detector is None and not is_map:
        raise BadRequest(f"no {kind} is found in pictures", hint="give a picture of it, with --map")

    def given(request: Request) -> Request:
        return replace(request, control=options.read_image(image), detector=None if is_map else detector)

    generate(asked, given)


OPTIONS: list[click.Parameter] = [
    click.Argument(["kind"], metavar="canny|depth"),
    click.Argument(["image"]),
    click.Argument(["prompt"]),
    click.Option(["--model"], required=True, help=options.MODEL_HELP),
    click.Option(["--map", "is_map"], is_flag=True, help="IMAGE shows the edges or depths themselves."),
    *shared("model", "strength"),
]

command = click.Command(
    "control",
    params=OPTIONS,
    callback=lambda kind, image, is_map, **rest: control(kind, image, Asked(**rest), is_map=is_map),
    short_help="A picture along another's edges or depths.",
    help=HELP,
)
