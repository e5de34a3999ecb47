"""Files of the hub and the checksums that it gives: SHA-256 of large ones, git's own SHA-1 of small ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fluxone.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a repository. `size` in bytes; `digest` in hexadecimal, 64 digits of SHA-256 or 40 of git's SHA-1."""

    name: str
    size: int
    digest: str

    @classmethod
    def of(cls, sibling: RepoSibling, repo: str) -> RemoteFile:
        """What the hub says of a file.

        Raises:
            HubError: it does not say size and checksum.
        """
        large = sibling.lfs
        size, digest = (sibling.size, sibling.blob_id) if large is None else (large.size, large.sha256)
        if size is None or digest is None or not DIGEST.fullmatch(digest):
            raise HubError(f"the hub does not say the checksum of {repo}/{sibling.rfilename}", hint="try again later")
        return cls(name=sibling.rfilename, size=size, digest=digest)

    def hasher(self) -> Any:
        """A new hash object of the kind that the digest is of."""
        if len(self.digest) == 64:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)


def digest_of(path: Path, file: RemoteFile) -> str:
    """The checksum that a file on the disk has, of the same kind."""
    with path.open("rb") as raw:
        return Hashed(raw, file, lambda here: None).hexdigest()


class Hashed:
    """A file being written that knows the hash of all it holds, what it held before too; it stands at its end.

    Args:
        told: called with the bytes it holds.
    """

    def __init__(self, raw: BinaryIO, file: RemoteFile, told: Callable[[int], None]) -> None:
        self._raw, self._file, self._told = raw, file, told
        self._start()
        if self.tell() > file.size:
            self.seek(0)
            self.truncate()

    def write(self, data: bytes) -> int:
        """Append bytes."""
        self._raw.write(data)
        self._hash.update(data)
        self._told(self.tell())
        return len(data)

    def tell(self) -> int:
        """Where it stands, in bytes."""
        return self._raw.tell()

    def seek(self, place: int) -> int:
        """Go back to a place, before cutting the file there."""
        return self._raw.seek(place)

    def truncate(self) -> None:
        """Cut the file where it stands."""
        self._raw.truncate()
        self._start()

    def hexdigest(self) -> str:
        """The hash of all it holds."""
        return str(self._hash.hexdigest())

    def _start(self) -> None:
        self._hash = self._file.hasher()
        self._raw.seek(0)
        while chunk := self._raw.read(CHUNK):
            self._hash.update(chunk)
