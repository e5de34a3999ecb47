"""What fine-tuning is worth: a character and a brand's look, learnt from twelve pictures each, measured, written down.

    python tools/tune_figures.py [--only character] [--model mini] [--seeds 2] [--prompts 24] OUT [-- TRAIN OPTIONS]

makes OUT/character/pictures, runs `fluxone train character` on them, and asks base and adapter by name for twenty
scenes that were not learnt from: which of the attributes are right (`tune_subjects`). Then suites of
`fluxone evaluate` that need words alone, without the name: what is lost elsewhere, in points. The same for the style.
Writes OUT/figures.json, OUT/figures.md and a sheet of each. `--quick` does all of it at sizes that say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tune_subjects as subjects
from PIL import Image

from fluxone import storybook
from fluxone.assembly import assemble
from fluxone.evaluate import run, witness
from fluxone.evaluate.bench import Bench
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from fluxone.request import Request

SUITES = ("objects", "relations", "counts", "people", "reading", "typography")
NAMES = {"character": ("zuri", "girl"), "style": ("lumo", "")}
LEARNT, ASKED = 12, 20  # pictures
WANTED, MOST, LOST = 0.85, 0.40, 3.0  # of the attributes with the adapter, and without it; points lost elsewhere
MINUTES = 15.0
AT_ONCE = 4


def train(what: str, folder: Path, asked: argparse.Namespace) -> float:
    """Fine-tune as anybody would, on the command line; minutes that it took, all in all."""
    name, kind = NAMES[what]
    line = [sys.executable, "-m", "fluxone", "train", what, str(folder / "pictures"), "--model", asked.model]
    line += ["--name", name, *(("--class", kind) if kind else ()), "-o", str(folder / "run"), "--fresh", *asked.options]
    began = time.monotonic()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "100"})
    return (time.monotonic() - began) / 60


def draw(pipeline: Pipeline, prompts: Sequence[str], seeds: int, steps: int | None) -> list[Image.Image]:
    """Pictures of each prompt, one a seed."""
    requests = [Request(prompt=text, seed=1000 * k + i, steps=steps) for k in range(seeds) for i, text in
                enumerate(prompts)]  # fmt: skip
    few = [requests[i : i + AT_ONCE] for i in range(0, len(requests), AT_ONCE)]
    return [image for some in few for one in pipeline.together(some) for image in one.images]


def attributes(what: str, pictures: Sequence[Image.Image]) -> dict[str, float]:
    """The share of the pictures in which each attribute is right, and of all together."""
    rows = [subjects.READ[what](picture) for picture in pictures]
    found = {name: sum(row[name] for row in rows) / len(rows) for name in subjects.PARTS[what]}
    return {"all": sum(found.values()) / len(found)} | found


def elsewhere(pipeline: Pipeline, asked: argparse.Namespace) -> dict[str, float]:
    """The share of right pictures in each suite that can be scored."""
    bench = Bench(pipeline=pipeline, world=run.world_of(asked.model), judge=witness.shipped(),
                  prompts=asked.prompts, seeds=1, steps=asked.draw_steps, tell=tell)  # fmt: skip
    scores = run.evaluate(bench, asked.suites).scores
    for score in scores:
        if score.skipped:
            tell(f"{score.suite} is not scored: {score.skipped}")
    return {score.suite: score.lines[0].figure.value for score in scores if not score.skipped}


def measure(what: str, asked: argparse.Namespace) -> dict[str, Any]:
    """All figures of one kind."""
    folder = asked.out / what
    wanted = subjects.MADE[what](asked.scenes, apart=True)
    if not (folder / "pictures").exists():
        subjects.write(subjects.MADE[what](LEARNT, apart=False), folder / "pictures")
    tell(f"{what}: training")
    minutes = train(what, folder, asked)
    prompts = [one.text for one in wanted]
    told: dict[str, Any] = {"minutes": round(minutes, 2), "prompts": prompts}
    told["rendered"] = attributes(what, [one.picture for one in wanted])
    drawn = {}
    adapter = folder / "run" / f"{NAMES[what][0]}.safetensors"
    for side, adapters in (("base", ()), ("adapter", (str(adapter),))):
        tell(f"{what}: {side}")
        pipeline = assemble(asked.model, Recipe(device="cpu", adapters=adapters))
        drawn[side] = draw(pipeline, prompts, asked.seeds, asked.draw_steps)
        told[side] = attributes(what, drawn[side])
        told[f"{side} elsewhere"] = elsewhere(pipeline, asked)
    told["lost"] = lost(told["base elsewhere"], told["adapter elsewhere"])
    pairs = list(zip(drawn["base"], drawn["adapter"], strict=True))[: asked.scenes]
    rows = [picture for pair in pairs for picture in pair]
    captions = [text for prompt in prompts for text in (f"base: {prompt}", f"adapter: {prompt}")]
    storybook.sheet(rows, captions, 8).save(folder / "sheet.png")
    told["settings"] = settings(adapter)
    told["holds"] = holds(told)
    return told


def lost(before: dict[str, float], after: dict[str, float]) -> float:
    """Points that the suites have lost, on average."""
    return 100 * float(np.mean([before[name] - after[name] for name in before])) if before else 0.0


def holds(told: dict[str, Any]) -> dict[str, bool]:
    """What was asked for, line by line."""
    return {
        f"{WANTED:.0%} of the attributes": told["adapter"]["all"] >= WANTED,
        f"the base under {MOST:.0%}": told["base"]["all"] < MOST,
        f"{LOST:g} points lost elsewhere at most": told["lost"] <= LOST,
        f"{MINUTES:g} minutes at most": told["minutes"] <= MINUTES,
    }


def settings(adapter: Path) -> dict[str, Any]:
    """As the file's header says."""
    from fluxone.weights.safetensors import read_header

    found: dict[str, Any] = json.loads(read_header(adapter).metadata["fluxone.settings"])
    return found


