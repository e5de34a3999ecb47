"""Conditions: what a picture is drawn by besides words, one file a kind.

    Pictures --a row of CONDITIONS, with a Studio--> Extra: channels beside the noise, or tokens after it

Image prompts (`redux`) are no row: they become words, before all this. A kind of condition knows neither doors nor
files. Which kinds a model takes is said by its row (`Variant.takes`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fluxone.conditions.blend import Keep, cell_mask
from fluxone.conditions.condition import Condition, Extra, Pictures, Studio
from fluxone.conditions.control import control
from fluxone.conditions.fill import fill
from fluxone.conditions.reference import reference
from fluxone.variants import Kind, Variant


@dataclass(frozen=True, kw_only=True)
class Row:
    """A kind of condition.

    Attributes:
        early: whether it is made before the noise is drawn, where both come from one generator.
    """

    make: Condition
    early: bool


CONDITIONS: dict[Kind, Row] = {
    Kind.REFERENCE: Row(make=reference, early=True),
    Kind.CONTROL: Row(make=control, early=True),
    Kind.FILL: Row(make=fill, early=False),
}


def extra_of(variant: Variant, pictures: Pictures, studio: Studio, *, early: bool) -> Extra | None:
    """What the variant's own condition makes of the pictures; None if it has none that is made at this time."""
    rows = [row for kind in variant.takes if (row := CONDITIONS.get(kind)) is not None and row.early == early]
    assert len(rows) <= 1, "channel conditions and reference tokens do not combine"
    return rows[0].make(pictures, studio) if rows else None


def keep_of(
    variant: Variant, pictures: Pictures, picture: Tensor, noise: Tensor, studio: Studio, *, soft: bool
) -> Keep | None:
    """What is put back after each step: nothing without a mask, or where the network itself takes masks.

    Args:
        picture, noise: of the whole batch, as tokens.
        soft: see `cell_mask`.
    """
    if pictures.mask is None or Kind.FILL in variant.takes:
        return None
    cells = (pictures.mask.shape[-2] // studio.factor, pictures.mask.shape[-1] // studio.factor)
    mask = cell_mask(pictures.mask, studio.channels, cells, soft=soft)
    return Keep(picture=picture, noise=noise, mask=studio.whole(mask))
