"""Parts of a picture that are learnt from besides the whole of it, so that few pictures are not learnt by heart.

    picture at its bucket's size --enlarged a little, shifted--> the same size

Shifts are small: what a caption says of places stays true.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image

from fluxone.tune.buckets import stream

CLOSEST = 1.07  # times that a picture is enlarged at most


@dataclass(frozen=True, kw_only=True)
class View:
    """A part of a picture: how much it is enlarged, and where it lies, 0 to 1 of what is cut off across and down."""

    zoom: float = 1.0
    across: float = 0.5
    down: float = 0.5

    def of(self, picture: Image.Image) -> Image.Image:
        """That part, at the whole picture's size."""
        if self.zoom == 1:
            return picture
        width, height = picture.width / self.zoom, picture.height / self.zoom
        left, top = self.across * (picture.width - width), self.down * (picture.height - height)
        return picture.resize(picture.size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


WHOLE = View()


def views(count: int) -> tuple[View, ...]:
    """The whole, and so many parts besides: the first of more are the same as of fewer."""
    found = [WHOLE]
    for number in range(count):
        zoom, across, down = torch.rand(3, generator=stream("view", number)).tolist()
        found.append(View(zoom=1 + (CLOSEST - 1) * zoom, across=across, down=down))
    return tuple(found)
