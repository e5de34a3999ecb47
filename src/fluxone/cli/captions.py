"""`fluxone train captions FOLDER`: a .txt beside each picture that has none, or a table of what would be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluxone.cli import console

WHAT = "captions"
LONGEST = 100  # letters of a caption in the table


def go(
    folder: Path, named: dict[str, Any], *, reader: str | None, device: str | None, force: bool, dry_run: bool
) -> None:
    """Write them and print the files' names, or print what would be written."""
    from fluxone.tune import captions
    from fluxone.tune.reader import reader as read_by
    from fluxone.tune.telling import teller

    subject = captions.Subject(**named)
    rows = captions.wanting(folder, force=force)
    kept = sum(row.state == "kept" for row in rows)
    describe = read_by(Path(reader).expanduser(), subject, device) if reader and kept < len(rows) else teller(subject)
    table: list[tuple[str, ...]] = [("PICTURE", "", "CAPTION")]
    for row in captions.described(rows, describe, subject):
        if dry_run:
            text = row.text if len(row.text) <= LONGEST else f"{row.text[: LONGEST - 3]}..."
            table.append((row.picture.relative_to(folder).as_posix(), row.state, text))
        elif row.state != "kept":
            captions.put(row)
            console.result(str(row.path))
    if dry_run:
        console.table(table)
    elif kept:
        console.notice(f"{kept} captions were there already, and stay; --force writes over them")
