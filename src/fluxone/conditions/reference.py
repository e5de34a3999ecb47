"""References (Kontext): pictures whose tokens stand after those of the picture that is drawn.

    picture --a size the model was trained on--> pixels --mean--> latent --pack--> tokens, at (index, row, column)

A reference is told from the picture itself by its index in the positions. Several references are placed by a row of
`LAYOUTS`; the released weights were trained with one reference, and `offset` is what works best with more.

Source: black-forest-labs/flux, `sampling.prepare_kontext`; ComfyUI, `ldm/flux/model.py` (the offsets).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fluxone.conditions.condition import COLOURS, Extra, Pictures, Studio
from fluxone.errors import BadRequest
from fluxone.geometry import TOKEN, Resolution
from fluxone.nn.tokens import image_ids, pack
from fluxone.pixels import Pixels

LAYOUT = "offset"  # of several references: what they are placed by if nothing is said, and in training
Grid = tuple[int, int]  # rows and columns of tokens
Place = tuple[int, int, int]  # index, and the row and column of the first token


def reference(pictures: Pictures, studio: Studio) -> Extra:
    """The tokens of all references, one after the other, and their positions."""
    if pictures.edited is not None:
        latents = [studio.whole(pictures.edited)]
    else:
        latents = [studio.look(picture) for picture in pictures.references]
    if not latents:
        return Extra()
    grids = [(latent.shape[-2] // 2, latent.shape[-1] // 2) for latent in latents]
    tokens = torch.cat([pack(latent) for latent in latents], dim=1)
    return Extra(reference=tokens, reference_ids=laid_out(grids, pictures.layout))


def laid_out(grids: Sequence[Grid], layout: str) -> Float[Tensor, "R 3"]:
    """The positions of all references' tokens, one after the other. `layout` is a row of `PLACES`."""
    return torch.cat([positions(grid, place) for grid, place in zip(grids, PLACES[layout](grids), strict=True)])


def size_for(own: Resolution, size: int, token: int = TOKEN, *, auto_resize: bool = True) -> Resolution:
    """The size that a reference is brought to: Kontext's nearest in aspect, or its own in whole tokens."""
    whole = Resolution(height=max(own.height, token), width=max(own.width, token)).whole(token)
    if not auto_resize:
        return whole
    return Resolution.preferred(whole.width / whole.height, size, token)


def positions(grid: Grid, place: Place) -> Float[Tensor, "R 3"]:
    """The positions of a grid of tokens whose first is at `place`."""
    index, row, column = place
    return image_ids(*grid, index=index) + torch.tensor([0.0, row, column])


def offset(grids: Sequence[Grid]) -> list[Place]:
    """All of index 1; each beside or below those before it, whichever keeps the whole nearer a square."""
    places, height, width = [], 0, 0
    for rows, columns in grids:
        beside = rows + height > columns + width
        row, column = (0, width) if beside else (height, 0)
        places.append((1, row, column))
        height, width = max(height, rows + row), max(width, columns + column)
    return places


def holdable(hold: float | None, extra: Extra, grid: Grid) -> float:
    """How near a token must come to the reference's to become it: nothing is held (0) unless there is one reference of
    the grid of the picture."""
    ids = extra.reference_ids
    alike = ids is not None and torch.equal(ids[..., 1:].cpu(), image_ids(*grid)[..., 1:])
    return hold or 0.0 if alike else 0.0


def index(grids: Sequence[Grid]) -> list[Place]:
    """Each at the origin, with indices 1, 2, 3, ..."""
    return [(number, 0, 0) for number in range(1, len(grids) + 1)]


def together(grids: Sequence[Grid]) -> list[Place]:
    """One reference, made of all."""
    assert len(grids) == 1, "stitch them first"
    return [(1, 0, 0)]


def stitched(pictures: Sequence[Pixels]) -> Pixels:
    """One picture of all, side by side, each brought to the height of the first."""
    height = pictures[0].shape[-2]
    scaled = [
        pixels
        if pixels.shape[-2] == height
        else F.interpolate(
            pixels, size=(height, max(1, round(pixels.shape[-1] * height / pixels.shape[-2]))), mode="area"
        )
        for pixels in pictures
    ]
    return torch.cat(scaled, dim=-1)


def joined(references: Sequence[Tensor], layout: str, size: int, token: int, auto_resize: bool) -> tuple[Tensor, ...]:
    """The references as their layout wants them: one by one, or stitched to one of a size of its own."""
    if len(references) < 2 or PLACES[layout] is not PLACES["stitched"]:
        return tuple(references)
    if any(reference.shape[1] != COLOURS for reference in references):
        raise BadRequest("latents are to be stitched", hint="give the pictures themselves, or another layout")
    whole = stitched(references)
    own = Resolution(height=whole.shape[-2], width=whole.shape[-1])
    target = size_for(own, size, token, auto_resize=auto_resize)
    return (F.interpolate(whole, size=(target.height, target.width), mode="area"),)


# `stitched` references have become one picture before they are placed.
PLACES: dict[str, Callable[[Sequence[Grid]], list[Place]]] = {"offset": offset, "index": index, "stitched": together}
