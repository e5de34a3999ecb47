"""`fluxone train CONFIG.toml`: train what the recipe says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from fluxone.cli import console
from fluxone.errors import BadRequest


@click.command("train", short_help="Train a model from a recipe.")
@click.argument("config", metavar="CONFIG.toml")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Overrides the recipe's; may be repeated.")
@click.option("--quiet", is_flag=True, help="Nothing on standard error but errors.")
def command(config: str, settings: tuple[str, ...], quiet: bool) -> None:
    """Train what CONFIG.toml describes, and print the run's folder.

    A run that was interrupted goes on from its last checkpoint, exactly as if it had not been.
    """
    overrides = read_settings(settings)
    console.listen(quiet=quiet)
    from fluxone.train.run import train

    folder = train(Path(config), overrides=overrides, report=_silence if quiet else console.notice)
    console.result(str(folder))


def read_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`steps=20` and `out="runs/a"` as TOML has them; a bare word is text.

    Raises:
        BadRequest: no `=`.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise BadRequest(f"--set is {setting!r}", hint="write KEY=VALUE, e.g. --set steps=200")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text
    return values


def _silence(line: str) -> None:
    """Say nothing."""
