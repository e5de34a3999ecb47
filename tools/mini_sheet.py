"""Draw the README's sheet: sixteen prompts whose combinations the mini never saw, one seed, nothing picked.

    python tools/mini_sheet.py recipes/mini.toml docs/mini.png [--model mini]

The prompts are the captions of the first such scenes of each kind, in the world's own order.
"""

from __future__ import annotations

import argparse
from collections.abc import Hashable
from dataclasses import replace
from itertools import count
from pathlib import Path

from PIL import Image

from fluxone import Recipe, Request, assemble, storybook
from fluxone.storybook import Scene
from fluxone.train import config
from fluxone.train.data.scenes import VALIDATION, nth, world_of

KINDS = {"one": 3, "side": 4, "stack": 1, "count": 1, "sign": 3, "reading": 2, "inside": 1, "hiding": 1}
SCALE = 1.5  # of the printed pictures


def combination(scene: Scene) -> Hashable:
    """What a scene shows, wherever it is: its things with colours and texts, and how they stand to each other."""
    things = tuple((thing.name, thing.colour, thing.count, thing.text) for thing in scene.facts.things)
    return frozenset(things), tuple((r.name, things[r.subject], things[r.other]) for r in scene.facts.relations)


def prompts(recipe: Path) -> list[str]:
    """Captions of the first scenes of each kind whose combination is in none of the pool that was trained on.

    Scenes are held out by combination; signs only by their word, so for them the pool is searched.
    """
    data = config.read(recipe).data
    world = world_of(data)
    seen = {combination(nth(world, number)) for number in range(data.scenes)}
    found: list[str] = []
    for kind, wanted in KINDS.items():
        narrow = replace(world, kinds={kind: 1.0}, random_words=0.0)
        drawn = (storybook.scene(VALIDATION + seed, narrow) for seed in count())
        fresh = (s for s in drawn if combination(s) not in seen and (kind == "sign" or storybook.held_out(s)))
        captions: dict[Hashable, str] = {}
        while len(captions) < wanted:
            scene = next(fresh)
            captions.setdefault(scene.key, scene.caption)
        found += captions.values()
    return found


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pipeline = assemble(options.model, Recipe())
    captions = prompts(options.recipe)
    pictures = [pipeline(Request(prompt=caption, seed=options.seed)).images[0] for caption in captions]
    side = round(pictures[0].width * SCALE)
    large = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures]
    storybook.sheet(large, captions, 4).save(options.out)


if __name__ == "__main__":
    main()
