"""Fill: the picture without what the mask covers, and the mask itself, as channels beside the noise.

    picture * (1 - mask) (grey where it is covered) --encode, pack--> 4 * 16 channels
    mask: the factor x factor px of a cell become channels   --pack--> 4 * 64 channels, never encoded

Source: black-forest-labs/flux, `sampling.prepare_fill`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.conditions.condition import Extra, Pictures, Studio, Tokens
from fluxone.errors import BadRequest
from fluxone.nn.tokens import pack
from fluxone.pixels import Mask


def fill(pictures: Pictures, studio: Studio) -> Extra:
    """The channels of a picture to repaint and its mask."""
    if pictures.left is not None:
        return Extra(channels=studio.whole(pictures.left))
    assert pictures.init is not None and pictures.mask is not None, "check the pictures first"
    covered = pack(studio.encode(pictures.init * (1 - pictures.mask)))
    mask = studio.whole(mask_tokens(pictures.mask, studio.factor))
    return Extra(channels=torch.cat((covered, mask), dim=-1))


def left_of(given: Tensor, mask: Mask | None, grid: tuple[int, int], channels: int, factor: int) -> Tokens:
    """What was given as encoded already, as the network's channels.

    Args:
        given: (B, L, 4 * channels + 4 * factor ** 2), picture and mask as `fill` makes them, which is what diffusers
            takes; or beside a mask the picture's latents alone, (B, channels, h, w) or packed (B, L, 4 * channels).
        grid: tokens down and across.
        channels, factor: of the autoencoder's latents, and px a cell.

    Raises:
        BadRequest: it is of another shape, or says the mask once more, or there is none.
    """
    rows, columns = grid
    tokens, latents, whole = rows * columns, 4 * channels, 4 * channels + 4 * factor**2
    left = given.detach().float().cpu()
    if left.shape[1:] == (channels, 2 * rows, 2 * columns):
        left = pack(left)
    if left.ndim != 3 or 0 in left.shape or left.shape[1:] not in ((tokens, latents), (tokens, whole)):
        hint = f"{columns}x{rows} tokens: give (B, {tokens}, {whole}), or beside mask_image (B, {tokens}, {latents})"
        raise BadRequest(f"masked_image_latents have the shape {tuple(given.shape)}", hint=hint)
    if left.shape[-1] == whole:
        if mask is not None:
            hint = f"leave mask_image out, or give the latents alone, (B, {tokens}, {latents})"
            raise BadRequest("masked_image_latents hold a mask, and mask_image is given too", hint=hint)
        return left
    if mask is None:
        hint = f"give mask_image too, or channels that hold the mask, (B, {tokens}, {whole})"
        raise BadRequest("masked_image_latents are given without their mask", hint=hint)
    masks, count = mask_tokens(mask, factor), max(len(left), len(mask))
    if count % len(left) or count % len(masks):
        raise BadRequest(f"{len(masks)} masks for {len(left)} masked_image_latents", hint="give one mask, or as many")
    left, masks = (row.repeat(count // len(row), 1, 1) for row in (left, masks))
    return torch.cat((left, masks), dim=-1)


def mask_tokens(mask: Mask, factor: int) -> Float[Tensor, "B L K"]:
    """The mask as tokens: every pixel of a cell is a channel of it."""
    batch, _, height, width = mask.shape
    cells = mask.reshape(batch, height // factor, factor, width // factor, factor).permute(0, 2, 4, 1, 3)
    return pack(cells.reshape(batch, factor * factor, height // factor, width // factor))
