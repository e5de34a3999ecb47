"""What a request says to parts of the picture, and away from what it wants (NAG): texts and masks, for attention.

    Region(mask, prompt), ...   --encode; mask -> share of each token-->   more text, and a Mixing that says who sees it
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from fluxone import pixels as px
from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.job import Job
from fluxone.nn.mixing import Mixing, Nag
from fluxone.prompts import Encode
from fluxone.request import Region, Request
from fluxone.sampling.guidance import level_at
from fluxone.text.encode import Text


def mixed(request: Request, encode: Encode, job: Job, away: Text | None) -> Job:
    """The job with the regions of a resolved request, and its negative text, inside attention.

    Args:
        encode: see `Pipeline.encode`.
        away: the negative text, a row a picture, for NAG.

    Raises:
        BadRequest: a region has no mask, or one that covers nothing.
    """
    batch, how = len(job.x), (request.text_tokens, request.emphasis)
    texts = [encode([region.prompt] * batch, [None] * batch, *how).txt for region in request.regions]
    words = tuple(part.shape[1] for part in texts)
    if request.nag > 1 and away is not None:
        texts.append(away.txt.to(texts[0]) if texts else away.txt)  # it may have been encoded elsewhere
    if not texts:
        return job
    mixing = Mixing(text=job.text.txt.shape[1], words=words, negative=texts[-1].shape[1] if request.nag > 1 else 0)
    return placed(request, replace(job, more=torch.cat(texts, dim=1), mixing=mixing))


def placed(request: Request, job: Job) -> Job:
    """The job with its regions where they are on its grid, and NAG where it is on its schedule."""
    if job.mixing is None:
        return job
    masks = tuple(region_mask(region, job.grid) for region in request.regions)
    high, low = (level_at(job.sigmas, share) for share in request.cfg_interval)
    nag = Nag(scale=request.nag, tau=request.nag_tau, alpha=request.nag_alpha, low=low, high=high)
    old = job.mixing
    mixing = Mixing(
        text=old.text, masks=masks, words=old.words, negative=old.negative, nag=nag if request.nag > 1 else None
    )
    return replace(job, mixing=mixing)


def region_mask(region: Region, grid: tuple[int, int]) -> Float[Tensor, " L"]:
    """How strongly a region holds at each token.

    Raises:
        BadRequest: it has no mask, or one that covers nothing.
    """
    given: object = region.mask
    if region.mask is None or not isinstance(given, Image):
        found = "no mask" if given is None else f"a {type(given).__name__} as its mask"
        raise BadRequest(f"the region {region.prompt[:40]!r} has {found}", hint="give a PIL image, white where it is")
    own = Resolution(height=region.mask.height, width=region.mask.width)
    mask = F.interpolate(px.masks(region.mask, own), size=grid, mode="area").flatten()
    if float(mask.max()) == 0:
        raise BadRequest(f"the mask of the region {region.prompt[:40]!r} is black", hint="make it white where it is")
    return mask * region.strength
