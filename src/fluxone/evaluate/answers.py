"""Scene -> the answers that the judge learns, as arrays of fixed shapes. Fast and without torch, for render workers.

    places   (SPOTS, 4) float32   middle, width, height of each thing, in shares of the picture; 0 where there is none
    names    (SPOTS,)   int16     its number in the table, -1 where there is no thing
    colours  (SPOTS,)   int16
    details  (SPOTS, D) int16     of a person, -1 where it has no such detail
    whole    (2,)       int16     stage, style
    lines    (LINES, 4) float32   middle, width, em of each line of text; em 0 where there is none
    letters  (LINES, LONGEST)     int16, numbers in `LETTERS`, 0 behind the last
    ends     (LINES, LONGEST + 1) float32, where each letter begins and the last one ends, in em from the left edge
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluxone.evaluate.labels import LETTERS, TABLES
from fluxone.evaluate.truth import Spot, spots, written
from fluxone.storybook import Scene

SPOTS, LINES, LONGEST = 8, 4, 24
NUMBER = {letter: n for n, letter in enumerate(LETTERS)}
NAMES, COLOURS, STAGES, STYLES = (
    {word: n for n, word in enumerate(table)}
    for table in (TABLES.names, TABLES.colours, TABLES.stages, TABLES.styles)
)
DETAILS = {
    name: (place, {word: n for n, word in enumerate(table)})
    for place, (name, table) in enumerate(TABLES.details.items())
}


def targets(scene: Scene) -> dict[str, NDArray[np.generic]]:
    """What the judge should say about a picture of the scene. Things and lines beyond the room are left out."""
    things = spots(scene)[:SPOTS]
    places = np.zeros((SPOTS, 4), np.float32)
    names, colours = np.full(SPOTS, -1, np.int16), np.full(SPOTS, -1, np.int16)
    details = np.full((SPOTS, len(DETAILS)), -1, np.int16)
    for i, spot in enumerate(things):
        places[i] = spot.x, spot.y, spot.width, spot.height
        names[i], colours[i] = NAMES[spot.name], COLOURS[spot.colour]
        if spot.details:
            details[i] = _details(spot)
    lines, letters = np.zeros((LINES, 4), np.float32), np.zeros((LINES, LONGEST), np.int16)
    ends = np.zeros((LINES, LONGEST + 1), np.float32)
    for i, line in enumerate(written(scene)[:LINES]):
        count = min(len(line.text), LONGEST)
        lines[i] = line.x, line.y, line.width, line.em
        letters[i, :count] = [NUMBER.get(letter, 0) for letter in line.text[:count]]
        ends[i, : count + 1] = line.ends[: count + 1]
    whole = np.array([STAGES[scene.stage], STYLES[scene.style]], np.int16)
    return {"places": places, "names": names, "colours": colours, "details": details, "whole": whole,
            "lines": lines, "letters": letters, "ends": ends}  # fmt: skip


def _details(spot: Spot) -> list[int]:
    found = [-1] * len(DETAILS)
    for name, word in spot.details:
        place, numbers = DETAILS[name]
        found[place] = numbers[word]
    return found
