"""The places a scene can be in: a sky, a ground, scenery drawn from a few variants, and what to call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from fluxone.storybook.canvas import SPAN, Canvas
from fluxone.storybook.scenery import (
    dunes,
    dusk,
    flakes,
    flowers,
    grass,
    meadow,
    mountains,
    nothing,
    pebbles,
    road,
    rug,
    sea,
    skyline,
    stars,
    wall,
    woods,
)

Scenery = Callable[[Canvas, Random, float], None]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row: phrases that follow a thing ("a cat in the snow"), a tag, colours, and two painters."""

    phrases: tuple[str, ...]
    tag: str
    place: str  # follows "change the background to"
    sky: tuple[str, str]
    ground: tuple[str, str]
    behind: Scenery  # over the sky, before the ground
    across: Scenery  # over the ground
    shadow: str = "#1d2a20"


STAGES: dict[str, Stage] = {
    "meadow": Stage(
        phrases=("in a green meadow", "in a meadow", "on the grass"),
        tag="meadow",
        place="a green meadow",
        sky=("#8fd3f4", "#e6f6ee"),
        ground=("#a9d86e", "#7fc05a"),
        behind=meadow,
        across=flowers,
    ),
    "beach": Stage(
        phrases=("on a sandy beach", "on the beach", "by the sea"),
        tag="beach",
        place="a sandy beach",
        sky=("#7fd0f5", "#e2f7fb"),
        ground=("#f7dfa0", "#eecb7d"),
        behind=sea,
        across=pebbles,
        shadow="#7a5a20",
    ),
    "snow": Stage(
        phrases=("in the snow", "on a snowy day"),
        tag="snow",
        place="the snow",
        sky=("#a9c9e8", "#e8f0f8"),
        ground=("#f6fafd", "#dbe8f2"),
        behind=mountains,
        across=flakes,
        shadow="#4a6a90",
    ),
    "night": Stage(
        phrases=("at night", "at night under the stars"),
        tag="night",
        place="night",
        sky=("#1f2a5c", "#4a4f93"),
        ground=("#3f6b58", "#2d5147"),
        behind=stars,
        across=nothing,
        shadow="#0a1420",
    ),
    "sunset": Stage(
        phrases=("at sunset", "in the evening sun"),
        tag="sunset",
        place="sunset",
        sky=("#f7936b", "#fde0a2"),
        ground=("#b58a5a", "#94694a"),
        behind=dusk,
        across=nothing,
        shadow="#3a1d10",
    ),
    "city": Stage(
        phrases=("in the city", "in a city street"),
        tag="city",
        place="the city",
        sky=("#b7dcf2", "#f1f2ea"),
        ground=("#b9bcc4", "#9da1ab"),
        behind=skyline,
        across=road,
        shadow="#202430",
    ),
    "room": Stage(
        phrases=("in a cozy room", "in a room", "at home"),
        tag="room",
        place="a cozy room",
        sky=("#f6dfc4", "#f3d3b0"),
        ground=("#c98f5e", "#b27a4c"),
        behind=wall,
        across=rug,
        shadow="#3a1d10",
    ),
    "forest": Stage(
        phrases=("in the forest", "in the woods"),
        tag="forest",
        place="the forest",
        sky=("#bfe3d0", "#e9f5e0"),
        ground=("#79ab5b", "#5e9149"),
        behind=woods,
        across=grass,
    ),
    "desert": Stage(
        phrases=("in the desert", "in a hot desert"),
        tag="desert",
        place="the desert",
        sky=("#ffd9a0", "#fff1d6"),
        ground=("#eebc72", "#dda056"),
        behind=dunes,
        across=pebbles,
        shadow="#6a3d10",
    ),
    "plain": Stage(
        phrases=("on a plain background", "on a blank page"),
        tag="plain background",
        place="a plain background",
        sky=("#e9f1f8", "#f6f1e8"),
        ground=("#f3ede2", "#e9e1d3"),
        behind=nothing,
        across=nothing,
        shadow="#4a4030",
    ),
}


def paint(c: Canvas, name: str, seed: int, horizon: float) -> None:
    """Draws the stage in colour."""
    stage, r = STAGES[name], Random(seed)
    c.fade(0, horizon, *stage.sky, tall=horizon + 8)
    stage.behind(c, r, horizon)
    c.fade(horizon, SPAN, *stage.ground)
    stage.across(c, r, horizon)
