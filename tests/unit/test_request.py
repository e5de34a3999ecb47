"""Requests and sizes: defaults from the row, and what is refused in words that help."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from PIL import Image

from fluxone.errors import BadRequest
from fluxone.geometry import MAX_SIDE, Resolution
from fluxone.request import MAX_COUNT, MAX_PROMPT, MAX_SEED, MAX_STEPS, Request
from fluxone.variants import DEV, SCHNELL, VARIANTS


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_request_takes_what_it_leaves_open_from_the_row(name: str) -> None:
    row = VARIANTS[name]
    asked = Request(prompt="a fox").resolve(row)
    assert asked == replace(
        Request(prompt="a fox"),
        resolution=Resolution(height=row.size, width=row.size),
        steps=row.steps,
        sampler=row.sampler,
        guidance=row.guidance,
        manner=row.manner,
        strength=row.strength,
        ultra_strength=row.detail,
        hold=row.hold,
        schedule="shifted" if row.shifted else "linear",
        text_tokens=row.text_tokens,
    )
    assert asked.resolve(row) == asked


def test_what_is_asked_for_stays() -> None:
    size = Resolution(height=64, width=48)
    own = Request(
        steps=7, guidance=0.0, sampler="heun", schedule="beta", text_tokens=64, resolution=size, strength=0.3,
        ultra_strength=0.1, manner="in oil", hold=0.2,
    )  # fmt: skip
    assert own.resolve(DEV) == own
    assert Request(sigmas=(1.0, 0.5)).resolve(DEV).steps == 2
    assert own.resolve(replace(DEV, told=3.0)).guidance == 3.0  # but this: its network is told nothing else
    assert Request().resolve(replace(SCHNELL, shift=3.0)).schedule == "fixed"


def test_a_picture_to_start_from_gives_its_aspect() -> None:
    asked = Request(init=Image.new("RGB", (1600, 900))).resolve(DEV)
    assert asked.resolution == Resolution(width=1360, height=768)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("prompt", None, "prompt is NoneType"),
        ("prompt", "caf\udce9", "prompt holds '.udce9', which is no character"),
        ("negative", 5, "negative prompt is int"),
        ("clip_prompt", "\ud800", "prompt for CLIP holds"),
        ("clip_negative", "a" * (MAX_PROMPT + 1), "prompt for CLIP has 32001"),
        ("prompt", "a" * (MAX_PROMPT + 1), "32001 characters"),
        ("negative", "a" * (MAX_PROMPT + 1), "negative prompt has"),
        ("seed", -1, "seed is -1"),
        ("seed", MAX_SEED + 1, "seed is"),
        ("seed", 1.5, "whole number"),
        ("seed", 10**400, "seed is 1000000000"),
        ("guidance", 10**400, "guidance is 1000000000"),
        ("sigmas", (1.0, 10**-400, 0.5), "sigmas must fall"),
        ("sigmas", (float("nan"),), "sigmas must fall"),
        ("seed", True, "whole number"),
        ("count", 0, "count is 0"),
        ("count", MAX_COUNT + 1, "count is"),
        ("steps", 0, "steps is 0"),
        ("steps", MAX_STEPS + 1, "steps is"),
        ("steps", 2.5, "whole number"),
        ("guidance", -1, "guidance is -1"),
        ("guidance", float("nan"), "guidance is nan"),
        ("guidance", float("inf"), "guidance is inf"),
        ("cfg", -0.5, "cfg is"),
        ("cfg", float("nan"), "cfg is nan"),
        ("strength", 1.1, "strength is 1.1"),
        ("hold", -0.1, "hold is -0.1"),
        ("text_tokens", 0, "text tokens is 0"),
        ("text_tokens", 513, "text tokens is 513"),
        ("cfg_interval", (0.5, 0.2), "cfg interval"),
        ("cfg_interval", (-0.1, 1.0), "cfg interval"),
        ("sigmas", (), "sigmas must fall"),
        ("sigmas", (1.0, 1.0), "sigmas must fall"),
        ("sigmas", (1.5, 0.5), "sigmas must fall"),
        ("sigmas", (0.5, 0.0), "leave out the last 0"),
        ("sigmas", (1.0, float("nan")), "sigmas must fall"),
    ],
)
def test_what_cannot_be_is_refused(field: str, value: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        Request(**{field: value})


def test_the_empty_and_the_long_prompt_are_fine() -> None:
    assert Request(prompt="").prompt == ""
    assert len(Request(prompt="a" * 10_000).prompt) == 10_000


def test_requests_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Request().seed = 5  # type: ignore[misc]


@pytest.mark.parametrize("px", [0, -16, MAX_SIDE + 1, 10**9, 64.0, "64", None, True])
def test_sizes_that_are_none_are_refused(px: Any) -> None:
    for sides in ({"height": px, "width": 64}, {"height": 64, "width": px}):
        with pytest.raises(BadRequest, match=r"height|width"):
            Resolution(**sides)


def test_sizes_round_down_to_whole_tokens() -> None:
    odd = Resolution(height=1023, width=777)
    assert odd.whole() == Resolution(height=1008, width=768)
    assert (odd.grid, odd.cells, odd.tokens) == ((63, 48), (126, 96), 63 * 48)
    assert odd.whole(4) == Resolution(height=1020, width=776) and odd.grid_of(4) == (255, 194)
    assert odd.whole().whole() == odd.whole()
    for small in (Resolution(height=15, width=64), Resolution(height=64, width=15)):
        with pytest.raises(BadRequest, match="less than one token"):
            small.whole()
    for large, token in ((Resolution(height=4112, width=4096), 16), (Resolution(height=8192, width=8192), 16),
                         (Resolution(height=512, width=514), 2)):  # fmt: skip
        with pytest.raises(BadRequest, match=f"use at most 65536: {256 * token}x{256 * token} px"):
            large.whole(token)
    assert Resolution(height=8192, width=2048).tokens == 2**16
    assert Resolution(height=8, width=8).whole(4).grid_of(4) == (2, 2)


def test_sizes_are_read_as_people_write_them() -> None:
    wide = Resolution(width=1024, height=768)
    assert Resolution.parse("1024x768") == Resolution.parse("1024X768") == Resolution.parse("1024×768") == wide
    assert str(wide) == "1024x768" and Resolution.parse("512") == Resolution(width=512, height=512)
    for text in ("", "x", "axb", "10x", "1024x768x3", "1e3x5"):
        with pytest.raises(BadRequest):
            Resolution.parse(text)


@pytest.mark.parametrize(
    ("aspect", "size"), [("1:1", (1024, 1024)), ("16:9", (1360, 768)), ("9:16", (768, 1360)), ("21:9", (1568, 672))]
)
def test_aspects_become_sizes_of_the_same_area(aspect: str, size: tuple[int, int]) -> None:
    assert Resolution.from_aspect(aspect, 1024**2) == Resolution(width=size[0], height=size[1])


def test_an_aspect_too_long_for_any_picture_is_refused() -> None:
    with pytest.raises(BadRequest, match="the aspect 4000:3 makes 37392x32 px; no side can be longer than 8192 px"):
        Resolution.from_aspect("4000:3", 1024**2)


@pytest.mark.parametrize("aspect", ["", "16", "a:b", "0:1", "1:0", "-1:1", "1:1:1", "nan:1"])
def test_aspects_that_are_none_are_refused(aspect: str) -> None:
    with pytest.raises(BadRequest, match="aspect"):
        Resolution.from_aspect(aspect, 1024**2)
