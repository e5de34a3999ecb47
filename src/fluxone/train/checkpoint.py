"""Checkpoints: one safetensors file with weights, average and momenta, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fluxone.errors import BadFile, CannotWrite

NAME = "checkpoint.safetensors"


def save(folder: Path, groups: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> Path:
    """Write `groups` (name -> tensors) and `meta` (JSON) to the folder's checkpoint, replacing the old one.

    The old file stays until the new one is whole on disk.

    Raises:
        CannotWrite: the disk is full or the folder is not writable.
    """
    path = folder / NAME
    part = path.with_suffix(f".{os.getpid()}.part")
    tensors = {f"{group}/{name}": value.contiguous() for group, rows in groups.items() for name, value in rows.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata={"fluxone": json.dumps(meta)})
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CannotWrite(f"cannot save {path}: {error}", hint="free space or choose another folder") from error
    return path


def load(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """Read the folder's checkpoint back as (groups, meta), or None where there is none.

    Raises:
        BadFile: the file is not one of our checkpoints.
    """
    path = folder / NAME
    if not path.exists():
        return None
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as handle:
            meta = json.loads((handle.metadata() or {})["fluxone"])
            for key in handle.keys():  # noqa: SIM118 (not a mapping)
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = handle.get_tensor(key)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise BadFile(f"{path} is not a training checkpoint: {error}", hint="delete it to start anew") from error
    return groups, meta
