"""Pictures of a storybook character that the mini has never seen, to fine-tune on, and scenes to ask for it in.

    python tools/storybook_character.py OUT --thing owl --colour purple --name zuri

writes OUT/pictures (12 pictures with captions) and OUT/asked.jsonl (20 other scenes: prompt, kind and seed of each).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from PIL import Image

from fluxone import storybook
from fluxone.storybook import Scene, World
from fluxone.storybook.record import read
from fluxone.storybook.stages import STAGES
from fluxone.variants import MINI
from fluxone.weights.load import shipped

KINDS = {"one": 0.4, "side": 0.6}
WORDINGS = 200  # captions drawn in search of one that names all


def world_with(thing: str, colour: str) -> World:
    """The mini's world with one more thing, which only comes in that colour."""
    own = read(shipped(MINI))
    assert own is not None, "the mini says its world"
    colours = own.colours if colour in own.colours else (*own.colours, colour)
    return replace(own, objects=(*own.objects, thing), colours=colours, kinds=KINDS, styles=())


def scenes(world: World, thing: str, colour: str, seed: int) -> Iterator[tuple[Scene, str]]:
    """Scenes with the character, each combination once, and a caption that names everything and its colours."""
    seen = set()
    for number in range(seed, 1 << 40):
        scene = storybook.scene(number, world)
        ours = [fact for fact in scene.facts.things if fact.name == thing and fact.colour == colour]
        key = (scene.key, scene.stage)
        if len(ours) != 1 or key in seen:
            continue
        for draw in range(WORDINGS):
            text = storybook.caption(scene, Random(draw))
            others = [f"{fact.colour} {fact.name}".strip() for fact in scene.facts.things if fact is not ours[0]]
            place = any(p in text for p in STAGES[scene.stage].phrases)
            if f"{colour} {thing}" in text and place and all(other in text for other in others):
                seen.add(key)
                yield scene, text
                break


def named(text: str, thing: str, colour: str, name: str) -> str:
    """The caption with the name in the place of what it looks like."""
    return re.sub(rf"\b(?:an? |the )?{colour} {thing}\b", name, text)


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--thing", default="owl")
    parser.add_argument("--colour", default="purple")
    parser.add_argument("--name", default="zuri")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--asked", type=int, default=20)
    parser.add_argument("--size", type=int, default=MINI.size)
    asked = parser.parse_args()
    world = world_with(asked.thing, asked.colour)
    found = scenes(world, asked.thing, asked.colour, 1)
    pictures = asked.out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for number in range(asked.count):
        scene, text = next(found)
        Image.fromarray(storybook.render(scene, asked.size)).save(pictures / f"{number:02}.png")
        caption = named(text, asked.thing, asked.colour, asked.name)
        (pictures / f"{number:02}.txt").write_text(caption + "\n", encoding="utf-8")
    rows = []
    for _ in range(asked.asked):
        scene, text = next(found)
        rows.append({"prompt": named(text, asked.thing, asked.colour, asked.name), "plain": text, "seed": scene.seed})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (asked.out / "asked.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
