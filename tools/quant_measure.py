"""What each way of running the blocks costs and loses, on a network of 106 million random weights, as a table.

Error: of the velocity against float32, relative, root of mean squares, mean over eight noise levels. Time: processor
seconds of one step with one thread, the ways taking turns (A B C A B C ...), so that a slower moment meets them all;
the median.

    python tools/quant_measure.py [--rounds 2] [--against diffusers] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fluxone.nn.attention import ATTENTION
from fluxone.nn.rope import rotation
from fluxone.nn.tokens import image_ids, text_ids
from fluxone.nn.transformer import Flux, Modulation
from fluxone.quant.apply import quantize, settle
from fluxone.shapes import FluxShape

SHAPE = FluxShape(hidden=512, heads=8, axes=(8, 28, 28), double_blocks=6, single_blocks=12, text_dim=512, vec_dim=256)
GRID, TEXT = (16, 16), 64  # 256 image tokens, 64 of text
SIGMAS = (1.0, 0.95, 0.85, 0.75, 0.6, 0.45, 0.25, 0.1)
GUIDANCE = 3.5
GFLOP = 40.1  # of one step, counted by torch's FlopCounterMode without modulation


@dataclass(frozen=True)
class Way:
    """One way of running: what it is called, and the function from a noise level's number to a velocity."""

    name: str
    step: Callable[[int], Tensor]
    weights: int  # bytes


def network() -> Flux:
    """Random weights, as large as a trained network's, so that every part matters; all networks share them."""
    with torch.device("meta"):
        model = Flux(SHAPE)
    model.requires_grad_(False).load_state_dict(weights(), assign=True)
    return model.eval()


@cache
def weights() -> dict[str, Tensor]:
    """By native names, float32."""
    with torch.device("meta"):
        state = Flux(SHAPE).state_dict()
    make = torch.Generator().manual_seed(0)
    found = {}
    for name, empty in state.items():
        if empty.ndim < 2:
            found[name] = torch.ones(empty.shape) if name.endswith("scale") else torch.zeros(empty.shape)
        else:
            spread = (0.5 if "mod" in name else 1.0) / empty.shape[1] ** 0.5
            found[name] = torch.randn(empty.shape, generator=make).mul_(spread)
    return found


@dataclass(frozen=True)
class Inputs:
    """The same for all ways, float32: states at every noise level, text, pooled text."""

    img: Tensor
    txt: Tensor
    pooled: Tensor


def inputs() -> Inputs:
    """Seeded noise."""
    make = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=make)

    return Inputs(noise(len(SIGMAS), GRID[0] * GRID[1], 64), noise(1, TEXT, SHAPE.text_dim), noise(1, SHAPE.vec_dim))


def ours(name: str, model: Flux, given: Inputs, dtype: torch.dtype, attend: str) -> Way:
    """This project's step: modulation for all noise levels beforehand, in float32; rotation in float32."""
    model.attend = ATTENTION[attend]
    pe = rotation(torch.cat((text_ids(TEXT), image_ids(*GRID))), SHAPE.axes, SHAPE.theta)
    modulation = modulated().each(lambda rows: rows.to(dtype))
    txt = given.txt.to(dtype)

    @torch.inference_mode()
    def step(level: int) -> Tensor:
        return model.predict(given.img[level : level + 1].to(dtype), txt, pe, modulation.rows(level)).float()

    return Way(name, step, _bytes(model))


@cache
@torch.inference_mode()
def modulated() -> Modulation:
    """The modulation at every noise level, from the unrounded network."""
    exact, many = network(), len(SIGMAS)
    vec = exact.vector(torch.tensor(SIGMAS), torch.full((many,), GUIDANCE), inputs().pooled.expand(many, -1))
    return exact.modulation(vec)


