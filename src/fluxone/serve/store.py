"""Files of jobs: pictures they are drawn from, results, and links to these that are signed and expire.

    inputs/<job>-<field>-<n>.png  until the job is done        results/<job>.<format>  until its retention ends
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import re
import secrets
import time
from pathlib import Path

from PIL import Image

from fluxone import provenance
from fluxone.errors import CannotWrite
from fluxone.provenance import Record
from fluxone.request import PICTURES, Request
from fluxone.serve.sealing import Seal

SECRET_BYTES = 32
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
NAME = re.compile(r"[0-9a-f-]{36}\.(png|jpg|webp)")


class Store:
    """The folder of a server.

    Args:
        seal: signs the files of results.

    Raises:
        CannotWrite: it cannot be made or written to.
    """

    def __init__(self, folder: Path, seal: Seal | None = None) -> None:
        self.seal = seal
        self.inputs, self.results = folder / "inputs", folder / "results"
        try:
            for place in (self.inputs, self.results):
                place.mkdir(parents=True, exist_ok=True)
            self._secret = _secret(folder / "secret")
        except OSError as error:
            raise CannotWrite(f"{folder} cannot be used: {error.strerror}") from error

    def keep_inputs(self, job: str, request: Request) -> None:
        """Write the pictures of a request, each wholly."""
        for name in PICTURES:
            for number, image in enumerate(_each(getattr(request, name))):
                file = io.BytesIO()
                image.save(file, "PNG", compress_level=1)
                provenance.write_whole(self.inputs / f"{job}-{name}-{number}.png", file.getvalue())

    def read_inputs(self, job: str) -> dict[str, Image.Image | tuple[Image.Image, ...]]:
        """The pictures of a request, by field."""
        found: dict[str, Image.Image | tuple[Image.Image, ...]] = {}
        for name in PICTURES:
            files = sorted(self.inputs.glob(f"{job}-{name}-*.png"), key=lambda file: int(file.stem.rpartition("-")[2]))
            images = []
            for file in files:
                with Image.open(file) as image:
                    images.append(image.copy())
            if images:
                found[name] = tuple(images) if isinstance(getattr(Request, name), tuple) else images[0]
        return found

    def drop_inputs(self, job: str) -> None:
        """Delete the pictures of a request."""
        for file in self.inputs.glob(f"{job}-*"):
            file.unlink(missing_ok=True)

    def keep(self, job: str, image: Image.Image, record: Record, format_: str, quality: int) -> None:
        """Write a result, wholly or not at all.

        Raises:
            CannotWrite: the disk is full, or the like.
        """
        path = self.path(job, format_)
        if self.seal is None:
            provenance.save(image, path, record, quality=quality)
            return
        data = provenance.WRITERS[path.suffix](image.convert("RGB"), record, quality)
        provenance.write_whole(path, self.seal(data, TYPES[path.suffix]))

    def path(self, job: str, format_: str) -> Path:
        """Where the result of a job is, or will be."""
        return self.results / f"{job}{SUFFIXES[format_]}"

    def link(self, job: str, format_: str, seconds: int) -> str:
        """The path of a link to a result that lives so long."""
        name, until = self.path(job, format_).name, int(time.time()) + seconds
        return f"/results/{name}?expires={until}&signature={self.signature(name, until)}"

    def signature(self, name: str, until: int) -> str:
        """Of a link."""
        return hmac.new(self._secret, f"{name}|{until}".encode(), hashlib.sha256).hexdigest()

    def linked(self, name: str, until: int, signature: str) -> Path | None:
        """The file that a link leads to; None if it is expired, forged, or of nothing."""
        good = hmac.compare_digest(signature.encode(), self.signature(name, until).encode())
        if not good or until < time.time() or not NAME.fullmatch(name):
            return None
        path = self.results / name
        return path if path.is_file() else None

    def sweep(self, known: set[str], before: float) -> None:
        """Delete files that belong to no job that is known, if they are older than `before`."""
        for folder in (self.inputs, self.results):
            for file in folder.iterdir():
                job = file.name.lstrip(".")[:36]
                try:
                    if job not in known and file.stat().st_mtime < before:
                        file.unlink()
                except FileNotFoundError:
                    continue


def _each(value: Image.Image | tuple[Image.Image, ...] | None) -> tuple[Image.Image, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _secret(file: Path) -> bytes:
    """What links are signed with: made by the first server that uses the folder, read by all."""
    if not file.exists():
        own = file.with_name(f".secret-{secrets.token_hex(8)}")
        own.touch(0o600)
        own.write_bytes(secrets.token_bytes(SECRET_BYTES))
        try:
            os.link(own, file)  # whole, and only if no other was quicker
        except FileExistsError:
            pass
        finally:
            own.unlink()
    return file.read_bytes()
