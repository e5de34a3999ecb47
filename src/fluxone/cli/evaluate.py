"""`fluxone evaluate`: what a model can do, measured on prompts with a known truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxone import __version__
from fluxone.cli import console, options
from fluxone.errors import BadRequest
from fluxone.recipe import Recipe

if TYPE_CHECKING:
    from fluxone.evaluate.bench import Bench


@click.command("evaluate", short_help="Measure what a model can do.")
@click.option("--model", default="mini", show_default=True, help=options.MODEL_HELP)
@click.option("--suite", "suites", metavar="NAME,...", help="Some of them only, e.g. relations,typography.")
@click.option("--prompts", type=click.IntRange(1, 1000), default=24, show_default=True, help="Of each suite.")
@click.option("--seeds", type=click.IntRange(1, 100), default=2, show_default=True, help="Pictures of each prompt.")
@click.option("--steps", type=click.IntRange(1, 1000), help="Default: the model's own.")
@click.option("--guidance", type=click.FloatRange(0, 100), help="Default: the model's own.")
@click.option("--ocr", is_flag=True, help="Read signs by OCR too; it needs the `evaluate` extra.")
@click.option("--json", "as_json", metavar="FILE", help="Every figure and every picture's verdict; - prints it.")
@click.option("--sheet", metavar="FILE", help="Right and wrong pictures of each suite, with what the judge saw.")
@click.option("--plot", metavar="FILE", help="Quality against steps, as a PNG.")
@click.option("--device", metavar="NAME", help=options.DEVICE_HELP)
@click.option("--dtype", metavar="NAME", help=options.DTYPE_HELP)
@click.option("--offload", default="none", metavar="NAME", help=options.OFFLOAD_HELP)
@click.option("--lora", "loras", metavar="FILE[:SCALE]", multiple=True, help="An adapter, in any style; repeat.")
@click.option("--quiet", is_flag=True, help="Nothing on standard error but errors.")
def command(
    model: str, suites: str | None, prompts: int, seeds: int, steps: int | None, guidance: float | None, ocr: bool,
    as_json: str | None, sheet: str | None, plot: str | None, device: str | None, dtype: str | None, offload: str,
    loras: tuple[str, ...], quiet: bool,
) -> None:  # fmt: skip
    """Draw prompts that no training saw, let the judge look, and print a table with 95 % intervals.

    The last two columns are what the judge makes of the true scenes, as rendered and through the model's autoencoder.
    """
    options.check_model(model)
    targets = {name: Path(path) for name, path in (("json", as_json), ("sheet", sheet), ("plot", plot)) if path}
    for name, path in targets.items():
        if str(path) != "-" and not path.absolute().parent.is_dir():
            raise BadRequest(f"--{name} is {path}, whose folder is missing", hint="make it first")
    recipe = Recipe(device=device, dtype=dtype, offload=offload, adapters=loras)
    console.listen(quiet=quiet)
    from fluxone.evaluate import run

    names = run.NAMES if suites is None else tuple(name.strip() for name in suites.split(",") if name.strip())
    run.check(names)
    bench = _bench(model, recipe, ocr, quiet, prompts=prompts, seeds=seeds, steps=steps, guidance=guidance)
    _tell(run.evaluate(bench, names), bench, model, targets)


def _bench(
    model: str, recipe: Recipe, ocr: bool, quiet: bool, *,
    prompts: int, seeds: int, steps: int | None, guidance: float | None,
) -> Bench:  # fmt: skip
    from fluxone.assembly import assemble
    from fluxone.evaluate import run, witness
    from fluxone.evaluate.bench import Bench
    from fluxone.evaluate.ocr import reader

    read = reader() if ocr else None
    tell = (lambda line: None) if quiet else console.notice
    tell(f"loading {model}")
    return Bench(
        pipeline=assemble(model, recipe),
        world=run.world_of(model),
        judge=witness.shipped(),
        prompts=prompts,
        seeds=seeds,
        steps=steps,
        guidance=guidance,
        read=read,
        tell=tell,
    )


def _tell(found: Any, bench: Bench, model: str, targets: dict[str, Path]) -> None:
    """Print the table, and write what was asked for."""
    from fluxone import provenance
    from fluxone.evaluate import report

    content = {
        "fluxone": __version__,
        "model": model,
        "hashes": bench.pipeline.hashes,
        "prompts": bench.prompts,
        "seeds": bench.seeds,
        "steps": bench.usual,
        "guidance": bench.guidance,
        "suites": report.document(found.scores),
    }
    if "sheet" in targets and any(score.shots for score in found.scores):
        provenance.save(report.sheet(found.scores), targets["sheet"])
    if "plot" in targets and found.points:
        provenance.write_whole(targets["plot"], report.plot(found.points))
    if str(targets.get("json", "")) == "-":
        console.document(content)
        return
    if "json" in targets:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        provenance.write_whole(targets["json"], f"{text}\n".encode())
    console.table(report.table(found.scores))