def theirs(given: Inputs, dtype: torch.dtype) -> Way:
    """The same weights in diffusers, eager, its time and guidance rounded as it does."""
    from diffusers import FluxTransformer2DModel

    from fluxone.weights.configs import write_flux
    from fluxone.weights.formats import FORMATS
    from fluxone.weights.save import in_format

    torch.set_default_device("meta")
    config = {key: value for key, value in write_flux(SHAPE).items() if not key.startswith("_")}
    model = FluxTransformer2DModel(**config).eval().requires_grad_(False)
    torch.set_default_device("cpu")
    model.load_state_dict(in_format(weights(), FORMATS["diffusers transformer"]), assign=True)
    model.requires_grad_(False).to(dtype)
    ids, words = image_ids(*GRID), text_ids(TEXT)

    @torch.inference_mode()
    def step(level: int) -> Tensor:
        out = model(
            hidden_states=given.img[level : level + 1].to(dtype), encoder_hidden_states=given.txt.to(dtype),
            pooled_projections=given.pooled.to(dtype), timestep=torch.tensor([SIGMAS[level]]).to(dtype),
            guidance=torch.tensor([GUIDANCE]), img_ids=ids, txt_ids=words, return_dict=False,
        )[0]  # fmt: skip
        return out.float()

    return Way(f"diffusers eager {str(dtype).removeprefix('torch.')}", step, _bytes(model))


def _bytes(model: torch.nn.Module) -> int:
    """Of the parameters and packed weights; those in an order of the processor's own are not counted."""
    return sum(t.numel() * t.itemsize for t in (*model.parameters(), *model.buffers()))


ROWS = (  # scheme, type, attention
    (None, "float32", "sdpa"),
    ("packed", "float32", "sdpa"),
    (None, "bfloat16", "sdpa"),
    (None, "bfloat16", "matmul"),
    ("packed", "bfloat16", "matmul"),
    ("fp8", "bfloat16", "matmul"),
    ("int8", "bfloat16", "matmul"),
    ("int8-dynamic", "float32", "sdpa"),
    ("int8-dynamic", "bfloat16", "matmul"),
    ("nf4", "bfloat16", "matmul"),
)


def ways(given: Inputs, *, against: bool, only: str = "") -> list[Way]:
    """The rows of the table, or those whose name holds some words; the first is what errors are measured against."""
    rows = []
    for scheme, kind, attend in ROWS:
        if rows and only and not any(word in f"{scheme or 'plain'}, {kind}, {attend}" for word in only.split(";")):
            continue
        model, dtype = network(), getattr(torch, kind)
        settle(model, dtype) if scheme is None else quantize(model, scheme, dtype)
        rows.append(ours(f"{scheme or 'plain'}, {kind}, {attend}", model, given, dtype, attend))
    if against:
        rows += [theirs(given, torch.float32), theirs(given, torch.bfloat16)]
    return rows


def measure(rows: list[Way], rounds: int) -> list[dict[str, Any]]:
    """Error and time of every way; each round goes through all ways at every noise level."""
    times: list[list[float]] = [[] for _ in rows]
    errors: list[list[float]] = [[] for _ in rows]
    for _ in range(rounds):
        for level in range(len(SIGMAS)):
            exact = torch.zeros(0)
            for row, own, wrong in zip(rows, times, errors, strict=True):
                start = time.process_time()
                velocity = row.step(level)
                own.append(time.process_time() - start)
                exact = velocity if row is rows[0] else exact
                wrong.append(float((velocity - exact).norm() / exact.norm()))
    return [
        {
            "name": row.name,
            "bytes": row.weights,
            "seconds": statistics.median(own),
            "least": min(own),
            "error": statistics.mean(wrong),
            "errors": wrong[: len(SIGMAS)],
        }
        for row, own, wrong in zip(rows, times, errors, strict=True)
    ]


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| | error | ms a step | least | MB |", "|---|---:|---:|---:|---:|"]
    for row in found:
        time_told = f"{1000 * row['seconds']:.0f} | {1000 * row['least']:.0f}"
        lines.append(f"| {row['name']} | {row['error']:.2e} | {time_told} | {row['bytes'] / 1e6:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", choices=("diffusers",))
    parser.add_argument("--only", default="", metavar="WORDS;WORDS")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(ways(inputs(), against=options.against is not None, only=options.only), options.rounds)
    print(table(found))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
