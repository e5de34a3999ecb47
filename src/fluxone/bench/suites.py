"""What is measured: one row a suite. Each gives tables of rows, with the machine's ceilings from the same run.

    quick   one step of a network of 106 million numbers, ours beside diffusers; the mini from words to pixels
    full    the same with every quantization and more rounds
    blog    the real networks at 1024x1024: Schnell in 4 steps, Dev in 20, beside figures that others published
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from fluxone.assembly import assemble
from fluxone.bench import ceilings, ends
from fluxone.bench.measure import Row, Way, clock, take_turns
from fluxone.bench.nets import SIGMAS, Case, Given, ours, weights
from fluxone.bench.rivals import EVERYWHERE, RIVALS, named
from fluxone.errors import MissingExtra
from fluxone.extent import extent_of, shapes_of
from fluxone.geometry import Resolution
from fluxone.machine import here
from fluxone.nn.attention import ATTENTION
from fluxone.plan import Budget, best, choices
from fluxone.quant.apply import quantize, settle
from fluxone.quant.fused import fuse
from fluxone.recipe import Recipe
from fluxone.request import Request
from fluxone.shapes import FluxShape
from fluxone.variants import DEV, SCHNELL, Variant

Kind = tuple[str | None, str]  # scheme and type
Names = tuple[str, ...]  # of rivals
LOG = logging.getLogger("fluxone")
SMALL = Case(
    name="106 M",
    grid=(16, 16),
    text=64,
    shape=FluxShape(
        hidden=512, heads=8, axes=(8, 28, 28), double_blocks=6, single_blocks=12, text_dim=512, vec_dim=256
    ),
)
LIMITS = {"float32": 1e-5, "bfloat16": 0.02}  # errors up to which a time counts, without quantization
QUANT_LIMIT = 0.15
QUICK = ((None, "float32"), ("packed", "float32"), ("packed", "bfloat16"), ("int8-dynamic", "float32"))
FULL = (
    *QUICK, (None, "bfloat16"), ("int8-dynamic", "bfloat16"), ("int8", "bfloat16"), ("fp8", "bfloat16"),
    ("fp8-dynamic", "bfloat16"), ("nf4", "bfloat16"),
)  # fmt: skip
PUBLISHED = (  # as they were claimed; docs/performance.md says which of them can be
    ("RTX 4090, FP16, claimed", "schnell, 4 steps", 1.8, 16.8e9),
    ("RTX 4090, FP16, claimed", "dev, 20 steps", 12.4, 16.8e9),
    ("RTX 5090, FP8, claimed", "schnell, 4 steps", 0.65, 14.2e9),
    ("RTX 5090, FP8, claimed", "dev, 20 steps", 4.2, 14.2e9),
)


@dataclass(kw_only=True)
class Table:
    """Contestants of one case. `floor`: seconds that the ceilings allow, by type; `note`: what to know of it."""

    name: str
    rows: list[Row]
    base: str = ""
    floor: dict[str, float] = field(default_factory=dict)
    note: str = ""


def step_table(
    case: Case, device: torch.device, kinds: tuple[Kind, ...], *, rounds: int, levels: int, against: Names = ()
) -> Table:
    """One step of a network by every kind of weights and type, and by rivals, taking turns; the last eager one is the
    base. A rival that fails has a row that says so."""
    wide = torch.float32 if device.type == "cpu" else torch.bfloat16
    state = weights(case, device, wide)
    ways = [_way(case, state, quant, getattr(torch, kind), device) for quant, kind in kinds]
    beside, failed = _rivals(case, state, against, device)
    base = next((way.name for way in reversed(beside) if way.limit is None), "")
    rows = [*take_turns([*ways, *beside], device, rounds=rounds, levels=levels), *failed]
    reached = {key: rate for dtype in dict.fromkeys((wide, torch.bfloat16))
               for key, rate in ceilings.products(case, device, dtype).items()}  # fmt: skip
    extent = extent_of(DEV, {"transformer": case.shape, "autoencoder": ends.NO_PICTURE}, _size(case))
    work = extent.linear_flops * case.tokens / extent.tokens
    attends = max(ceilings.attentions(case, device, torch.bfloat16).values())
    attention = extent.attention_flops * (case.tokens / extent.tokens) ** 2 / attends
    return Table(
        name=f"one step, {case.name}, {case.tokens} tokens", rows=rows, base=base,
        floor={key: work / rate + attention for key, rate in reached.items()},
    )  # fmt: skip


def _size(case: Case) -> Resolution:
    return Resolution(width=16 * case.grid[1], height=16 * case.grid[0])


def _way(case: Case, state: dict[str, Tensor], quant: str | None, dtype: torch.dtype, device: torch.device) -> Way:
    model, given = ours(case, state), Given.of(case, device, dtype)
    modulation = given.modulation(model)
    if quant is None:
        settle(model, dtype)
        if device.type == "cuda":
            fuse(model)
    else:
        quantize(model, quant, dtype)
    model.attend = ATTENTION["sdpa"]
    word = str(dtype).removeprefix("torch.")
    limit = LIMITS[word] if quant in (None, "packed") else QUANT_LIMIT
    size = sum(tensor.numel() * tensor.itemsize for tensor in (*model.parameters(), *model.buffers()))
    step = partial(given.step, model, modulation)
    return Way(name=f"{quant or 'plain'}, {word}", step=step, limit=limit, weights=size)


def _rivals(
    case: Case, state: dict[str, Tensor], names: Names, device: torch.device
) -> tuple[list[Way], list[Row]]:
    """Those that can be made and take a step, and rows of those that cannot."""
    ways, failed = [], []
    for name in names:
        build, types = RIVALS[name]
        for dtype in types if device.type == "cpu" else types[-1:]:
            try:
                way = build(case, state, dtype, device)
                with torch.inference_mode():
                    way.step(0)
            except MissingExtra as error:
                LOG.warning("%s", error)
                break
            except Exception as error:  # noqa: BLE001  # whatever stops a rival, the others are measured
                LOG.warning("%s does not run: %s", named(name, dtype), str(error)[:300])
                failed.append(Row(name=named(name, dtype), failed=True))
            else:
                ways.append(way)
    return ways, failed


def mini_table(device: torch.device, *, rounds: int) -> Table:
    """The mini from words to pixels, by recipe."""
    ways, timed = [], clock(device)
    asked = Request(prompt="a red car in the snow", steps=8)
    recipes = {"float32": Recipe(), "packed": Recipe(quant="packed"), "taylor:2": Recipe(cache="taylor:2")}
    if device.type != "cpu":
        recipes.pop("packed")
    for name, recipe in recipes.items():
        pipe = assemble("mini", Recipe(**{**vars(recipe), "device": str(device), "dtype": "float32"}))
        request = pipe.resolve(asked)
        ways.append((name, partial(_drawn, pipe, request)))
        ways[-1][1]()
    rows = [Row(name=name) for name, _ in ways]
    exact = None
    for turn in range(rounds):
        for row, (_, draw) in zip(rows, ways, strict=True):
            pixels, seconds = timed(draw)
            row.seconds.append(seconds)
            exact = pixels if exact is None else exact
            if turn == 0:
                row.errors.append(float((pixels - exact).norm() / exact.norm()))
    return Table(name="the mini, 8 steps, words to pixels", rows=rows, base="float32")


@torch.inference_mode()
def _drawn(pipe: object, request: Request) -> Tensor:
    from fluxone.pipeline import Pipeline

    assert isinstance(pipe, Pipeline)
    pipe.forget()
    job = pipe.prepare(request)
    *_, last = pipe.walk(job)
    return pipe.decode(last.x, job.grid)


def blog(device: torch.device, *, against: Names, rounds: int) -> list[Table]:
    """The real networks: measured with random weights on an accelerator, planned on a CPU."""
    if device.type != "cuda":
        return [_planned(row, steps, device) for row, steps in ((SCHNELL, 4), (DEV, 20))]
    tables, against = [], tuple(name for name in against if name in EVERYWHERE)
    tail = ends.measure(device)
    for row, steps in ((SCHNELL, 4), (DEV, 20)):
        case = Case(name=row.name, shape=row.shape, grid=(64, 64), text=row.text_tokens)
        kinds = ((None, "bfloat16"), ("fp8-dynamic", "bfloat16"))
        table = step_table(case, device, kinds, rounds=rounds, levels=2, against=against)
        beside = tail[f"t5 {row.text_tokens}"] + tail["clip"] + tail["decode"]
        for one in table.rows:
            one.seconds = [beside + steps * seconds for seconds in one.seconds]
        table.name = f"{row.name}, {steps} steps, 1024x1024, random weights: text + steps + decode"
        table.rows += _claimed(row, steps)
        tables.append(table)
    return tables


def _claimed(variant: Variant, steps: int) -> list[Row]:
    return [
        Row(name=name, seconds=[seconds], peak=int(peak))
        for name, what, seconds, peak in PUBLISHED
        if what == f"{variant.name}, {steps} steps"
    ]


def _planned(variant: Variant, steps: int, device: torch.device) -> Table:
    row, shapes, packed = shapes_of(variant.name, Recipe())
    machine = here(str(device))
    extent = extent_of(row, shapes, Resolution(width=1024, height=1024), packed)
    found = choices(extent, Recipe(quant="auto", offload="auto"), machine, steps)
    chosen = best(found, Budget(device=machine.device, host=machine.device)) or found[0]
    own = Row(name=f"here, planned: {chosen.choice.quant}", seconds=[chosen.total], peak=chosen.device)
    note = "planned from rates, not measured: the real network takes minutes a step on a processor"
    return Table(name=f"{variant.name}, {steps} steps, 1024x1024", rows=[own, *_claimed(variant, steps)], note=note)


def quick(device: torch.device, *, against: Names, rounds: int) -> list[Table]:
    """A short look."""
    table = step_table(SMALL, device, QUICK, rounds=rounds, levels=4, against=against)
    return [table, mini_table(device, rounds=rounds + 1)]


def full(device: torch.device, *, against: Names, rounds: int) -> list[Table]:
    """Every kind of weights."""
    table = step_table(SMALL, device, FULL, rounds=2 * rounds, levels=len(SIGMAS), against=against)
    return [table, mini_table(device, rounds=2 * rounds)]


SUITES: dict[str, Callable[..., list[Table]]] = {"quick": quick, "full": full, "blog": blog}
