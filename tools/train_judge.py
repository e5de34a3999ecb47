"""Train the judge of `fluxone evaluate` from nothing, on rendered scenes, on a CPU, and save it.

    python tools/train_judge.py judge.safetensors --pictures 12000 --seconds 3600

On a machine with a GPU the same `Learner` is fed by whatever has pictures there already.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import torch

from fluxone import storybook
from fluxone.evaluate.learn import Learner, Move, targets
from fluxone.evaluate.network import SIZE
from fluxone.storybook import WORLDS, Facts, Scene, World
from fluxone.storybook.cast import choose, place, thing
from fluxone.storybook.compose import ROWS
from fluxone.storybook.generate import HORIZONS
from fluxone.storybook.objects import OBJECTS
from fluxone.train.optim import MuonAdamW, Rates

RATES = Rates(muon=4e-3, adam=3e-3)
HEADS = ("looker.cells", "looker.lines", "looker.whole", "reader.letters")
CHECK = 128  # held-out pictures that it is tried on
CROWDS = 0.35  # share of the pictures that show several different things: each teaches as many names
KINDS = {
    "one": 0.08, "side": 0.1, "stack": 0.04, "count": 0.1, "sign": 0.19, "saying": 0.05, "person": 0.08, "two": 0.03,
    "three": 0.05, "company": 0.05, "holding": 0.05, "between": 0.1, "sizes": 0.02, "reading": 0.03, "tree": 0.02,
    "front": 0.04, "table": 0.04, "inside": 0.04, "hiding": 0.08,
}  # fmt: skip
STYLED = 0.12

Answers = dict[str, torch.Tensor]


def optimizer(model: torch.nn.Module) -> Move:
    """Muon for the convolutions, AdamW for what is neither inside nor a matrix."""
    inside = {name for name, p in model.named_parameters() if p.ndim == 4 and not name.startswith(HEADS)}
    return MuonAdamW(model.named_parameters(), inside, RATES).step


def crowd(seed: int, world: World) -> Scene:
    """Three to six different things, in rows, in some place."""
    r = Random(seed)
    size, places = ROWS[r.choice((3, 4, 5, 6))]
    size *= r.uniform(0.85, 1.25)
    picks = []
    for _ in places:
        picks.append(choose(r, world, world.objects, but=tuple(pick.name for pick in picks)))
    items = tuple(
        place(r, pick, x + r.uniform(-4, 4), foot + r.uniform(-6, 3), size, widest=size * 1.1,
              shadow=not OBJECTS[pick.name].floats)
        for pick, (x, foot) in zip(picks, places, strict=True)
    )  # fmt: skip
    facts = tuple(thing(world, pick, items[n : n + 1], n) for n, pick in enumerate(picks))
    stage = r.choice(world.stages)
    return Scene(
        seed=seed,
        kind="crowd",
        items=items,
        stage=stage,
        stage_seed=r.randrange(1 << 30),
        horizon=r.choice(HORIZONS),
        facts=Facts(things=facts, stage=stage),
        key=("crowd", seed),
        style=r.choice(world.styles) if world.styles and r.random() < STYLED else "",
    )


def scenes(world: World) -> Iterator[Scene]:
    """Endless scenes to learn from; they may be of any combination, for the judge draws nothing."""
    r = Random(1)
    kinds = {name: share for name, share in KINDS.items() if name in world.kinds}
    busy = replace(world, kinds=kinds, styled=STYLED)
    while True:
        seed = r.getrandbits(48)
        yield crowd(seed, world) if r.random() < CROWDS else storybook.scene(seed, busy)


def drawn(scenes: list[Scene], engine: str) -> tuple[torch.Tensor, Answers]:
    """The pictures of the scenes, and the answers about them."""
    pictures = np.empty((len(scenes), SIZE, SIZE, 3), np.uint8)
    for n, scene in enumerate(scenes):
        pictures[n] = storybook.render(scene, SIZE, engine=engine)
    rows = [targets(scene) for scene in scenes]
    return torch.from_numpy(pictures), {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]}


def main() -> None:
    """Draw, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--world", default="full", choices=tuple(WORLDS))
    parser.add_argument("--pictures", type=int, default=12000, help="how many are drawn; 200 kB of memory each")
    parser.add_argument("--seconds", type=float, default=3600, help="of training")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--fresh", type=int, default=8, help="pictures drawn anew before each step; at least 1")
    parser.add_argument("--engine", default="resvg")
    parser.add_argument("--half", action="store_true", help="bfloat16: twice as fast where the CPU computes in it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    world = WORLDS[asked.world]
    check, right = drawn([storybook.nth(world, n, held_out=True) for n in range(CHECK)], asked.engine)
    source = scenes(world)
    pictures, answers = drawn(list(islice(source, asked.pictures)), asked.engine)
    learner, chance = Learner("cpu", optimizer=optimizer, half=asked.half), torch.Generator().manual_seed(0)
    began, step = time.monotonic(), 0
    while (progress := (time.monotonic() - began) / asked.seconds) < 1:
        first = step * asked.fresh
        places = [n % asked.pictures for n in range(first, first + asked.fresh)]
        more, said = drawn(list(islice(source, asked.fresh)), asked.engine)
        pictures[places] = more
        for name, values in said.items():
            answers[name][places] = values
        picked = torch.randint(len(pictures), (asked.batch,), generator=chance)
        losses = learner.step(pictures[picked], {k: v[picked] for k, v in answers.items()}, progress=progress)
        if step % 50 == 0:
            told = " ".join(f"{name} {float(value):.3f}" for name, value in losses.items())
            print(f"{step} {progress:.3f} {told}", flush=True)
        if step % 200 == 199:
            print(learner.score(check, right), flush=True)
            learner.save(asked.out)
        step += 1
    print(learner.score(check, right), flush=True)
    learner.save(asked.out)


if __name__ == "__main__":
    main()
