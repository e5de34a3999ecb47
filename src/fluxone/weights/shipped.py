"""Where the weights inside the package lie: a model's folder, or the file or folder that adds to one."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fluxone.errors import BadFile
from fluxone.variants import Variant

ASSETS = Path(str(files("fluxone"))) / "assets"


def place(row: Variant) -> Path:
    """The folder of a row inside the package, or its file if it is an adapter; whether it is there or not."""
    assert row.assets, "ask rows that come with the package"
    folder = ASSETS / row.assets
    return folder / row.file if row.lora else folder


def shipped(row: Variant) -> Path:
    """The same, which is there.

    Raises:
        BadFile: it is not.
    """
    path = place(row)
    if not path.exists():
        raise BadFile(f"{path} does not exist, though {row.title} comes with fluxone", hint="install fluxone again")
    return path
