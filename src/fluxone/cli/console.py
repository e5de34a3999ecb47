"""What the user reads: results on standard output, notices and errors on standard error, one line each."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence

import click


def result(line: str) -> None:
    """One line of result, as it comes."""
    click.echo(line)
    sys.stdout.flush()


def document(content: object) -> None:
    """One JSON document of results."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def notice(line: str) -> None:
    """Something worth knowing that is no error."""
    click.echo(one_line(line), err=True)


def error(line: str) -> None:
    """The one line that says what went wrong."""
    click.echo(f"error: {one_line(line)}", err=True)


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in aligned columns; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        result("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("FLUXONE_DEBUG", "0") not in ("", "0")


class Notices(logging.Handler):
    """Shows what the library logs under `fluxone` as notices."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        notice(f"notice: {record.getMessage()}")


def listen(*, quiet: bool) -> None:
    """Show the library's notices unless `quiet`; keep other packages' warnings for those who debug."""
    logger = logging.getLogger("fluxone")
    logger.handlers = [logging.NullHandler() if quiet else Notices(logging.WARNING)]
    logger.propagate = False
    if not debugging():
        warnings.simplefilter("ignore")
