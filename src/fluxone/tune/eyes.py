"""How alike pictures are in what recurs in the references: found from the pictures alone, no other network asked.

    picture --64 px, Lab--> patches of 6x6 px, every second one
    a patch of a reference counts by how much more often it comes in the other references than in the base's pictures
    of the same captions: what is left is the subject (or the style), not the places it stands in
    likeness of a picture: the share of what counts that is found anywhere in it

On a scale where 0 is what the base draws when it is asked by name, and 1 what the references are to each other. It
sees colours and small shapes: enough for drawings, products and styles, little for the faces of photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fluxone.tune.palette import lab

SIDE, PATCH, STRIDE = 64, 6, 2  # px
CONTRAST = 20.0  # of Lab, that counts as one
COUNTED = 0.04  # share of all patches that counts: those that tell most
TOLERANCE = 2.0  # times the usual distance of a patch to its like in another reference
WHOLE = 32  # px: of the square that whole pictures are compared at
COPIED = 0.4  # of the least distance between two references: what is nearer to one is called its copy
LEAST = 0.2  # of likeness between references and base, below which the scale means nothing


def patches(picture: Image.Image) -> Tensor:
    """(P, 3 * PATCH^2)"""
    return F.unfold(_lab(picture, SIDE)[None], PATCH, stride=STRIDE)[0].T / PATCH


def whole(picture: Image.Image) -> Tensor:
    """The picture as one row of numbers."""
    return _lab(picture, WHOLE).flatten()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What counts in the references.

    Attributes:
        patches, weights: weights add up to 1.
        scale: distance at which a patch is half found.
        floor, ceiling: what is found in the base's pictures, and in the other references.
        references: those trained on, as wholes; `near`: the distance below which a picture is a copy of one.
    """

    patches: Tensor
    weights: Tensor
    scale: float
    floor: float
    ceiling: float
    references: Tensor
    near: float

    def likeness(self, picture: Image.Image) -> float:
        """0 (the base) to 1 (another reference); it may lie outside."""
        return (self._raw(patches(picture)) - self.floor) / max(self.ceiling - self.floor, LEAST)

    def copying(self, picture: Image.Image) -> float:
        """How near it is to a reference that is trained on: 1 and more is a copy."""
        return self.near / max(float(_apart(whole(picture), self.references).min()), 1e-9)

    @property
    def told(self) -> bool:
        """Whether references and base differ enough for the scale to mean something."""
        return self.ceiling - self.floor > LEAST

    def _raw(self, own: Tensor) -> float:
        return float((self.weights * _found(_nearest(self.patches, own), self.scale)).sum())


def subject(references: Sequence[Image.Image], trained: Sequence[Image.Image], base: Sequence[Image.Image]) -> Subject:
    """Find what the references have in common and the base lacks.

    Args:
        trained: those of the references that are trained on.
        base: the base's pictures of the references' captions.
    """
    own = [patches(picture) for picture in references]
    every, size = torch.cat(own), len(own[0])
    again = torch.stack([_nearest(every, other) for other in own], dim=1)  # (P, references)
    mine = torch.arange(len(every)) // size == torch.arange(len(own))[:, None]
    again = again.masked_fill(mine.T, torch.inf)  # a reference finds itself: not to be counted
    lacking = torch.stack([_nearest(every, patches(picture)) for picture in base], dim=1)
    scale = TOLERANCE * max(float(again.amin(1).median()), 1e-6) if len(own) > 1 else 1.0
    others = max(len(own) - 1, 1)
    tells = _found(again, scale).sum(1) / others - _found(lacking, scale).mean(1)
    best = tells.topk(max(1, int(COUNTED * len(tells)))).indices
    weights = tells[best].clamp(min=0)
    weights = weights / weights.sum().clamp(min=1e-9)
    ceiling = float((weights * _found(again[best], scale).sum(1) / others).sum())
    wholes = torch.stack([whole(picture) for picture in trained])
    made = Subject(
        patches=every[best], weights=weights, scale=scale, floor=0.0, ceiling=1.0, references=wholes, near=_near(wholes)
    )
    floor = sum(made._raw(patches(picture)) for picture in base) / len(base)
    return replace(made, floor=floor, ceiling=ceiling)


def drift(picture: Image.Image, other: Image.Image) -> float:
    """The root mean square difference of two pictures' colours, in Lab's units."""
    return float((whole(picture) - whole(other)).square().mean().sqrt()) * CONTRAST


def _lab(picture: Image.Image, side: int) -> Tensor:
    small = np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BOX))
    return torch.from_numpy(lab(small.reshape(-1, 3)).reshape(side, side, 3)).float().permute(2, 0, 1) / CONTRAST


def _nearest(a: Tensor, b: Tensor) -> Tensor:
    """Of each patch of the first, the distance to the nearest of the second."""
    return torch.cdist(a, b).amin(1)


def _apart(one: Tensor, others: Tensor) -> Tensor:
    return (others - one).square().mean(1)


def _near(wholes: Tensor) -> float:
    rows = [_apart(one, wholes[i + 1 :]).min() for i, one in enumerate(wholes[:-1])]
    return COPIED * float(torch.stack(rows).min()) if rows else 0.0


def _found(distance: Tensor, scale: float) -> Tensor:
    """1 where a patch is there, 1/2 at `scale`, 0 far away."""
    return torch.exp2(-((distance / scale) ** 2))