def table(found: dict[str, dict[str, Any]], machine: str) -> str:
    """Markdown."""
    lines = [f"`python tools/tune_figures.py`, {machine}, {date.today()}.", ""]
    for what, told in found.items():
        lines += [f"| {what}, {len(told['prompts'])} scenes | base | adapter | as rendered |", "|---|---|---|---|"]
        for part in told["adapter"]:
            sides = (told[side][part] for side in ("base", "adapter", "rendered"))
            lines.append(f"| {part} | {' | '.join(f'{value:.0%}' for value in sides)} |")
        for suite, before in told["base elsewhere"].items():
            lines.append(f"| elsewhere: {suite} | {before:.0%} | {told['adapter elsewhere'][suite]:.0%} | |")
        lines += ["", f"{told['minutes']:.1f} minutes; elsewhere {told['lost']:.1f} points lost on average. "
                  + "; ".join(f"{name}: {'yes' if kept else 'no'}" for name, kept in told["holds"].items()) + ".",
                  ""]  # fmt: skip
    return "\n".join(lines)


def tell(line: str) -> None:
    """On standard error, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Make, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=tuple(NAMES))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each scene")
    parser.add_argument("--scenes", type=int, default=ASKED)
    parser.add_argument("--prompts", type=int, default=24, help="of each suite")
    parser.add_argument("--suites", type=lambda text: tuple(text.split(",")), default=SUITES)
    parser.add_argument("--draw-steps", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("options", nargs="*", help="of `fluxone train`, after --")
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.scenes, asked.prompts, asked.draw_steps, asked.suites = 1, 4, 1, 2, ("objects",)
        asked.options = [*asked.options, "--steps", "4", "--set", "looks=1", "--set", "look_steps=1"]
    asked.out.mkdir(parents=True, exist_ok=True)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    found: dict[str, dict[str, Any]] = {}
    for what in (asked.only,) if asked.only else NAMES:
        found[what] = measure(what, asked)
        (asked.out / "figures.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (asked.out / "figures.md").write_text(table(found, machine), encoding="utf-8")
    print(table(found, machine))


if __name__ == "__main__":
    main()
