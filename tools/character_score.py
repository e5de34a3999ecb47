"""What a fine-tuned storybook character is worth, by the judge: asked for by name in scenes that were not trained on.

    python tools/character_score.py FOLDER LORA[:SCALE]     # FOLDER as tools/storybook_character.py wrote it

prints the share of attributes that are right with the adapter and without: the character (name and colour), the other
thing (name and colour), where they stand, and the place.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from PIL import Image
from storybook_character import world_with

from fluxone import storybook
from fluxone.assembly import assemble
from fluxone.evaluate import judge
from fluxone.evaluate.verdict import judged
from fluxone.recipe import Recipe
from fluxone.request import Request

PARTS = ("things", "colours", "places", "stage")


def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("lora")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--thing", default="owl")
    parser.add_argument("--colour", default="purple")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sheet", type=Path)
    asked = parser.parse_args()
    world, look = world_with(asked.thing, asked.colour), judge.shipped()
    lines = (asked.folder / "asked.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    scenes = [storybook.scene(row["seed"], world) for row in rows]
    size = assemble(asked.model, Recipe(device="cpu")).variant.size
    truth = [Image.fromarray(storybook.render(scene, size)) for scene in scenes]
    told("rendered", scenes, look.look(truth), asked)
    for name, adapters in (("base", ()), ("adapter", (asked.lora,))):
        pipeline = assemble(asked.model, Recipe(device="cpu", adapters=adapters))
        for seed in range(asked.seeds):
            drawn = [
                pipeline(Request(prompt=row["prompt"], seed=Random(i).randrange(1 << 20) + seed)).images[0]
                for i, row in enumerate(rows)
            ]
            told(name, scenes, look.look(drawn), asked)
            if name == "adapter" and asked.sheet and not seed:
                storybook.sheet(drawn, [row["prompt"] for row in rows], 5).save(asked.sheet)


def told(name: str, scenes: list[storybook.Scene], seen: list[judge.Seen], asked: argparse.Namespace) -> None:
    """One line of shares, in percent."""
    verdicts = [judged(scene, one) for scene, one in zip(scenes, seen, strict=True)]
    ours = [[spot for spot in one.spots if spot.name == asked.thing] for one in seen]
    rows = {part: sum(v.parts[part] for v in verdicts) for part in PARTS}
    rows["is one"] = sum(len(spots) == 1 for spots in ours)
    rows["its colour"] = sum(any(spot.colour == asked.colour for spot in spots) for spots in ours)
    count = len(scenes)
    total = sum(rows.values()) / (count * len(rows))
    print(f"{name:9} {total:5.0%}  " + "  ".join(f"{part} {value / count:.0%}" for part, value in rows.items()))


if __name__ == "__main__":
    main()
