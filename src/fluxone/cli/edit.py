"""`fluxone edit`: change a picture as an instruction says, with a model that takes references."""

from __future__ import annotations

from dataclasses import replace

import click

from fluxone.cli import options
from fluxone.cli.generate import Asked, generate, shared
from fluxone.request import LAYOUTS, Request
from fluxone.variants import Kind

AUTO = "auto"
FEATHER = 4  # px
HOLD = "What comes nearer than X to the image, in latents, becomes it; 0 holds nothing; default: the model's own."

HELP = """Change IMAGE as INSTRUCTION says; with several images the first is changed, and all are looked at.

\b
fluxone edit car.png "make the car blue"
fluxone edit --model kontext room.jpg chair.jpg "put the chair into the room" --layout stitched
fluxone edit --model kontext car.png "make it night" --keep-outside auto
fluxone edit --model kontext car.png "make the car red" --then "make it night" --then "add snow"
"""


def edit(
    images: tuple[str, ...],
    asked: Asked,
    *,
    then: tuple[str, ...],
    layout: str,
    own_size: bool,
    keep_outside: str | None,
    feather: int,
    hold: float | None,
) -> None:
    """Make the edited pictures.

    Raises:
        FluxoneError: whatever stands in the way.
    """

    def given(request: Request) -> Request:
        references = tuple(options.read_image(path) for path in images)
        request = replace(
            request, references=references, then=then, layout=layout, auto_resize=not own_size, hold=hold
        )
        if keep_outside is None:
            return request
        if keep_outside == AUTO:
            return replace(request, paste=feather)
        strength = 1.0 if request.strength is None else request.strength
        mask = options.read_mask(keep_outside)
        return replace(request, init=references[0], mask=mask, strength=strength, paste=feather)

    generate(asked, given)


OPTIONS: list[click.Parameter] = [
    click.Argument(["images"], nargs=-1, required=True, metavar="IMAGE..."),
    click.Argument(["prompt"], metavar="INSTRUCTION"),
    click.Option(["--model"], help=options.MODEL_HELP),
    click.Option(["--then"], metavar="TEXT", multiple=True, help="A further instruction, on what came out; repeat."),
    click.Option(["--layout"], default="offset", show_default=True, metavar="NAME", help=f"{', '.join(LAYOUTS)}."),
    click.Option(["--own-size"], is_flag=True, help="Leave the images at their own size, in whole tokens."),
    click.Option(["--keep-outside"], metavar="MASK|auto", help="Outside the mask, or what changed, keep every pixel."),
    click.Option(["--feather"], type=int, default=FEATHER, show_default=True, help="With --keep-outside: px of seam."),
    click.Option(["--hold"], type=float, metavar="X", help=HOLD),
    *shared("model", "strength"),
]


def _called(
    images: tuple[str, ...],
    model: str | None,
    then: tuple[str, ...],
    layout: str,
    own_size: bool,
    keep_outside: str | None,
    feather: int,
    hold: float | None,
    **rest: object,
) -> None:
    asked = Asked(model=model or options.model_for("edit", Kind.REFERENCE), **rest)  # type: ignore[arg-type]
    edit(
        images, asked, then=then, layout=layout, own_size=own_size, keep_outside=keep_outside, feather=feather,
        hold=hold,
    )  # fmt: skip


command = click.Command(
    "edit",
    params=OPTIONS,
    callback=_called,
    short_help="A picture changed by an instruction.",
    help=HELP,
)
