"""Where references stand, the sizes they get, and what is put around a picture of another shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fluxone.conditions.given import framed, pictures_of
from fluxone.conditions.reference import PLACES, Grid, offset, positions, size_for
from fluxone.geometry import KONTEXT_SIZES, Resolution
from fluxone.request import LAYOUTS, Request
from fluxone.variants import DEV, KONTEXT


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def by_comfy(grids: Sequence[Grid]) -> list[tuple[int, int, int]]:
    """The rule as ComfyUI states it: grow in the direction in which the whole is shorter."""
    height = width = 0
    out = []
    for rows, columns in grids:
        row = column = 0
        if rows + height > columns + width:
            column = width
        else:
            row = height
        out.append((1, row, column))
        height, width = max(height, rows + row), max(width, columns + column)
    return out


def test_every_layout_has_its_places() -> None:
    assert set(PLACES) == set(LAYOUTS)


def test_offsets_are_those_of_comfy_and_nothing_overlaps() -> None:
    source = np.random.default_rng(0)
    for _ in range(50):
        grids = [(int(r), int(c)) for r, c in source.integers(1, 9, (4, 2))]
        assert offset(grids) == by_comfy(grids)
        taken = torch.cat([positions(grid, place) for grid, place in zip(grids, offset(grids), strict=True)])
        assert len(torch.unique(taken, dim=0)) == len(taken)
    assert offset([(4, 2), (3, 3)]) == [(1, 0, 0), (1, 0, 2)]
    assert offset([(2, 4), (3, 3)]) == [(1, 0, 0), (1, 2, 0)]


def test_indices_count_up_from_one() -> None:
    assert PLACES["index"]([(2, 2)] * 3) == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
    assert positions((1, 2), (2, 3, 4)).tolist() == [[2, 3, 4], [2, 3, 5]]


@pytest.mark.parametrize("size", KONTEXT_SIZES)
def test_a_picture_of_a_preferred_size_keeps_it(size: tuple[int, int]) -> None:
    width, height = size
    assert size_for(Resolution(width=width, height=height), 1024) == Resolution(width=width, height=height)
    tenth = size_for(Resolution(width=width, height=height), 128)
    assert tenth.width % 16 == tenth.height % 16 == 0
    assert 0.7 < tenth.width * tenth.height / 128**2 < 1.3


def test_its_own_size_is_kept_in_whole_tokens_if_asked() -> None:
    own = Resolution(width=75, height=33)
    assert size_for(own, 1024, auto_resize=False) == Resolution(width=64, height=32)
    assert size_for(Resolution(width=3, height=3), 1024, auto_resize=False) == Resolution(width=16, height=16)


def test_what_comes_out_has_the_size_of_what_went_in() -> None:
    asked = Request(references=(picture(300, 200),)).resolve(KONTEXT)
    assert (asked.resolution, asked.frame) == (Resolution(width=1248, height=832), Resolution(width=300, height=200))
    again = asked.resolve(KONTEXT)
    assert again == asked
    drawn = framed(picture(1248, 832), asked, 16)
    assert drawn.size == (300, 200)
    sized = replace(asked, resolution=Resolution(width=64, height=64), frame=None)
    assert sized.resolve(KONTEXT).frame is None


def test_a_picture_of_another_shape_is_padded_with_its_border_and_cut_out_again() -> None:
    canvas, frame = Resolution(width=64, height=48), Resolution(width=100, height=30)
    asked = Request(references=(picture(100, 30),), resolution=canvas, frame=frame)
    left, top, width, height = frame.place_in(canvas)
    assert (left, top, width, height) == (0, 14, 64, 19)
    (pixels,) = pictures_of(replace(asked, auto_resize=False), size=1024, token=16).references
    assert pixels.shape == (1, 3, 16, 96)  # not the canvas: then it is no frame of this reference
    whole = pictures_of(replace(asked, references=(), init=picture(100, 30)), size=1024, token=16).init
    assert whole is not None and whole.shape == (1, 3, 48, 64)
    assert torch.equal(whole[:, :, 0], whole[:, :, 14]) and torch.equal(whole[:, :, -1], whole[:, :, 32])
    back = framed(picture(64, 48), asked, 16)
    assert back.size == (100, 30)


def test_a_picture_a_little_smaller_than_the_canvas_is_not_resampled() -> None:
    image = picture(50, 37)
    asked = Request(init=image, mask=Image.new("L", (50, 37), 255)).resolve(DEV)
    assert (asked.resolution, asked.frame) == (Resolution(width=64, height=48), Resolution(width=50, height=37))
    pixels = pictures_of(asked, size=1024, token=16).init
    assert pixels is not None
    inside = ((pixels[0, :, :37, :50].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    assert np.array_equal(inside, np.asarray(image))


def test_stitched_references_are_one() -> None:
    asked = Request(references=(picture(40, 40), picture(80, 80, 1)), layout="stitched", auto_resize=False)
    (one,) = pictures_of(asked.resolve(KONTEXT), size=1024, token=16).references
    assert one.shape == (1, 3, 32, 64)
    two = pictures_of(replace(asked, layout="index").resolve(KONTEXT), size=1024, token=16).references
    assert [tuple(pixels.shape[-2:]) for pixels in two] == [(32, 32), (80, 80)]
