"""`fluxone plan`: what each way of running a model will need, before anything is loaded."""

from __future__ import annotations

import click

from fluxone.cli import console, options
from fluxone.errors import BadRequest, pick
from fluxone.geometry import Resolution
from fluxone.recipe import AUTO, DTYPES, OFFLOADS, QUANTS, Recipe

UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "": 10**9}
ROWS = 12  # of the table, unless --all
EVERY = f"{AUTO} or one of"


@click.command("plan", short_help="What fits, before anything is loaded.")
@click.option("--model", default="dev", show_default=True, metavar="NAME", help=options.MODEL_HELP)
@click.option("--vram", metavar="SIZE", help="Memory of the device, as 12G. Default: what is free here.")
@click.option("--ram", metavar="SIZE", help="Memory beside it. Default: what is free here.")
@click.option("--machine", metavar="NAME", help="h200, rtx4090, ..., or cpu. Default: what is here.")
@click.option("--size", metavar="WxH", help="Default: the model's own.")
@click.option("--steps", type=int, help="Default: the model's own.")
@click.option("--quant", default=AUTO, show_default=True, metavar="NAME", help=f"{EVERY} {', '.join(QUANTS)}, none.")
@click.option("--quant-t5", default=AUTO, show_default=True, metavar="NAME", help="The same for the T5 encoder.")
@click.option("--offload", default=AUTO, show_default=True, metavar="NAME", help=f"{EVERY} {', '.join(OFFLOADS)}.")
@click.option("--dtype", metavar="NAME", help=f"{', '.join(DTYPES)}.")
@click.option("--tiled", is_flag=True, help="Only ways that decode in tiles.")
@click.option("--all", "every", is_flag=True, help="Also what does not fit, and every row.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def command(
    model: str, vram: str | None, ram: str | None, machine: str | None, size: str | None, steps: int | None,
    quant: str, quant_t5: str, offload: str, dtype: str | None, tiled: bool, every: bool, as_json: bool,
) -> int | None:  # fmt: skip
    """Peak memory and time of the ways of running MODEL, from its headers alone: the first row is the one to take."""
    console.listen(quiet=False)
    options.check_model(model)
    recipe = Recipe(
        dtype=dtype, quant=None if quant == "none" else quant, quant_t5=None if quant_t5 == "none" else quant_t5,
        offload=offload, tiled=tiled,
    )  # fmt: skip
    budgets = [None if text is None else read_bytes(text) for text in (vram, ram)]
    if steps is not None and steps < 1:
        raise BadRequest(f"--steps is {steps}", hint="use a number from 1 on")
    resolution = None if size is None else Resolution.parse(size)
    from fluxone.assembly import best_device
    from fluxone.extent import extent_of, shapes_of
    from fluxone.machine import LEFT, MACHINES, USUAL, available, cpu, free, here
    from fluxone.plan import Budget, best, choices, useful

    own = best_device()
    if machine is not None:
        planned = cpu() if machine == "cpu" else pick(MACHINES, machine, "machine of the table")
    else:
        planned = here(own) if budgets[0] is None or own == "cuda" else MACHINES[USUAL]
    at_hand = machine is None or machine == "cpu"
    here_free = free("cpu" if planned.kind == "cpu" else own) if at_hand else (planned.device, int(LEFT * available()))
    device, host = (given if given is not None else there for given, there in zip(budgets, here_free, strict=True))
    host = device if planned.kind == "cpu" else host
    variant, shapes, packed = shapes_of(model, recipe)
    picture = resolution or Resolution(width=variant.size, height=variant.size)
    found = choices(extent_of(variant, shapes, picture, packed), recipe, planned, steps or variant.steps)
    budget = Budget(device=device, host=host)
    chosen = best(found, budget)
    kept = found if every else useful([one for one in found if budget.holds(one)])
    kept = [*kept, *([chosen] if chosen and chosen not in kept else [])]
    rows = sorted(kept, key=lambda one: (one is not chosen, not budget.holds(one), one.total))
    if as_json:
        console.document({
            "model": model, "size": str(picture), "steps": steps or variant.steps, "machine": planned.name,
            "vram": device, "ram": host, "choices": [_row(one, budget.holds(one)) for one in rows],
        })  # fmt: skip
        return None
    if not rows:
        least = min(found, key=lambda one: one.device)
        raise BadRequest(
            f"nothing fits {device / 1e9:.1f} GB ({host / 1e9:.1f} GB beside it); "
            f"the least is {least.device / 1e9:.1f} GB",
            hint="a smaller --size, or --all for every way",
        )
    console.notice(
        f"{model} at {picture}, {steps or variant.steps} steps on {planned.name}: {device / 1e9:.1f} GB"
        + ("" if planned.kind == "cpu" else f", {host / 1e9:.1f} GB beside it")
    )
    head = ("QUANT", "T5", "OFFLOAD", "DTYPE", "TILED", "GB", "RAM GB", "TEXT s", "STEPS s", "DECODE s", "FITS")
    console.table([head, *(_cells(_row(one, budget.holds(one))) for one in (rows if every else rows[:ROWS]))])
    return None


def read_bytes(text: str) -> int:
    """`12G` as bytes; a bare number means gigabytes.

    Raises:
        BadRequest: it is none.
    """
    word = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = word[-1] if word[-1:] in ("K", "M", "G") else ""
    try:
        size = int(float(word.removesuffix(unit)) * UNITS[unit])
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise BadRequest(f"{text!r} is no size of memory", hint="write it as 12G or 800M")
    return size


def _row(one: object, fits: bool) -> dict[str, object]:
    from fluxone.plan import Estimate

    assert isinstance(one, Estimate)
    choice = one.choice
    return {
        "quant": choice.quant, "quant_t5": choice.quant_t5, "offload": choice.offload, "dtype": choice.dtype,
        "tiled": choice.tiled, "device": one.device, "host": one.host, "seconds": one.seconds,
        "stages": one.stages, "fits": fits,
    }  # fmt: skip


def _cells(row: dict[str, object]) -> tuple[str, ...]:
    seconds = row["seconds"]
    assert isinstance(seconds, dict)
    words = [str(row[name] or "none") for name in ("quant", "quant_t5", "offload", "dtype")]
    sizes = [f"{int(str(row[name])) / 1e9:.1f}" for name in ("device", "host")]
    times = [f"{seconds[name]:.3g}" for name in ("text", "steps", "decode")]
    return (*words, "yes" if row["tiled"] else "no", *sizes, *times, "yes" if row["fits"] else "no")
