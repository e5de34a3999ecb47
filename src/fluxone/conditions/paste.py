"""Pasting a drawn picture into the one it was drawn from: outside the mask not one value changes.

share = 0 outside the mask and on its edge, rising to 1 within `feather` px inside it
picture * (1 - share) + drawn * share, the drawn one's colours matched to the picture's where both show the same
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

SMOOTH = 2  # px: of the blur before pictures are compared; finer differences are the decoder's
CHANGE = 20  # of 255: differences below are the decoder's too
LEAST = 64  # px: fewer that both show say nothing about colours
GAIN = (0.8, 1.25)  # bounds of the matched contrast


def paste(drawn: Image.Image, picture: Image.Image, mask: Image.Image, feather: int) -> Image.Image:
    """The picture with what was drawn inside the mask; both are of the picture's size.

    Args:
        mask: white where it was drawn anew.
        feather: px inside the mask over which the one goes over into the other; 0 is a hard edge.
    """
    kept = np.asarray(picture.convert("RGB"))
    covered = np.asarray(mask.convert("L").resize(picture.size), dtype=np.float32) / 255
    share = ramp(covered, feather)[..., None]
    new = matched(np.asarray(drawn.convert("RGB"), dtype=np.float32), kept.astype(np.float32), covered)
    mixed = (kept * (1 - share) + new * share).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.where(share > 0, mixed, kept))


def changed(drawn: Image.Image, picture: Image.Image, margin: int) -> Image.Image:
    """A mask over what differs between two pictures of one size, and `margin` px around it."""
    kept = np.asarray(picture.convert("RGB").filter(ImageFilter.BoxBlur(SMOOTH)), dtype=np.float32)
    new = np.asarray(drawn.convert("RGB").filter(ImageFilter.BoxBlur(SMOOTH)), dtype=np.float32)
    gap = new - kept
    # A small overall difference of colours is the decoder's: it is the median over the whole picture. A large one is
    # what was asked for: day became night.
    overall = np.median(gap, axis=(0, 1))
    gap = np.abs(gap - overall if np.abs(overall).max() <= CHANGE else gap).max(axis=2)
    mask = Image.fromarray(np.where(gap > CHANGE, 255, 0).astype(np.uint8))
    return mask.filter(ImageFilter.MaxFilter(2 * (margin + SMOOTH) + 1))


def ramp(covered: np.ndarray, feather: int) -> np.ndarray:
    """How much of the new picture is shown, from how much the mask (H W, 0..1) covers.

    Every part of the mask reaches 1 somewhere: one narrower than the seam gets a steeper one.
    """
    if feather == 0:
        return covered
    whole = (covered * 255).round().astype(np.uint8)
    # Beyond the picture the mask goes on as at its border: there is nothing to go over into.
    wide = Image.fromarray(np.pad(whole, feather, mode="edge"))
    soft = np.asarray(wide.filter(ImageFilter.BoxBlur(feather)), dtype=np.float32) / 255
    share = (2 * soft - 1).clip(0, 1)
    near = Image.fromarray((share * 255).round().astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * feather + 1))
    inside = (slice(feather, -feather), slice(feather, -feather))
    share, top = share[inside], np.asarray(near, dtype=np.float32)[inside] / 255
    steep = ramp(covered, feather // 2) if (top[covered > 0] == 0).any() else covered
    return np.asarray(np.minimum(covered, np.where(top > 0, (share / np.maximum(top, 1 / 255)).clip(0, 1), steep)))


def matched(new: np.ndarray, kept: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The new picture (H W 3) with mean and contrast of each colour as in the kept one, where nothing is covered."""
    same = covered < 1 / 255
    if same.sum() < LEAST:
        return new
    here, there = new[same], kept[same]
    spread = here.std(axis=0)
    gain = np.where(spread > 1, there.std(axis=0) / np.maximum(spread, 1), 1.0).clip(*GAIN)
    return np.asarray((new - here.mean(axis=0)) * gain + there.mean(axis=0), dtype=np.float32)
