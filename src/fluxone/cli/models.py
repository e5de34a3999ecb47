"""`fluxone models`: the table of models, and what a weight file holds."""

from __future__ import annotations

import os
from pathlib import Path

import click

from fluxone.cli import console
from fluxone.variants import VARIANTS, Variant


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """The models there are; what a weight file holds."""
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
            f"{row['guidance']:g}" if row["guided"] else "none",
            _where(row),
        )
        for row in rows
    ]
    console.table([head, *lines])


@command.command("inspect")
@click.argument("file", metavar="FILE|FOLDER")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def inspect_file(file: str, as_json: bool) -> None:
    """Variant, layout, precision, parts and sizes, read from the headers alone."""
    from fluxone.weights.inspect import inspect

    report = inspect(file)
    if as_json:
        console.document(report.as_dict())
        return
    for line in report.lines():
        console.result(line)


def _row(variant: Variant) -> dict[str, object]:
    return {
        "name": variant.name,
        "title": variant.title,
        "licence": variant.licence,
        "steps": variant.steps,
        "guidance": variant.guidance,
        "guided": variant.guided,
        "size": variant.size,
        "repo": variant.repo or None,
        "gated": variant.gated,
        "here": bool(variant.assets) or downloaded(variant.repo),
    }


def _where(row: dict[str, object]) -> str:
    if row["repo"] is None:
        return "in the package"
    state = "downloaded" if row["here"] else "to download, gated" if row["gated"] else "to download"
    return f"{row['repo']} ({state})"


def downloaded(repo: str) -> bool:
    """Whether the hub's cache on this machine has a snapshot of the repository. Imports no hub library."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())
