"""`fluxone models pull NAME`: bring a model to this machine, going on where an earlier pull stopped."""

from __future__ import annotations

import re
import sys
import time
from typing import TextIO

import click

from fluxone.cli import console
from fluxone.cli.progress import PLAIN_EVERY, duration
from fluxone.errors import BadRequest, pick
from fluxone.variants import VARIANTS

REPO = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(.+))?")
REDRAW = 0.2  # seconds between two states of the bar


@click.command("pull", short_help="Bring a model to this machine.")
@click.argument("name")
@click.option("--verify", is_flag=True, help="Hash also the files that are here, and fetch the broken ones again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--quiet", is_flag=True, help="No progress.")
def pull(name: str, verify: bool, as_json: bool, quiet: bool) -> None:
    """Download NAME: a name from `fluxone models`, a hub id, or ORG/NAME/FILE for a single file.

    Every file is checked against the hub's checksum before it counts, a pull that was broken off goes on where it
    stopped, and what is here already is not fetched again. Prints the folder.
    """
    found = None if name in VARIANTS else REPO.fullmatch(name)
    if found:
        repo, file = found[1], found[2]
    else:
        row = pick(VARIANTS, name, "model")
        repo, file = row.repo, row.file if row.lora else None
        if row.base and not quiet:
            console.notice(f"{name} adds to {row.base}, which is pulled by itself")
    if not repo:
        raise BadRequest(f"{name} comes with fluxone", hint="there is nothing to pull: generate with it")
    from fluxone.weights import hub

    bar = Transfer(sys.stderr, quiet=quiet)
    try:
        pulled = hub.pull(repo, file=file, verify=verify, told=bar)
    finally:
        bar.clear()
    folder = pulled.folder if file is None else pulled.folder / file
    if as_json:
        fields = {"repo": repo, "path": str(folder), "files": pulled.files, "bytes": pulled.size}
        console.document({**fields, "fetched": pulled.fetched})
        return
    if not quiet:
        came = f"{pulled.fetched} fetched" if pulled.fetched else "all were here already"
        console.notice(f"{repo}: {pulled.files} files, {size(pulled.size)}; {came}")
    console.result(str(folder))


class Transfer:
    """Tells a stream how many bytes have come, of how many, and how long the rest takes at the present pace."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.stream, self.quiet = stream, quiet
        self._every = REDRAW if stream.isatty() else PLAIN_EVERY
        self._first: tuple[float, int] | None = None
        self._spoke = 0.0

    def __call__(self, done: int, of: int, name: str) -> None:
        """So many bytes are here now; `name` is in work."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        if self.quiet or now - self._spoke < self._every:
            return
        self._spoke = now
        seconds, came = now - self._first[0], done - self._first[1]
        left = f", {duration((of - done) * seconds / came)} left" if came and seconds > 1 else ""
        line = f"{size(done)} of {size(of)}{left}: {name}"
        self.stream.write(f"\r\x1b[2K{line}" if self.stream.isatty() else f"{line}\n")
        self.stream.flush()

    def clear(self) -> None:
        """Wipe the bar."""
        if self.stream.isatty() and self._spoke:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()


def size(count: int) -> str:
    """Bytes as people say them."""
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1_000_000_000 else f"{count / 1e9:.2f} GB"
