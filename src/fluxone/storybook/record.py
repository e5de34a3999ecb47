"""The world that a model was trained on, as a small file beside its weights: `storybook.json` in the model's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fluxone.errors import BadFile
from fluxone.storybook.worlds import World

NAME = "storybook.json"


def write(world: World, folder: Path) -> Path:
    """Write the world into a model's folder; every field of `World`, lists on one line each."""
    rows = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in asdict(world).items())
    path = folder / NAME
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    return path


def read(folder: Path) -> World | None:
    """The world that a model's folder names, or None if it names none. Fields that are absent keep their defaults.

    Raises:
        BadFile: the file is no JSON, lacks a field, or has one that no world has.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        rows: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadFile(f"{path} cannot be read: {error}", hint="delete it, or take it from the model again") from error
    known = {field.name for field in fields(World)}
    if not isinstance(rows, dict) or (unknown := sorted(rows.keys() - known)):
        raise BadFile(f"{path} has keys that no world has: {unknown if isinstance(rows, dict) else type(rows)}")
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in rows.items()}
        return World(**values)
    except TypeError as error:
        raise BadFile(f"{path} lacks a field: {error}", hint="take it from the model again") from error
