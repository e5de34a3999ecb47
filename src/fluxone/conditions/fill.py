"""Fill: the picture without what the mask covers, and the mask itself, as channels beside the noise.

    picture * (1 - mask) (grey where it is covered) --encode, pack--> 4 * 16 channels
    mask: the factor x factor px of a cell become channels   --pack--> 4 * 64 channels, never encoded

Source: black-forest-labs/flux, `sampling.prepare_fill`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.conditions.condition import Extra, Pictures, Studio
from fluxone.nn.tokens import pack
from fluxone.pixels import Mask


def fill(pictures: Pictures, studio: Studio) -> Extra:
    """The channels of a picture to repaint and its mask."""
    assert pictures.init is not None and pictures.mask is not None, "check the pictures first"
    covered = pack(studio.encode(pictures.init * (1 - pictures.mask)))
    mask = studio.whole(mask_tokens(pictures.mask, studio.factor))
    return Extra(channels=torch.cat((covered, mask), dim=-1))


def mask_tokens(mask: Mask, factor: int) -> Float[Tensor, "B L K"]:
    """The mask as tokens: every pixel of a cell is a channel of it."""
    batch, _, height, width = mask.shape
    cells = mask.reshape(batch, height // factor, factor, width // factor, factor).permute(0, 2, 4, 1, 3)
    return pack(cells.reshape(batch, factor * factor, height // factor, width // factor))
