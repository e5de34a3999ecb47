"""Write what the mini knows into its page: its world's tables, an example of each kind of scene and edit, every word.

    python tools/mini_vocabulary.py docs/models.md

The world is the one that is recorded beside the shipped weights. A test compares the page with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fluxone import storybook
from fluxone.evaluate.run import world_of
from fluxone.storybook.edits import named
from fluxone.storybook.idioms import SHADES, SYNONYMS
from fluxone.storybook.rig import POSES
from fluxone.storybook.stages import STAGES
from fluxone.storybook.styles import STYLES
from fluxone.storybook.worlds import World
from fluxone.variants import MINI

BEGIN, END = "<!-- vocabulary: tools/mini_vocabulary.py writes what follows -->", "<!-- vocabulary ends -->"
WIDTH = 118
TRIED = 2000  # scenes looked at for an example of each edit


def sections(world: World) -> dict[str, str]:
    """Heading -> what stands under it, generated from the world's tables."""
    rows: dict[str, Iterable[str]] = {
        "Things": (_with(name, SYNONYMS, world) for name in world.objects),
        "Colours": (_with(name, SHADES, world) for name in world.colours),
        "Places": (STAGES[name].place.removeprefix("the ") for name in world.stages),
    }
    if {"person", "two", "company"} & set(world.kinds):
        rows["People"] = (_with(name, SYNONYMS, world) for name in world.people)
        rows["Hair"] = (_with(name, SHADES, world) for name in world.hair)
        rows["Poses"] = dict.fromkeys(phrase for name in world.poses for phrase in POSES[name].phrases)
    rows["What text stands on"] = (_with(name, SYNONYMS, world) for name in world.signs)
    if world.styles:
        rows["Looks"] = (phrase for name in dict.fromkeys(world.styles) for phrase in STYLES[name].phrases)
    return {head: ", ".join(names) for head, names in rows.items()}


def _with(name: str, more: dict[str, tuple[str, ...]], world: World) -> str:
    others = more.get(name, ()) if world.fluent else ()
    return f"{name} ({', '.join(others)})" if others else name


def examples(world: World) -> list[str]:
    """A caption of each kind of scene: that of the first scene which is held out."""
    plain = replace(world, styled=0.0)
    return [storybook.nth(replace(plain, kinds={kind: 1.0}), 0, held_out=True).caption for kind in world.kinds]


def instructions(world: World) -> list[str]:
    """The first instruction of each kind of edit, as the world's scenes come."""
    found: dict[str, str] = {}
    for number in range(TRIED):
        name, _, text = named(storybook.nth(world, number), number, world=world)
        found.setdefault(name, text)
        if len(found) == len(world.edits):
            break
    return [found[name] for name in world.edits if name in found]


def page(world: World) -> str:
    """The part of the page between the two marks."""
    words = storybook.vocabulary(world)
    lines = [f"- **{head}**: {names}." for head, names in sections(world).items()]
    told = "\n".join(_filled(line, "  ") for line in lines)
    scenes = "\n".join(f"- {text}" for text in examples(world))
    edits = "\n".join(f"- {text}" for text in instructions(world))
    count = f"All {len(words)} words, besides those inside quotes, of which every letter and digit is known:"
    return (
        f"{told}\n\nOne caption of each kind of scene:\n\n{scenes}\n\nOne instruction of each kind of edit:\n\n{edits}"
        f"\n\n{count}\n\n{_filled(' '.join(words))}"
    )


def _filled(text: str, indent: str = "") -> str:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = indent + word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def written(text: str, world: World) -> str:
    """The page with what is between the marks as the world has it."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{page(world)}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    text = options.page.read_text(encoding="utf-8")
    options.page.write_text(written(text, world_of(MINI.name)), encoding="utf-8")


if __name__ == "__main__":
    main()
