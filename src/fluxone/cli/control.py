"""`fluxone control`: a picture that follows the edges, depths or limbs of another."""

from __future__ import annotations

from dataclasses import replace

import click

from fluxone.cli import options
from fluxone.cli.generate import Asked, generate, shared
from fluxone.errors import BadRequest, pick
from fluxone.request import Request
from fluxone.variants import Kind

# kind of picture -> what finds it in another; None: a picture of it must be given
KINDS: dict[str, str | None] = {"canny": "canny", "depth": None, "pose": None}

HELP = """Draw PROMPT along the edges (canny), depths (depth) or limbs (pose) of IMAGE.

Edges are found in IMAGE, unless --map says that it shows them already; this needs the control extra. Depths and
poses must be given: a picture whose nearest points are white, or one of limbs as lines.

\b
fluxone control canny house.png "a red house in the snow"
fluxone control canny --model canny photo.jpg "a house of glass"
fluxone control depth --model depth depths.png "a cave" --map
fluxone control depth --model dev --lora flux1-depth-dev-lora.safetensors:0.85 depths.png "a cave" --map
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
    click.Argument(["kind"], metavar="canny|depth|pose"),
    click.Argument(["image"]),
    click.Argument(["prompt"]),
    click.Option(["--model"], help=options.MODEL_HELP),
    click.Option(["--map", "is_map"], is_flag=True, help="IMAGE shows the edges, depths or limbs themselves."),
    *shared("model", "strength"),
]


def _called(kind: str, image: str, model: str | None, is_map: bool, **rest: object) -> None:
    pick(KINDS, kind, "kind of control")
    asked = Asked(model=model or options.model_for("control", Kind.CONTROL, kind), **rest)  # type: ignore[arg-type]
    control(kind, image, asked, is_map=is_map)


command = click.Command(
    "control",
    params=OPTIONS,
    callback=_called,
    short_help="A picture along another's edges, depths or limbs.",
    help=HELP,
)
