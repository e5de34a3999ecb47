"""`fluxone vary`: new pictures like those that are given, with words beside them or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from fluxone.cli import options
from fluxone.cli.generate import Asked, generate, shared
from fluxone.cli.naming import SUFFIXES
from fluxone.errors import BadRequest
from fluxone.request import IMAGE_MIXES, Request
from fluxone.variants import Kind

HELP = """Draw pictures like IMAGE, or like several at once, as PROMPT says besides; no prompt is fine.

A last word that is no file and ends like no picture is the prompt.

\b
fluxone vary --model redux cat.png --count 4
fluxone vary --model redux cat.png "in the snow" --strength 0.6
fluxone vary --model dev --redux flux1-redux-dev.safetensors cat.png house.png --weights 1,0.5
"""


def vary(images: tuple[str, ...], asked: Asked, *, strength: float, weights: str | None, mix: str) -> None:
    """Make the pictures.

    Raises:
        FluxoneError: whatever stands in the way.
    """

    def given(request: Request) -> Request:
        return replace(
            request,
            image_prompts=tuple(options.read_image(path) for path in images),
            image_prompt_weights=read_weights(weights),
            image_prompt_strength=strength,
            image_prompt_mix=mix,
        )

    generate(asked, given)


def parted(words: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Images, and the prompt after them if there is one."""
    *rest, last = words
    if not rest or Path(last).suffix.lower() in SUFFIXES or Path(last).is_file():
        return words, ""
    return tuple(rest), last


def read_weights(text: str | None) -> tuple[float, ...]:
    """`1,0.5` as numbers; None is none.

    Raises:
        BadRequest: something in it is no number.
    """
    try:
        return () if text is None else tuple(float(number) for number in text.split(","))
    except ValueError:
        raise BadRequest(f"--weights is {text!r}", hint="write a number an image, e.g. 1,0.5") from None


STRENGTH = "How much the images say beside the words."
OPTIONS: list[click.Parameter] = [
    click.Argument(["words"], nargs=-1, required=True, metavar="IMAGE... [PROMPT]"),
    click.Option(["--model"], help=options.MODEL_HELP),
    click.Option(["--redux"], metavar="FILE", help="What makes words of images, where the model lacks it."),
    click.Option(["--siglip"], metavar="FILE", help="The SigLIP that it looks with, where Redux comes without."),
    click.Option(["--strength"], type=float, default=1.0, show_default=True, help=STRENGTH),
    click.Option(["--weights"], metavar="N,N,...", help="Of each image. Default: 1 each; in a sum equal shares."),
    click.Option(["--mix"], default="beside", show_default=True, metavar="NAME", help=f"{', '.join(IMAGE_MIXES)}."),
    *shared("model", "strength"),
]


def _called(
    words: tuple[str, ...],
    model: str | None,
    redux: str | None,
    strength: float,
    weights: str | None,
    mix: str,
    **rest: object,
) -> None:
    images, prompt = parted(words)
    if model is None and redux is not None:
        raise BadRequest("--redux is given without the model that it works beside", hint="add e.g. --model dev")
    named = model or options.model_for("vary", Kind.PROMPT)
    asked = Asked(prompt=prompt, model=named, redux=redux, **rest)  # type: ignore[arg-type]
    vary(images, asked, strength=strength, weights=weights, mix=mix)


command = click.Command(
    "vary",
    params=OPTIONS,
    callback=_called,
    short_help="Pictures like others.",
    help=HELP,
)
