"""A feature extractor of transformers' that was given in memory: what brings a picture to its encoder.

picture --extractor(images=..., return_tensors="pt").pixel_values--> (1, 3, S, S)

It is called as diffusers calls it, once at the start too, so that one which does not fit is told at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

from fluxone.errors import BadRequest

Extract = Callable[[Image.Image], Tensor]
HINT = "give one of transformers', such as CLIPImageProcessor or SiglipImageProcessor, or leave it out"
BAD = (TypeError, ValueError, KeyError, AttributeError)  # what something else says, when it is given a picture


def extract_with(extractor: object, size: int) -> Extract:
    """What makes pixels of a picture, (1, 3, size, size), normalised.

    Args:
        size: px of the encoder's pictures.

    Raises:
        BadRequest: it is no feature extractor, or makes pictures of another size.
    """
    call: Any = extractor
    what = f"feature_extractor is a {type(extractor).__name__}"
    if not callable(call):
        raise BadRequest(what, hint=HINT)

    def extract(picture: Image.Image) -> Tensor:
        try:
            pixels = call(images=picture, return_tensors="pt")["pixel_values"]
        except BAD as error:
            raise BadRequest(f"{what} that makes no pixels of a picture: {error!s:.120}", hint=HINT) from error
        if not isinstance(pixels, Tensor) or pixels.shape != (1, 3, size, size):
            made = tuple(pixels.shape) if isinstance(pixels, Tensor) else f"a {type(pixels).__name__}"
            hint = f"give the one that belongs to the encoder, whose pictures are {size} px each way"
            raise BadRequest(f"{what} that makes {made} of a picture", hint=hint)
        return pixels.float()

    extract(Image.new("RGB", (size + 1, size)))
    return extract
