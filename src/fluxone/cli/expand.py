"""`fluxone expand`: draw what lies beyond a picture's borders."""

from __future__ import annotations

from dataclasses import replace

import click

from fluxone.cli import options
from fluxone.cli.generate import Asked, generate, shared
from fluxone.errors import BadRequest
from fluxone.request import Request
from fluxone.variants import Kind

OVERLAP = 16  # px

HELP = """Draw what lies beyond the borders of IMAGE. Its own pixels stay, but for a seam along the new ones.

\b
fluxone expand house.png "a house in the snow" --left 64 --right 64
fluxone expand --model fill house.png --top 256
"""


def expand(image: str, asked: Asked, *, margins: tuple[int, int, int, int], overlap: int) -> None:
    """Make the expanded pictures.

    Args:
        margins: left, right, top, bottom, px.

    Raises:
        FluxoneError: whatever stands in the way.
    """
    if not any(margins):
        raise BadRequest("nothing is to be added", hint="give --left, --right, --top or --bottom")

    def given(request: Request) -> Request:
        return replace(request, init=options.read_image(image), strength=1.0, expand=margins, paste=overlap)

    generate(asked, given)


OPTIONS: list[click.Parameter] = [
    click.Argument(["image"]),
    click.Argument(["prompt"], required=False, default=""),
    *(
        click.Option([f"--{side}"], type=int, default=0, metavar="PX", help="To be added there.")
        for side in ("left", "right", "top", "bottom")
    ),
    click.Option(["--overlap"], type=int, default=OVERLAP, show_default=True, help="Px of seam in the old picture."),
    click.Option(["--model"], help=options.MODEL_HELP),
    *shared("model", "strength", "size", "aspect", "megapixels"),
]


def _called(
    image: str, model: str | None, left: int, right: int, top: int, bottom: int, overlap: int, **rest: object
) -> None:
    asked = Asked(model=model or options.model_for("expand", Kind.FILL, instead="mini"), **rest)  # type: ignore[arg-type]
    expand(image, asked, margins=(left, right, top, bottom), overlap=overlap)


command = click.Command(
    "expand",
    params=OPTIONS,
    callback=_called,
    short_help="A picture continued beyond its borders.",
    help=HELP,
)
