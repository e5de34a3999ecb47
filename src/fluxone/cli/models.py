"""`fluxone models`: the table of models, bringing one here, and what a weight file holds."""

from __future__ import annotations

from pathlib import Path

import click

from fluxone.cli import console
from fluxone.cli.convert import convert
from fluxone.cli.pull import pull, size
from fluxone.cli.quantize import quantize
from fluxone.variants import VARIANTS, Variant


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """The models there are; bringing one here; what a weight file holds."""
    if context.invoked_subcommand is None:
        context.invoke(list_models, as_json=False)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_models(as_json: bool) -> None:
    """Names, licences, defaults, and whether the weights are on this machine."""
    rows = [_row(variant) for variant in VARIANTS.values()]
    if as_json:
        console.document(rows)
        return
    head = ("NAME", "TITLE", "LICENCE", "STEPS", "GUIDANCE", "WHERE")
    lines = [
        (
            str(row["name"]),
            str(row["title"]),
            str(row["licence"]),
            str(row["steps"]),
            "none" if not row["guided"] else f"{row['told']:g}, always" if row["told"] else f"{row['guidance']:g}",
            _where(row),
        )
        for row in rows
    ]
    console.table([head, *lines])


@command.command("inspect")
@click.argument("file", metavar="FILE|FOLDER|NAME")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def inspect_file(file: str, as_json: bool) -> None:
    """Variant, layout, precision, parts and sizes, read from the headers alone."""
    from fluxone.weights.inspect import inspect
    from fluxone.weights.shipped import shipped

    row = VARIANTS.get(file)
    report = inspect(shipped(row) if row is not None and row.assets and not Path(file).exists() else file)
    if as_json:
        console.document(report.as_dict())
        return
    for line in report.lines():
        console.result(line)


def _row(variant: Variant) -> dict[str, object]:
    from fluxone.weights import cache
    from fluxone.weights.shipped import place

    state = None if variant.assets else cache.state(variant.repo)
    there = not variant.assets or place(variant).exists()
    return {
        "name": variant.name,
        "title": variant.title,
        "licence": variant.licence,
        "steps": variant.steps,
        "guidance": variant.guidance,
        "guided": variant.guided,
        "told": variant.told,
        "base": variant.base or None,
        "size": variant.size,
        "repo": variant.repo or None,
        "gated": variant.gated,
        "here": there and state in (None, cache.State.WHOLE),
        "state": state.value if state is not None else "in the package" if there else "not in this package",
        "bytes": 0 if state is None else cache.kept(variant.repo),
    }


def _where(row: dict[str, object]) -> str:
    if row["repo"] is None:
        return str(row["state"])
    kept = int(str(row["bytes"]))
    told = f"{row['state']}, {size(kept)}" if kept else f"{row['state']}{', gated' if row['gated'] else ''}"
    return f"{row['repo']} ({told})"


command.add_command(pull)
command.add_command(convert)
command.add_command(quantize)
