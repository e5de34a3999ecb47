"""What guessed steps save and cost: each row of `cache` at several limits, on a model's own pictures, as a table.

Drift: relative difference of the last latent, root of mean squares, to the one with all steps computed; mean and worst
over prompts. Time: processor seconds of a walk, against all computed.

    python tools/cache_measure.py [--model mini] [--steps 20] [--prompts 6] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fluxone.assembly import assemble
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from fluxone.request import Request

PROMPTS = (
    "a red car in the snow", "a fox reading a book under a tree", "a boat on a lake at night", "two cats on a sofa",
    "a castle on a hill at sunset", "a sign that says HELLO", "a blue bird on a branch", "a robot in a garden",
)  # fmt: skip
ROWS = (
    "first-block:0.04", "first-block:0.08", "first-block:0.12", "first-block:0.2", "first-block:0.3",
    "teacache:0.05", "teacache:0.1", "teacache:0.2", "teacache:0.3", "teacache:0.5",
    "taylor:2", "taylor:3", "taylor:4",
)  # fmt: skip


def walk(pipe: Pipeline, cache: str | None, request: Request) -> tuple[Tensor, float]:
    """The last latent, and processor seconds."""
    pipe.recipe = replace(pipe.recipe, cache=cache)
    job = pipe.prepare(pipe.resolve(request))
    start = time.process_time()
    *_, last = pipe.walk(job)
    return last.x, time.process_time() - start


def measure(model: str, steps: int, prompts: int) -> list[dict[str, Any]]:
    """Every row on every prompt, the ways taking turns."""
    pipe = assemble(model, Recipe(device="cpu"))
    drifts: dict[str, list[float]] = {row: [] for row in ROWS}
    times: dict[str, list[float]] = {row: [] for row in ("", *ROWS)}
    walk(pipe, None, Request(prompt="warm", steps=2))
    for seed, prompt in enumerate(PROMPTS[:prompts]):
        request = Request(prompt=prompt, steps=steps, seed=seed, sampler="euler")
        exact, took = walk(pipe, None, request)
        times[""].append(took)
        for row in ROWS:
            found, took = walk(pipe, row, request)
            times[row].append(took)
            drifts[row].append(float((found - exact).norm() / exact.norm()))
    whole = statistics.median(times[""])
    return [
        {
            "cache": row,
            "drift": statistics.mean(drifts[row]),
            "worst": max(drifts[row]),
            "time": statistics.median(times[row]) / whole,
        }
        for row in ROWS
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.model, options.steps, options.prompts)
    print("| cache | drift | worst | time |\n|---|---:|---:|---:|")
    for row in found:
        print(f"| {row['cache']} | {row['drift']:.3f} | {row['worst']:.3f} | {row['time']:.2f} |")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
