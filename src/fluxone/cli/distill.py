"""`fluxone distill CONFIG.toml`: a model, tuned or not, in fewer steps or in one pass instead of two."""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxone.cli import console
from fluxone.cli.progress import Progress
from fluxone.cli.train import read_settings
from fluxone.errors import BadFile, UnknownName

if TYPE_CHECKING:
    from fluxone.tune.trainer import Tick


@click.command("distill", short_help="Teach a model to draw in fewer steps.")
@click.argument("config", metavar="CONFIG.toml")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Overrides the file's; may be repeated.")
@click.option("--quiet", is_flag=True, help="Nothing on standard error but errors.")
def command(config: str, settings: tuple[str, ...], quiet: bool) -> None:
    """Distil what CONFIG.toml describes; prints the adapter's files and a sheet of before and after.

    A run that was interrupted goes on from its last checkpoint.
    """
    rows = read(Path(config)) | read_settings(settings)
    console.listen(quiet=quiet)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from fluxone.tune.distilling import Distillation, distil
    from fluxone.tune.settings import Settings

    _known(rows, [field.name for field in fields(Distillation)], "key")
    _known(rows.get("train", {}), [field.name for field in fields(Settings)], "key in [train]")
    rows = {key: tuple(value) if isinstance(value, list) else value for key, value in rows.items()}
    rows["train"] = {k: tuple(v) if isinstance(v, list) else v for k, v in rows.get("train", {}).items()}
    bars: list[Progress] = []

    def tick(tick: Tick, steps: int) -> None:
        if not bars:
            bars.append(Progress(steps - tick.step + 1, sys.stderr, quiet=quiet))
        bars[0].step()

    def line(text: str) -> None:
        if not quiet:
            console.notice(text)

    done = distil(Distillation(**rows), line=line, tick=tick)
    for bar in bars:
        bar.clear()
    line(f"apart from the teacher's pictures: {done.before:.2f} before, {done.after:.2f} after (Lab)")
    for written in done.written:
        console.result(str(written.path))
    console.result(str(done.sheet))


def read(path: Path) -> dict[str, Any]:
    """The file's table; `prompts` may be the name of a text file beside it, one prompt a line.

    Raises:
        BadFile: it is not there, or no TOML.
    """
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))
        if isinstance(rows.get("prompts"), str):
            text = (path.parent / rows["prompts"]).read_text(encoding="utf-8")
            rows["prompts"] = [line.strip() for line in text.splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise BadFile(f"there is no file {error.filename}", hint="give a TOML file: see docs/finetune.md") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFile(f"{path} is not a TOML file: {error}", hint="mend that line") from None
    return rows


def _known(rows: dict[str, Any], names: list[str], what: str) -> None:
    for key in rows:
        if key not in names:
            raise UnknownName(f"there is no {what} {key!r}", hint=f"known are {', '.join(names)}")
