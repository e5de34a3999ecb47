"""A model's first picture, for nobody: all parts are brought to the device and looked through, kernels are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from fluxone.request import Request
from fluxone.variants import Kind

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline


def warm(pipeline: Pipeline) -> None:
    """Draw one step of what the model takes, from blank pictures.

    Raises:
        BrokenModel: a weight is NaN or infinite, or what it computes.
    """
    size = pipeline.variant.size
    blank = Image.new("RGB", (size, size), (128, 128, 128))
    takes, steering = pipeline.variant.takes, pipeline.steering
    pipeline(
        Request(
            steps=1,
            init=blank if Kind.FILL in takes else None,
            mask=blank.convert("L") if Kind.FILL in takes else None,
            control=blank if Kind.CONTROL in takes else None,
            image_prompts=(blank,) if Kind.PROMPT in takes else (),
            hints=(blank,) * len(steering.controlnets),
            hint_modes=tuple(_mode(pipeline, name) for name in steering.controlnets if _mode(pipeline, name)),
        )
    )


def _mode(pipeline: Pipeline, name: str) -> str:
    """A kind of picture that a ControlNet for several kinds knows; empty for others."""
    shape = getattr(pipeline.steering.controlnets[name].net, "shape", None)
    return "canny" if getattr(shape, "modes", 0) else ""
