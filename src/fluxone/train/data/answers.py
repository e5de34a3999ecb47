"""Where things are, as answers to learn: for every cell of a grid, which thing, colour and letter is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from fluxone.storybook import Scene, World
from fluxone.storybook.library import lettering
from fluxone.storybook.props import lines
from fluxone.storybook.spec import Sign, Thing
from fluxone.train.data.scenes import nth
from fluxone.train.tokenizer import CHARACTERS

SURVEYED = 3000  # scenes looked at to learn which names a world has
LETTERS = {letter: i for i, letter in enumerate(CHARACTERS, start=1)}  # 0: none
# Where a person's colours are, as shares of the figure's height from the top.
PERSON = {"hair": (0.0, 0.22), "shirt": (0.42, 0.64), "trousers": (0.68, 0.9)}
CAP = 0.36  # half of a line of text that is certainly inked, in em


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The names and colours of a world, numbered. Stages are names too: they are what empty cells show."""

    names: dict[str, int]
    colours: dict[str, int]

    def grid(self, scene: Scene, side: int) -> Int[Tensor, "2 cells"]:
        """For a grid of side x side cells: the number of the name, and of the colour, at each cell's centre."""
        names = torch.full((side, side), self.names[f"stage {scene.facts.stage}"])
        colours = torch.zeros((side, side), dtype=torch.long)
        for thing in scene.facts.things:
            left, top, right, bottom = (round(edge * side) for edge in thing.box)
            rows, columns = slice(max(0, top), max(top + 1, bottom)), slice(max(0, left), max(left + 1, right))
            names[rows, columns] = self.names.get(thing.name, 0)
            colours[rows, columns] = self.colours.get(thing.colour, 0)
            for name, (high, low) in PERSON.items():
                if word := _worn(thing, name):
                    part = slice(rows.start + round(high * (rows.stop - rows.start)),
                                 rows.start + round(low * (rows.stop - rows.start)))  # fmt: skip
                    colours[part, columns] = self.colours.get(word, 0)
        return torch.stack([names.flatten(), colours.flatten()])

    def letters(self, scene: Scene, side: int) -> Int[Tensor, " cells"]:
        """For a grid of side x side cells: the number of the letter at each cell's centre, 0 where none is."""
        found = torch.zeros((side, side), dtype=torch.long)
        centres = [100 * (cell + 0.5) / side for cell in range(side)]
        for sign in (item for item in scene.items if isinstance(item, Sign)):
            for text, height in lines(sign):
                ends = [lettering(text[: n + 1], sign.font).width * sign.em for n in range(len(text))]
                left = sign.x - ends[-1] / 2
                for column, x in enumerate(centres):
                    at = next((n for n, end in enumerate(ends) if left <= x < left + end), None)
                    if at is None:
                        continue
                    for row, y in enumerate(centres):
                        if abs(y - height) < max(CAP * sign.em, 50 / side):
                            found[row, column] = LETTERS.get(text[at], 0)
        return found.flatten()

    def shown(self, scene: Scene, side: int) -> Int[Tensor, "3 cells"]:
        """The numbers of name, colour and letter at each cell's centre."""
        return torch.cat([self.grid(scene, side), self.letters(scene, side)[None]])

    def bag(self, scene: Scene) -> Tensor:
        """Which names occur at all, as 0 and 1."""
        row = torch.zeros(len(self.names))
        row[[self.names[f"stage {scene.facts.stage}"], *(self.names.get(t.name, 0) for t in scene.facts.things)]] = 1
        return row


def survey(world: World) -> Answers:
    """Number the names and colours that a world's scenes have."""
    scenes: Sequence[Scene] = [nth(world, index) for index in range(SURVEYED)]
    names = {t.name for s in scenes for t in s.facts.things} | {f"stage {s.facts.stage}" for s in scenes}
    worn = {_worn(t, name) for s in scenes for t in s.facts.things for name in PERSON}
    colours = {t.colour for s in scenes for t in s.facts.things} | worn
    return Answers(
        names={name: i for i, name in enumerate(["", *sorted(names)])},
        colours={colour: i for i, colour in enumerate(["", *sorted(colours - {""})])},
    )


def _worn(thing: Thing, name: str) -> str:
    """The colour of that part of a person; empty for things."""
    if name == "trousers" and thing.detail("bottom") == "dress":
        return thing.detail("shirt")
    return thing.detail(name)
