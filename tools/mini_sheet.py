"""Draw the sheets of docs/models.md: what each of the mini family makes of prompts it never saw; one seed, none picked.

    python tools/mini_sheet.py docs/sheets                     every sheet whose model is here
    python tools/mini_sheet.py docs/sheets overview edits --seed 1 --count 8

Prompts, and the pictures that are given with them, are the first of each suite of `fluxone evaluate`, in its order:
what the figures are about is what the sheets show. A given picture stands before what was drawn from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from PIL import Image

from fluxone import Recipe, assemble, storybook
from fluxone.evaluate.given import HOLE, Prompt, request, shown
from fluxone.evaluate.run import world_of
from fluxone.evaluate.suites import SUITES
from fluxone.pipeline import Pipeline
from fluxone.request import Request
from fluxone.storybook import World
from fluxone.variants import FAMILY, MINI, Variant
from fluxone.weights.shipped import place

COLUMNS = 8
QUALITY = 88  # of the JPEGs
OVERVIEW = (
    "objects", "relations", "counts", "typography", "people", "reading", "inside", "hidden", "company", "holding",
    "styles", "phrases",
)  # fmt: skip
IN_ALL = 16
MARGIN, OVERLAP = 32, 8  # px that are cut from either side to be drawn anew, and of the seam

Cell = tuple[Image.Image, str]


@dataclass(frozen=True, kw_only=True)
class Book:
    """What sheets are drawn with."""

    world: World
    count: int
    seed: int

    def draw(self, name: str, prompt: Prompt, *, steps: int | None = None) -> Image.Image:
        """One picture of a prompt by a row of the family."""
        pipeline = model(name)
        asked = request(prompt, seed=self.seed, steps=steps or pipeline.variant.steps, size=pipeline.variant.size)
        return pipeline(asked).images[0]

    def asked(self, suite: str, count: int) -> list[Prompt]:
        """The first prompts of a suite, as many of each sort as of the others."""
        row = SUITES[suite]
        if not set(row.search.kinds) & set(self.world.kinds) or (row.world and not getattr(self.world, row.world)):
            return []
        found = row.find(row.search, self.world, count)
        sorts = list(dict.fromkeys(prompt.sort for prompt in found))
        each = {sort: [prompt for prompt in found if prompt.sort == sort] for sort in sorts}
        return [own[n] for n in range(max(map(len, each.values()))) for own in each.values() if n < len(own)][:count]


@cache
def model(name: str) -> Pipeline:
    """A row of the family, loaded once."""
    return assemble(name, Recipe())


def overview(book: Book) -> list[Cell]:
    """Sixteen prompts of all kinds, as many of each as of the others, from all over its suite."""
    found = [own for suite in OVERVIEW if (own := book.asked(suite, IN_ALL))]
    each = -(-IN_ALL // len(found))
    asked = [prompt for own in found for prompt in own[:: max(1, len(own) // each)][:each]][:IN_ALL]
    return [(book.draw(MINI.name, prompt), prompt.text) for prompt in asked]


def from_words(suite: str) -> Callable[[Book], list[Cell]]:
    """A suite of words alone."""

    def made(book: Book) -> list[Cell]:
        return [(book.draw(MINI.name, prompt), prompt.text) for prompt in book.asked(suite, 2 * book.count)]

    return made


def from_pictures(suite: str) -> Callable[[Book], list[Cell]]:
    """A suite whose prompts come with pictures: those before what was drawn."""

    def made(book: Book) -> list[Cell]:
        row = drawer(suite)
        assert row is not None, "there are sheets of those alone that have one"
        cells: list[Cell] = []
        for prompt in book.asked(suite, book.count):
            size = model(row.name).variant.size
            cells.append((before(prompt, size), "given"))
            cells.append((book.draw(row.name, prompt), prompt.text or "no words"))
        return cells

    return made


def before(prompt: Prompt, size: int) -> Image.Image:
    """The last picture that a prompt comes with; a hole in the one before it."""
    last = prompt.given[-1]
    picture = shown(last.scene, last.mode, size)
    if last.mode != HOLE:
        return picture
    holed = shown(prompt.given[0].scene, "rgb", size).copy()
    holed.paste("white", mask=picture.convert("L"))
    return holed


def steps(book: Book) -> list[Cell]:
    """The same prompts in 1, 2 and 4 steps of mini-schnell, and in 20 of the mini."""
    cells: list[Cell] = []
    for prompt in book.asked("relations", book.count // 2) + book.asked("people", book.count // 2):
        for count in (1, 2, 4):
            cells.append((book.draw("mini-schnell", prompt, steps=count), f"{count}: {prompt.text}"))
        cells.append((book.draw(MINI.name, prompt), f"mini, {MINI.steps}: {prompt.text}"))
    return cells


def raw(book: Book) -> list[Cell]:
    """The same prompts and seed by the mini and by mini-raw."""
    asked = [prompt for suite in ("relations", "people") for prompt in book.asked(suite, book.count // 2)]
    return [(book.draw(name, prompt), f"{name}: {prompt.text}") for prompt in asked for name in (MINI.name, "mini-raw")]


def ultra(book: Book) -> list[Cell]:
    """The same prompts at the mini's size, and in two passes at twice that each way."""
    cells: list[Cell] = []
    for prompt in book.asked("objects", book.count // 4) + book.asked("people", book.count // 4):
        asked = request(prompt, seed=book.seed, steps=MINI.steps, size=2 * MINI.size)
        cells.append((book.draw(MINI.name, prompt), f"mini: {prompt.text}"))
        large = model(MINI.name)(replace(asked, ultra="tiled")).images[0]
        cells.append((large, f"ultra, {large.width} px: {prompt.text}"))
    return cells


def expand(book: Book) -> list[Cell]:
    """The middle of true pictures, and what was drawn around it."""
    cells: list[Cell] = []
    own = model("mini-fill")
    for prompt in book.asked("objects", book.count // 2) + book.asked("relations", book.count // 2):
        true = shown(prompt.scene, "rgb", own.variant.size)
        middle = true.crop((MARGIN, 0, true.width - MARGIN, true.height))
        borders = (MARGIN, MARGIN, 0, 0)
        asked = Request(prompt=prompt.text, seed=book.seed, init=middle, strength=1.0, expand=borders, paste=OVERLAP)
        framed = Image.new("RGB", true.size, "white")
        framed.paste(middle, (MARGIN, 0))
        cells += [(framed, "given"), (own(asked).images[0], prompt.text)]
    return cells


def drawer(suite: str) -> Variant | None:
    """The row of the family that a suite is drawn by, if it has one."""
    row = SUITES[suite]
    rows = (own for own in FAMILY if row.takes in own.takes and (not row.map or row.map in own.maps))
    return next(rows, None)


GIVEN = {name: row.name for name, suite in SUITES.items() if suite.takes and (row := drawer(name))}
SHEETS: dict[str, Callable[[Book], list[Cell]]] = {
    "overview": overview,
    **{name: from_words(name) for name, row in SUITES.items() if row.takes is None},
    **{name: from_pictures(name) for name in GIVEN},
    "steps": steps,
    "raw": raw,
    "expand": expand,
    "ultra": ultra,
}
NEEDS = {"steps": "mini-schnell", "raw": "mini-raw", "expand": "mini-fill", **GIVEN}


def absent(names: Sequence[str]) -> list[str]:
    """Sheets whose model is not in the package."""
    rows = {row.name: row for row in FAMILY}
    return [name for name in names if name in NEEDS and not place(rows[NEEDS[name]]).exists()]


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sheets", nargs="*", default=list(SHEETS), help=f"Of {', '.join(SHEETS)}; default: all.")
    parser.add_argument("--count", type=int, default=COLUMNS, help="Prompts a sheet.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, help="Of a picture, px; default: as drawn.")
    options = parser.parse_args()
    if unknown := [name for name in options.sheets if name not in SHEETS]:
        parser.error(f"no sheet is called {unknown[0]}")
    book = Book(world=world_of(MINI.name), count=options.count, seed=options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    missing = absent(options.sheets)
    for name in options.sheets:
        if name in missing:
            print(f"{name}: {NEEDS[name]} is not in the package")
            continue
        cells = SHEETS[name](book)
        if not cells:
            print(f"{name}: the world of {MINI.name} has nothing of it")
            continue
        width = options.width or cells[0][0].width
        pictures = [picture.convert("RGB").resize((width, width), Image.Resampling.LANCZOS) for picture, _ in cells]
        page = storybook.sheet(pictures, [text for _, text in cells], COLUMNS)
        path = options.folder / f"{name.replace(' ', '-')}.jpg"
        page.save(path, quality=QUALITY)
        print(path, flush=True)


if __name__ == "__main__":
    main()
