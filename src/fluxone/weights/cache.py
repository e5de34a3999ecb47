"""The hub's cache on this machine, laid out as all its tools do; nothing here asks the network or loads a library.

    models--ORG--NAME/  refs/main: name of a commit | snapshots/COMMIT/FILE -> ../../blobs/HASH | blobs/HASH

Source: huggingface/huggingface_hub, `docs/source/en/guides/manage-cache.md`.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path

from fluxone.errors import FluxoneError
from fluxone.weights.keymap import TRANSFORMER
from fluxone.weights.locate import INDEX, in_folder
from fluxone.weights.parts import FOLDERS
from fluxone.weights.safetensors import read_json

COMMIT = re.compile(r"[0-9a-f]{40}")
PART = ".fluxone.incomplete"  # ending of a blob that is not whole yet


class State(Enum):
    """How much of a repository is on this machine; the value is what the table of models calls it."""

    WHOLE = "downloaded"
    PARTLY = "downloaded in part"
    ABSENT = "to download"


def root() -> Path:
    """The cache's folder, where HF_HUB_CACHE, HF_HOME or XDG_CACHE_HOME say."""
    place = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if place:
        return Path(place).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{caches}/huggingface").expanduser() / "hub"


def home(repo: str) -> Path:
    """A repository's folder in the cache, whether or not it is there."""
    return root() / f"models--{repo.replace('/', '--')}"


def snapshot(repo: str) -> Path | None:
    """The folder of the repository's files: of the commit that was asked for last, else the newest there is."""
    folder = home(repo) / "snapshots"
    main = home(repo) / "refs" / "main"
    commit = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    if COMMIT.fullmatch(commit) and (folder / commit).is_dir():
        return folder / commit
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def state(repo: str) -> State:
    """How much of a model is here, by its index and the headers of its files."""
    folder = snapshot(repo)
    if folder is None:
        blobs = home(repo) / "blobs"
        return State.PARTLY if blobs.is_dir() and any(blobs.iterdir()) else State.ABSENT
    try:
        return State.WHOLE if _complete(folder) else State.PARTLY
    except FluxoneError:
        return State.PARTLY


def _complete(folder: Path) -> bool:
    """Whether all is there of a model; of what only adds to one (Redux); or the file of an adapter."""
    if not (folder / INDEX).is_file():
        return any(folder.glob("*.safetensors"))
    index = read_json(folder / INDEX)
    if FOLDERS[TRANSFORMER] in index:
        return not in_folder(folder).missing
    named = [folder / name for name, part in index.items() if isinstance(part, list) and any(part)]
    return all(any(place.glob("*.json")) for place in named) and all(
        any(place.glob("*.safetensors")) for place in named if (place / "config.json").is_file()
    )


def kept(repo: str) -> int:
    """Bytes of the repository on the disk, unfinished files too."""
    blobs = home(repo) / "blobs"
    return sum(file.stat().st_size for file in blobs.iterdir() if file.is_file()) if blobs.is_dir() else 0


def place(blob: Path, pointer: Path) -> None:
    """Let a file of a snapshot stand for a blob: by a link where the system has them, at once and never by half."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    new = pointer.with_name(f"{pointer.name}.{os.getpid()}.part")
    new.unlink(missing_ok=True)
    try:
        new.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # Windows without the right to make links
        os.link(blob, new)
    new.replace(pointer)
