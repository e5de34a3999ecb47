"""`fluxone control`: a picture that follows the edges, depths or limbs of another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from fluxone.cli import options
from fluxone.cli.generate import Asked, generate, shared
from fluxone.errors import BadRequest, pick
from fluxone.request import Request
from fluxone.variants import Kind

if TYPE_CHECKING:
    from PIL.Image import Image

# kind of picture -> what finds it in another; None: a picture of it must be given
KINDS: dict[str, str | None] = {"canny": "canny", "depth": None, "pose": None}

HELP = """Draw PROMPT along the edges (canny), depths (depth) or limbs (pose) of IMAGE.

Edges are found in IMAGE, unless --map says that it shows them already; this needs the control extra. Depths and
poses are given (a picture whose nearest points are white, or one of limbs as lines), or found by a --detector.

\b
fluxone control canny house.png "a red house in the snow"
fluxone control canny --model canny photo.jpg "a house of glass"
fluxone control depth --model depth depths.png "a cave"
fluxone control depth --model depth photo.jpg "a cave" --detector models/depth-anything-v2-small
fluxone control depth --model dev --lora flux1-depth-dev-lora.safetensors:0.85 depths.png "a cave"
"""


def control(
    kind: str, image: str, asked: Asked, *, is_map: bool, detector: str | None = None, save_map: str | None = None
) -> None:
    """Make the pictures.

    Args:
        detector: a depth model's folder or a command of the person's; see `conditions.detecting`.
        save_map: the file that what it finds is saved to, which `replay` needs.

    Raises:
        FluxoneError: whatever stands in the way.
    """
    own = pick(KINDS, kind, "kind of control")
    if detector is not None and is_map:
        raise BadRequest("both --map and --detector are given", hint="drop one of them")
    if save_map is not None and detector is None:
        raise BadRequest("--save-map is given without --detector", hint="it saves what the detector finds")

    def given(request: Request) -> Request:
        picture = options.read_image(image)
        if detector is None:
            if own is None and not is_map:
                _check_map(kind, image, picture)
            return replace(request, control=picture, detector=None if is_map else own)
        from fluxone.conditions.detecting import found_by

        found = found_by(detector, kind, picture)
        if save_map is not None:
            from fluxone.provenance import save

            save(found, save_map)
        return replace(request, control=found)

    generate(asked, given)


def _check_map(kind: str, image: str, picture: Image) -> None:
    """Refuse a picture that is taken for depths or a pose and looks like neither."""
    from fluxone.conditions.detecting import LOOKS

    if not LOOKS[kind](picture):
        hint = "give --detector, which finds it; or --map, if this is it all the same"
        raise BadRequest(f"{image} does not look like a picture of {kind}", hint=hint)


DETECTOR = "What finds it: the folder of a depth model, or a command that is given IN.png OUT.png."
OPTIONS: list[click.Parameter] = [
    click.Argument(["kind"], metavar="canny|depth|pose"),
    click.Argument(["image"]),
    click.Argument(["prompt"]),
    click.Option(["--model"], help=options.MODEL_HELP),
    click.Option(["--map", "is_map"], is_flag=True, help="IMAGE shows the edges, depths or limbs themselves."),
    click.Option(["--detector"], metavar="FOLDER|COMMAND", help=DETECTOR),
    click.Option(["--save-map"], metavar="FILE", help="Keep what the detector finds."),
    *shared("model", "strength"),
]


def _called(
    kind: str,
    image: str,
    model: str | None,
    is_map: bool,
    detector: str | None,
    save_map: str | None,
    **rest: object,
) -> None:
    pick(KINDS, kind, "kind of control")
    asked = Asked(model=model or options.model_for("control", Kind.CONTROL, kind), **rest)  # type: ignore[arg-type]
    control(kind, image, asked, is_map=is_map, detector=detector, save_map=save_map)


command = click.Command(
    "control",
    params=OPTIONS,
    callback=_called,
    short_help="A picture along another's edges, depths or limbs.",
    help=HELP,
)
