"""Masks as channels and as blends, pasting, and expanding."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fluxone.conditions.blend import Keep, cell_mask
from fluxone.conditions.control import canny
from fluxone.conditions.expand import opened, unfolded
from fluxone.conditions.fill import mask_tokens
from fluxone.conditions.paste import changed, paste
from fluxone.errors import MissingExtra
from fluxone.request import Request


def picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def test_every_pixel_of_a_cell_is_a_channel() -> None:
    """Token (row, column), channel (y, x in its cell; cell in its token), told by numbering the pixels."""
    mask = torch.arange(32 * 48, dtype=torch.float32).reshape(1, 1, 32, 48)
    tokens = mask_tokens(mask, 8)
    assert tokens.shape == (1, 6, 256)
    for token, channel in ((0, 0), (4, 77), (5, 255), (2, 130)):
        row, column = divmod(token, 3)
        pixel, cell = divmod(channel, 4)
        y, x = row * 16 + cell // 2 * 8 + pixel // 8, column * 16 + cell % 2 * 8 + pixel % 8
        assert tokens[0, token, channel] == mask[0, 0, y, x]


def test_soft_masks_have_the_mean_of_a_cell() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :4] = 1
    assert cell_mask(mask, 1, (2, 2), soft=True).tolist() == [[[0.5, 0, 0.5, 0]]]
    assert cell_mask(mask, 1, (2, 2), soft=False).tolist() == [[[1, 0, 1, 0]]]


def test_the_rest_is_put_back_as_noisy_as_there() -> None:
    ones = torch.ones(1, 2, 4)
    keep = Keep(picture=2 * ones, noise=10 * ones, mask=torch.tensor([[[1.0] * 4, [0.25] * 4]]))
    out = keep(6 * ones, 0.5)
    assert out[0, 0].tolist() == [6] * 4 and out[0, 1].tolist() == [0.25 * 6 + 0.75 * 6] * 4
    assert keep(6 * ones, 0.0)[0, 1].tolist() == [0.25 * 6 + 0.75 * 2] * 4


@pytest.mark.parametrize("feather", [0, 1, 5, 30])
def test_outside_the_mask_not_one_value_changes(feather: int) -> None:
    old, new = picture(), picture(seed=1)
    mask = Image.new("L", old.size)
    mask.paste(255, (20, 10, 45, 32))
    out = np.asarray(paste(new, old, mask, feather))
    outside = np.asarray(mask) == 0
    assert np.array_equal(out[outside], np.asarray(old)[outside])
    assert not np.array_equal(out, np.asarray(old))


def test_the_seam_rises_from_the_edge_inwards() -> None:
    old, new = Image.new("RGB", (40, 9)), Image.new("RGB", (40, 9))
    new.paste((200, 200, 200), (20, 0, 40, 9))
    mask = Image.new("L", old.size)
    mask.paste(255, (20, 0, 40, 9))
    line = np.asarray(paste(new, old, mask, 4))[4, :, 0].astype(int)
    assert (line[:20] == 0).all() and (np.diff(line[19:]) >= 0).all() and 0 < line[21] < line[-1]


def test_colours_are_matched_where_both_show_the_same() -> None:
    old = picture()
    shifted = Image.fromarray((np.asarray(old) * 0.9 + 12).astype(np.uint8))
    mask = Image.new("L", old.size)
    mask.paste(255, (20, 10, 45, 32))
    gap = np.abs(np.asarray(paste(shifted, old, mask, 0)).astype(int) - np.asarray(old))
    assert gap.max() <= 2


def test_what_changed_is_found_whatever_the_overall_colour() -> None:
    old = picture()
    new = np.asarray(old).astype(int) + 9
    new[15:25, 20:30] = (255, 0, 0)
    mask = np.asarray(changed(Image.fromarray(new.clip(0, 255).astype(np.uint8)), old, 2)) > 0
    assert mask[15:25, 20:30].all() and mask.mean() < 0.35
    assert not np.asarray(changed(old, old, 2)).any()


def test_day_that_becomes_night_stays_night() -> None:
    old = picture()
    night = Image.fromarray((np.asarray(old) * 0.4).astype(np.uint8))
    out = np.asarray(paste(night, old, changed(night, old, 2), 2)).astype(int)
    assert np.abs(out - np.asarray(night)).mean() < np.abs(out - np.asarray(old)).mean() / 4


def test_an_expanded_picture_keeps_its_own_and_its_mask_reaches_in() -> None:
    old = picture()
    canvas, mask = opened(old, (10, 0, 0, 6), 3)
    assert canvas.size == mask.size == (70, 46)
    assert np.array_equal(np.asarray(canvas)[:40, 10:], np.asarray(old))
    kept = np.asarray(mask) == 0
    assert kept[:37, 13:].all() and kept.sum() == 37 * 57
    asked = unfolded(Request(init=old, expand=(10, 0, 0, 6), paste=3))
    assert asked.expand is None and asked.init is not None and asked.init.size == (70, 46)
    plain = Request(init=old)
    assert unfolded(plain) is plain


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"fluxone\[control\]"):
        canny(picture())
