"""One process at a time trains in a folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxone.errors import BadRequest

NAME = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A context in which nobody else trains there; the file holds the process' number.

    Raises:
        BadRequest: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadRequest(
                f"another process trains in {folder}", hint="wait for it, pause it, or use another folder with -o"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
