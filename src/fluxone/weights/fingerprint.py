"""A short name for a file's content, quick enough to be taken at every start.

Below 64 MB it is the exact SHA-256 of the file. Above, hashing 24 GB would take minutes, so it is the SHA-256 of
the size, the header, and 64 blocks of 64 KiB spread evenly from the first byte of data to the last: two files
that differ only between the blocks get the same name. The first word says which of the two it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from fluxone.errors import BadFile
from fluxone.weights.safetensors import Header

EXACT = 64_000_000  # bytes
BLOCK = 1 << 16  # bytes
BLOCKS = 64


def fingerprint(headers: Iterable[Header]) -> str:
    """`sha256:...` or `sampled:...` of one file; of several shards, the same over their fingerprints in order."""
    names = [_of_file(header) for header in headers]
    if len(names) == 1:
        return names[0]
    word = "sha256" if all(name.startswith("sha256") for name in names) else "sampled"
    return f"{word}:{hashlib.sha256(' '.join(names).encode()).hexdigest()}"


def _of_file(header: Header) -> str:
    if header.held:
        return _of_tensors(header.held)
    try:
        with header.path.open("rb") as file:
            if header.size < EXACT:
                return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            digest = hashlib.sha256(f"{header.size}\n".encode())
            digest.update(file.read(header.data))
            room = header.size - header.data - BLOCK
            for index in range(BLOCKS):
                file.seek(header.data + room * index // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
            return f"sampled:{digest.hexdigest()}"
    except OSError as error:
        raise BadFile(f"{header.path} cannot be read: {error.strerror or error}", hint="check the file") from None


def _of_tensors(held: Mapping[str, Any]) -> str:
    """Of a network in memory: over the names, the shapes, and some numbers of each tensor."""
    digest = hashlib.sha256()
    for name, tensor in sorted(held.items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // BLOCKS)].float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode() + some.tobytes())
    return f"sampled:{digest.hexdigest()}"
