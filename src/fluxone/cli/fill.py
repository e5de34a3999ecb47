"""`fluxone fill`: repaint what a mask covers, with a model that takes masks or with any other."""

from __future__ import annotations

from dataclasses import replace

import click

from fluxone.cli import options
from fluxone.cli.generate import Asked, generate, shared
from fluxone.request import Request
from fluxone.variants import Kind

FEATHER = 4  # px

HELP = """Repaint IMAGE where MASK is white (or, if it has transparency, opaque), as PROMPT says.

All other pixels stay as they are. A model that takes masks (mini-fill, fill) sees what is around; with any other the
rest is put back after each step.

\b
fluxone fill street.png mask.png "a red car"
fluxone fill --model fill street.png mask.png "a red car" --count 4
fluxone fill --model mini street.png mask.png "a red car" --strength 0.8
"""


def fill(image: str, mask: str, asked: Asked, *, feather: int, all_drawn: bool) -> None:
    """Make the repainted pictures.

    Raises:
        FluxoneError: whatever stands in the way.
    """

    def given(request: Request) -> Request:
        strength = 1.0 if request.strength is None else request.strength
        paste = None if all_drawn else feather
        init, covered = options.read_image(image), options.read_mask(mask)
        return replace(request, init=init, mask=covered, strength=strength, paste=paste)

    generate(asked, given)


STRENGTH = "How much to forget of what the mask covers, 0 to 1. Default: 1."
ALL_DRAWN = "Leave the rest as the model drew it."
OPTIONS: list[click.Parameter] = [
    click.Argument(["image"]),
    click.Argument(["mask"]),
    click.Argument(["prompt"]),
    click.Option(["--feather"], type=int, default=FEATHER, show_default=True, help="Px of seam inside the mask."),
    click.Option(["--all-drawn"], is_flag=True, help=ALL_DRAWN),
    click.Option(["--strength"], type=float, help=STRENGTH),
    click.Option(["--model"], help=options.MODEL_HELP),
    *shared("model", "strength"),
]


def _called(image: str, mask: str, model: str | None, feather: int, all_drawn: bool, **rest: object) -> None:
    asked = Asked(model=model or options.model_for("fill", Kind.FILL, instead="mini"), **rest)  # type: ignore[arg-type]
    fill(image, mask, asked, feather=feather, all_drawn=all_drawn)


command = click.Command(
    "fill",
    params=OPTIONS,
    callback=_called,
    short_help="A part of a picture drawn anew.",
    help=HELP,
)
