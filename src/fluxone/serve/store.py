"""Files of jobs: pictures they are drawn from, results, and links to these that are signed and expire.

    inputs/<job>-<field>-<n>.png  until the job is done        results/<job>.<format>  until its retention ends
"""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
import re
import secrets
import time
from pathlib import Path

from PIL import Image

from fluxone import provenance
from fluxone.errors import CannotWrite, UnknownName
from fluxone.provenance import Record
from fluxone.request import PICTURES, Request
from fluxone.serve.mark import Mark
from fluxone.serve.sealing import Seal
from fluxone.serve.settings import Settings
from fluxone.serve.shelf import Away, Disk, Remote, Shelf

log = logging.getLogger("fluxone.serve")

INPUTS, RESULTS = FOLDERS = ("inputs", "results")
SECRET, SECRET_BYTES = "secret", 32
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
NAME = re.compile(r"[0-9a-f-]{36}\.(png|jpg|webp)")


class Store:
    """The files of a server.

    Args:
        place: where they lie; a folder is one.
        seal: signs the files of results; mark: changes their pixels before.

    Raises:
        CannotWrite: it cannot be made or written to.
        Away: it does not answer.
    """

    def __init__(self, place: Path | Shelf, seal: Seal | None = None, mark: Mark | None = None) -> None:
        self.seal, self.mark = seal, mark
        self.shelf = Disk(place, FOLDERS) if isinstance(place, Path) else place
        self._secret = _secret(self.shelf)

    def keep_inputs(self, job: str, request: Request) -> None:
        """Write the pictures of a request, each wholly."""
        for name in PICTURES:
            for number, image in enumerate(_each(getattr(request, name))):
                file = io.BytesIO()
                image.save(file, "PNG", compress_level=1)
                self.shelf.write(f"{INPUTS}/{job}-{name}-{number}.png", file.getvalue())

    def read_inputs(self, job: str) -> dict[str, Image.Image | tuple[Image.Image, ...]]:
        """The pictures of a request, by field.

        Raises:
            Away: they cannot be read now.
        """
        found: dict[str, Image.Image | tuple[Image.Image, ...]] = {}
        files = self._inputs(job)
        for name in PICTURES:
            own = [file for file in files if file.startswith(f"{INPUTS}/{job}-{name}-")]
            images = []
            for file in sorted(own, key=lambda file: int(file.removesuffix(".png").rpartition("-")[2])):
                with Image.open(io.BytesIO(self.shelf.read(file) or b"")) as image:
                    images.append(image.copy())
            if images:
                found[name] = tuple(images) if isinstance(getattr(Request, name), tuple) else images[0]
        return found

    def drop_inputs(self, job: str) -> None:
        """Delete the pictures of a request; what cannot be deleted now, a sweep will."""
        try:
            for file in self._inputs(job):
                self.shelf.drop(file)
        except Away as error:
            log.warning("inputs of %s stay: %s", job, error, extra={"told": {"job": job}})

    def _inputs(self, job: str) -> list[str]:
        return [name for name in self.shelf.names(INPUTS) if name.startswith(f"{INPUTS}/{job}-")]

    def keep(self, job: str, image: Image.Image, record: Record, format_: str, quality: int) -> None:
        """Write a result, wholly or not at all.

        Raises:
            CannotWrite: the disk is full, or the like.
        """
        name, suffix = self.name(job, format_), SUFFIXES[format_]
        shown = image if self.mark is None else self.mark(image)
        data = provenance.WRITERS[suffix](shown.convert("RGB"), record, quality)
        self.shelf.write(name, data if self.seal is None else self.seal(data, TYPES[suffix]))

    def name(self, job: str, format_: str) -> str:
        """Of the result of a job."""
        return f"{RESULTS}/{job}{SUFFIXES[format_]}"

    def read(self, job: str, format_: str) -> bytes:
        """The file of a result.

        Raises:
            UnknownName: it was deleted.
            Away: it cannot be read now.
        """
        data = self.shelf.read(self.name(job, format_))
        if data is None:
            raise UnknownName("the result was deleted", hint="ask for it again")
        return data

    def drop(self, job: str, format_: str) -> None:
        """Delete a result."""
        self.shelf.drop(self.name(job, format_))

    def link(self, job: str, format_: str, seconds: int) -> str:
        """The path of a link to a result that lives so long."""
        name, until = self.name(job, format_).rpartition("/")[2], int(time.time()) + seconds
        return f"/results/{name}?expires={until}&signature={self.signature(name, until)}"

    def signature(self, name: str, until: int) -> str:
        """Of a link."""
        return hmac.new(self._secret, f"{name}|{until}".encode(), hashlib.sha256).hexdigest()

    def linked(self, name: str, until: int, signature: str) -> str | None:
        """The file that a link leads to; None if it is expired or forged."""
        good = hmac.compare_digest(signature.encode(), self.signature(name, until).encode())
        if not good or until < time.time() or not NAME.fullmatch(name):
            return None
        return f"{RESULTS}/{name}"

    def sweep(self, known: set[str], before: float) -> None:
        """Delete files that belong to no job that is known, if they are older than `before`."""
        for folder in FOLDERS:
            for name in self.shelf.names(folder):
                job = name.rpartition("/")[2].lstrip(".")[:36]
                if job not in known and (changed := self.shelf.changed(name)) is not None and changed < before:
                    self.shelf.drop(name)


def shelf_of(settings: Settings) -> Shelf:
    """Where the files of a server lie; its folder, where the database may be, is made in any case.

    Raises:
        CannotWrite, Away, BadRequest: they cannot lie there.
    """
    if settings.storage:
        Disk(settings.folder, ())
        return Remote(settings.storage, settings.storage_options, FOLDERS)
    return Disk(settings.folder, FOLDERS)


def _each(value: Image.Image | tuple[Image.Image, ...] | None) -> tuple[Image.Image, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _secret(shelf: Shelf) -> bytes:
    """What links are signed with: made by the first server that uses the place, read by all."""
    if (found := shelf.read(SECRET)) is None:
        shelf.write_new(SECRET, secrets.token_bytes(SECRET_BYTES))
        found = shelf.read(SECRET)
    if found is None or len(found) != SECRET_BYTES:
        raise CannotWrite("the file `secret` beside the results is not whole", hint="delete it; links of before end")
    return found
