"""Where files lie: a folder of this machine, or any place that fsspec knows (`s3://`, `gs://`, `sftp://`, ...).

    write(name, data)   whole under another name, then renamed: nobody ever reads half a file
    names are folder/file, such as results/<job>.png
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import fsspec

from fluxone import provenance
from fluxone.errors import BadRequest, CannotWrite, FluxoneError

RETRY = 5  # s, after which a place that is away may be back


class Away(FluxoneError):
    """The place where files lie does not answer."""

    retry_after = RETRY


class Shelf(Protocol):
    """A place for files."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, wholly or not at all; CannotWrite, from an OSError, if that may pass."""

    def write_new(self, name: str, data: bytes) -> None:
        """Write a file unless there is one."""

    def read(self, name: str) -> bytes | None:
        """What is in a file; None if there is none."""

    def names(self, folder: str) -> list[str]:
        """The files of a folder."""

    def changed(self, name: str) -> float | None:
        """When a file was written, s since 1970; None if that cannot be told, or it is gone."""

    def drop(self, name: str) -> None:
        """Delete a file, if it is there."""

    def path(self, name: str) -> Path | None:
        """Where the file is on this machine; None if it is elsewhere."""


class Disk:
    """A folder of this machine.

    Raises:
        CannotWrite: it cannot be made or written to.
    """

    def __init__(self, root: Path, folders: tuple[str, ...]) -> None:
        self.root = root
        try:
            for name in ("", *folders):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite(f"{root} cannot be used: {error.strerror}") from error

    def write(self, name: str, data: bytes) -> None:
        """See Shelf."""
        provenance.write_whole(self.root / name, data)

    def write_new(self, name: str, data: bytes) -> None:
        """See Shelf; only its owner may read it."""
        own = self.root / f".{name}-{secrets.token_hex(8)}"
        try:
            own.touch(0o600)
            own.write_bytes(data)
            with suppress(FileExistsError):
                os.link(own, self.root / name)  # whole, and only if no other was quicker
        except OSError as error:
            raise CannotWrite(f"{self.root} cannot be used: {error.strerror}") from error
        finally:
            own.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """See Shelf."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Away(f"{self.root} cannot be read: {error.strerror}") from error

    def names(self, folder: str) -> list[str]:
        """See Shelf."""
        try:
            return [f"{folder}/{file.name}" for file in (self.root / folder).iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Away(f"{self.root} cannot be read: {error.strerror}") from error

    def changed(self, name: str) -> float | None:
        """See Shelf."""
        try:
            return (self.root / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def drop(self, name: str) -> None:
        """See Shelf."""
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise Away(f"{self.root} cannot be written to: {error.strerror}") from error

    def path(self, name: str) -> Path | None:
        """See Shelf."""
        return self.root / name


class Remote:
    """A place of fsspec's.

    Args:
        options: what the filesystem of that kind is told: keys, an endpoint.

    Raises:
        BadRequest: there is no such kind of place, or its package is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, object], folders: tuple[str, ...]) -> None:
        parts = urlsplit(url)
        self.said = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # without a password
        try:
            self.fs, root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError, TypeError) as error:
            raise BadRequest(f"results cannot lie on {self.said}: {error}", hint="fsspec's docs list places") from error
        self.root = root.rstrip("/")
        with self._asked():
            for name in folders:
                self.fs.makedirs(f"{self.root}/{name}", exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """See Shelf."""
        folder, _, last = name.rpartition("/")
        part, whole = f"{self.root}/{folder}/.{last}.{secrets.token_hex(4)}.part", f"{self.root}/{name}"
        try:
            with self._asked():
                self.fs.pipe_file(part, data)
                self.fs.mv(part, whole)
        except (Away, FileNotFoundError) as error:
            with suppress(Away):
                self.drop(part.removeprefix(f"{self.root}/"))
            raise CannotWrite(f"cannot save {name}: {error}") from OSError(str(error))

    def write_new(self, name: str, data: bytes) -> None:
        """See Shelf; in one step where the place can."""
        with self._asked(), suppress(FileExistsError):
            self.fs.pipe_file(f"{self.root}/{name}", data, mode="create")

    def read(self, name: str) -> bytes | None:
        """See Shelf."""
        try:
            with self._asked():
                data: bytes = self.fs.cat_file(f"{self.root}/{name}")
                return data
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """See Shelf."""
        try:
            with self._asked():
                self.fs.invalidate_cache()
                found: list[str] = self.fs.ls(f"{self.root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return [f"{folder}/{last}" for name in found if (last := name.rstrip("/").rpartition("/")[2]) != folder]

    def changed(self, name: str) -> float | None:
        """See Shelf; not every place can tell."""
        try:
            with self._asked():
                when: Any = self.fs.modified(f"{self.root}/{name}")
        except (Away, FileNotFoundError):
            return None
        return float(when.timestamp())

    def drop(self, name: str) -> None:
        """See Shelf."""
        with self._asked(), suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.root}/{name}")

    def path(self, name: str) -> Path | None:
        """See Shelf."""
        return None

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # every kind of place has errors of its own
            raise Away(f"{self.said} does not answer: {error}", hint="try again later") from error
