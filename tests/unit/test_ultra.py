"""Ultra: four times the area in two passes, the same in any batch, tiled as whole where one tile covers; raw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fluxone import ultra
from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.pipeline import Pipeline
from fluxone.request import Region, Request
from fluxone.sampling.schedule import Shift, shift_mu
from fluxone.variants import DEV, FILL, KREA, MINI, VARIANTS
from unit.test_regions import half
from unit.tiny import pipeline

ASKED = Request(prompt="a red car", ultra="tiled", ultra_strength=0.5, steps=4, seed=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("tiny"))


def test_a_picture_is_twice_the_variants_size_each_way(tiny: Pipeline) -> None:
    seen: list[int] = []
    result = tiny(replace(ASKED, count=2), on_step=lambda step: seen.append(step.x.shape[1]))
    assert [image.size for image in result.images] == [(64, 64)] * 2
    assert seen == [4, 4, 4, 4, 16, 16] * 2
    request = tiny.resolve(replace(ASKED, aspect="21:9"))
    assert ultra.composed(request).resolution == Resolution.from_aspect("21:9", 32**2)
    assert [grid for grid, _ in ultra.passes(tiny, request)] == [(1, 3), (2, 6)]
    assert [steps for _, steps in ultra.passes(tiny, request)] == [4, 2]
    asked = tiny.resolve(replace(ASKED, resolution=Resolution(height=50, width=80)))
    assert asked.resolution == Resolution(height=32, width=64), "the first pass has whole tokens too"


def test_a_seed_gives_the_same_picture_in_any_batch(tiny: Pipeline) -> None:
    asked = replace(ASKED, regions=(Region(prompt="fox", mask=half(255, 0)),), nag=3.0, negative="blur")
    alone, again = (tiny(replace(asked, seed=3)).images[0] for _ in range(2))
    assert np.array_equal(alone, again)
    both = tiny(replace(asked, count=2), batch=2).images[1]
    assert np.abs(np.subtract(both, alone, dtype=np.int16)).max() <= 1


def test_one_tile_that_covers_all_is_the_whole(tiny: Pipeline) -> None:
    request = tiny.resolve(replace(ASKED, ultra="whole"))
    first = tiny.prepare(request)
    assert first.following is not None and first.grid == (2, 2)
    x = [step.x for step in tiny.walk(replace(first, following=None))][-1]
    job = first.following(x)
    assert job.tile is None and job.grid == (4, 4)
    whole = [step.x for step in tiny.walk(job)][-1]
    covered = [step.x for step in tiny.walk(replace(job, tile=(4, 4)))][-1]
    assert torch.equal(whole, covered)
    parts = [step.x for step in tiny.walk(replace(job, tile=(2, 2)))][-1]
    assert not torch.equal(whole, parts) and torch.isfinite(parts).all()


def test_mu_grows_more_slowly_past_the_largest_count() -> None:
    shift = Shift.of(DEV)
    assert ultra.counted(4096, shift) == 4096 and ultra.counted(1000, shift) == 1000
    assert shift_mu(ultra.counted(16384, shift), shift) == pytest.approx(1.15 + np.log(2), abs=1e-3)
    assert shift_mu(16384, shift) > 3


def test_what_does_not_go_together_is_told(tiny: Pipeline) -> None:
    picture = half(0, 255)
    for fields in ({"references": (picture,)}, {"mask": picture, "init": picture}, {"sigmas": (1.0, 0.5)}):
        with pytest.raises(BadRequest, match="ultra is given with"):
            replace(ASKED, **fields)
    with pytest.raises(BadRequest, match="strength of ultra is 2"):
        replace(ASKED, ultra_strength=2)


def test_raw_asks_the_row() -> None:
    assert Request(raw=True).resolve(KREA).guidance == 2.5
    assert Request(raw=True, guidance=4.0).resolve(KREA).guidance == 4.0
    assert Request(raw=True).resolve(MINI).guidance == MINI.raw_guidance < MINI.guidance
    assert Request(raw=True).resolve(KREA).manner == ""
    with pytest.raises(BadRequest, match="fill has no raw pictures; models that do: mini, mini-raw, dev, krea"):
        Request(raw=True).resolve(FILL)
    for row in VARIANTS.values():
        if row.raw:
            assert VARIANTS[row.raw].raw == row.raw and VARIANTS[row.raw].takes == row.takes
