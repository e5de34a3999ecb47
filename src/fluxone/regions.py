"""What a request says to parts of the picture, and away from what it wants (NAG): texts and masks, for attention.

    Region(mask, prompt), ...   --encode; mask -> share of each token-->   more text, and a Mixing that says who sees it
"""

from __future__ import annotations

from typing import TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fluxone import pixels as px
from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.nn.mixing import Mixing, Nag
from fluxone.prompts import Encode, each
from fluxone.request import Region, Request
from fluxone.sampling.guidance import level_at


class Mixed(TypedDict):
    """The fields of a `Job` that are made here."""

    more: Tensor | None
    mixing: Mixing | None


def mixed(request: Request, encode: Encode, grid: tuple[int, int], sigmas: list[float]) -> Mixed:
    """The regions of a resolved request and its negative text inside attention; nothing where it has neither.

    Args:
        encode: see `Pipeline.encode`.
        grid: rows and columns of tokens.

    Raises:
        BadRequest: a region has no mask, or one that covers nothing.
    """
    ones, how = each(request), (request.text_tokens, request.emphasis)
    texts = [encode([region.prompt] * request.count, [None] * request.count, *how).txt for region in request.regions]
    masks = tuple(region_mask(region, grid) for region in request.regions)
    nag, negative = None, 0
    if request.nag > 1:
        texts.append(encode([one.negative for one in ones], [one.clip_negative for one in ones], *how).txt)
        negative = texts[-1].shape[1]
        high, low = (level_at(sigmas, share) for share in request.cfg_interval)
        nag = Nag(scale=request.nag, tau=request.nag_tau, alpha=request.nag_alpha, low=low, high=high)
    if not texts:
        return Mixed(more=None, mixing=None)
    text = encode([one.prompt for one in ones], [one.clip_prompt for one in ones], *how).txt.shape[1]
    words = tuple(part.shape[1] for part in texts[: len(masks)])
    return Mixed(
        more=torch.cat(texts, dim=1), mixing=Mixing(text=text, masks=masks, words=words, negative=negative, nag=nag)
    )


def region_mask(region: Region, grid: tuple[int, int]) -> Float[Tensor, " L"]:
    """How strongly a region holds at each token.

    Raises:
        BadRequest: it has no mask, or one that covers nothing.
    """
    if region.mask is None:
        raise BadRequest(f"the region {region.prompt[:40]!r} has no mask", hint="give a picture, white where it is")
    own = Resolution(height=region.mask.height, width=region.mask.width)
    mask = F.interpolate(px.masks(region.mask, own), size=grid, mode="area").flatten()
    if float(mask.max()) == 0:
        raise BadRequest(f"the mask of the region {region.prompt[:40]!r} is black", hint="make it white where it is")
    return mask * region.strength
