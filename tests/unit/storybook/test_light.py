"""Styles that light makes, and the two engines that draw the layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fluxone import storybook
from fluxone.errors import MissingExtra, UnknownName
from fluxone.storybook import WORLDS, engines
from fluxone.storybook.styles import STYLES

pytest.importorskip("resvg_py")
FULL = WORLDS["full"]
SIDE = 96


def scene(index: int, style: str) -> storybook.Scene:
    return replace(storybook.scene(index, FULL), style=style, stage="meadow")


def test_a_photograph_is_its_seed() -> None:
    one, two = (storybook.render(scene(4, "photo"), SIDE) for _ in range(2))
    assert np.array_equal(one, two)
    other = storybook.render(replace(scene(4, "photo"), seed=99), SIDE)
    assert not np.array_equal(one, other)


def test_a_photograph_has_grain_blur_and_vignette() -> None:
    bare = replace(scene(4, ""), items=())
    flat, photo = (storybook.render(replace(bare, style=style), SIDE).astype(float) for style in ("", "photo"))
    plain = replace(bare, stage="plain")
    noise = np.diff(storybook.render(replace(plain, style="photo"), SIDE).astype(float)[60:80, 40:60], axis=1)
    assert 1 < noise.std() < 8
    assert np.abs(np.diff(photo, axis=1)).max() < 0.7 * np.abs(np.diff(flat, axis=1)).max()
    corners = photo[[0, 0, -1, -1], [0, -1, 0, -1]].mean() / flat[[0, 0, -1, -1], [0, -1, 0, -1]].mean()
    middle = photo[40:56, 40:56].mean() / flat[40:56, 40:56].mean()
    assert corners < 0.92 * middle


def test_a_photograph_is_lit_from_a_side() -> None:
    found = storybook.nth(FULL, next(i for i in range(200) if _white(storybook.nth(FULL, i))))
    shown = storybook.render(replace(found, style="photo"), SIDE).astype(float)
    labels = storybook.render(found, SIDE, mode="labels") > 0
    columns = np.where(labels.any(0))[0]
    left, right = (shown[:, half][labels[:, half]].mean() for half in np.array_split(columns, 2))
    assert abs(left - right) > 4


def _white(found: storybook.Scene) -> bool:
    return found.kind == "one" and found.facts.things[0].name in ("football", "ghost", "snowman", "drum")


def test_moonlight_is_dark_and_blue() -> None:
    day, night = (storybook.render(scene(7, style), SIDE).astype(float) for style in ("", "night"))
    assert night.mean() < 0.6 * day.mean()
    assert night[:10].mean((0, 1))[2] > 1.3 * night[:10].mean((0, 1))[0]


@pytest.mark.parametrize("mode", ["depth", "labels", "pose"])
def test_light_is_in_colour_pictures_only(mode: str) -> None:
    one, two = (storybook.render(scene(7, style), SIDE, mode=mode) for style in ("", "photo"))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("style", ["", *STYLES])
def test_the_engines_agree(style: str) -> None:
    pytest.importorskip("skia")
    for index in range(4):
        one, two = (
            storybook.render(scene(index, style), 256, engine=engine).astype(float) for engine in engines.ENGINES
        )
        assert np.abs(one - two).mean() < 3


def test_an_engine_that_is_none() -> None:
    with pytest.raises(UnknownName, match="resvg"):
        storybook.render(scene(0, ""), 32, engine="resvgg")


def test_without_skia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skia", None)
    with pytest.raises(MissingExtra, match="skia"):
        storybook.render(scene(0, ""), 32, engine="skia")
