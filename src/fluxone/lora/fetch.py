"""Where adapters are: a file, a folder that holds one, the hub, or Civitai by the id of a version.

A download goes to a file of another name that takes its place when it is whole and, where the site says so, has the
right SHA-256; one that was broken off is taken up where it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fluxone.errors import BadFile, CannotWrite, HubError
from fluxone.variants import VARIANTS
from fluxone.weights.cache import snapshot
from fluxone.weights.hub import Unreachable, download, explained
from fluxone.weights.safetensors import listing
from fluxone.weights.shipped import shipped

CIVITAI = re.compile(r"(?:civitai:|urn:air:flux1:lora:civitai:\d+@)(\d+)")
HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(.+\.safetensors))?")
FAVOURITES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
API = "https://civitai.com"  # FLUXONE_CIVITAI names another
TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 20  # bytes


def fetch(source: str, *, token: str | None = None, what: str = "adapter") -> Path:
    """The file of an adapter, downloaded if it is remote and not here yet; a name of the table is that row's.

    Args:
        what: what a message calls it.

    Raises:
        BadFile: nothing usable is there.
        HubError: a site refuses, or cannot be reached.
        CannotWrite: the download cannot be kept.
    """
    path = Path(source).expanduser()
    if (row := VARIANTS.get(source)) is not None and row.lora:
        return shipped(row) if row.assets else _hub(row.repo, row.file, token=token)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return path
    if (found := CIVITAI.fullmatch(source)) is not None:
        return civitai(found[1], token=token)
    if (found := HUB.fullmatch(source)) is not None and (found[2] or not path.suffix):
        return _hub(found[1], found[2], token=token)
    raise BadFile(
        f"there is no {what} {source}", hint="give a file, a folder, a hub id (org/name), or civitai:VERSION"
    )


def civitai(version: str, *, token: str | None = None) -> Path:
    """The file of a version of a model on Civitai. The token is the argument's, or CIVITAI_TOKEN's.

    Raises:
        HubError, BadFile, CannotWrite: see `fetch`.
    """
    site = os.environ.get("FLUXONE_CIVITAI", API).rstrip("/")
    token = token or os.environ.get("CIVITAI_TOKEN")
    cache = Path(os.environ.get("FLUXONE_CACHE") or Path.home() / ".cache" / "fluxone") / "civitai" / version
    if here := sorted(cache.glob("*.safetensors")):
        return here[0]
    with _answers(f"{site}/api/v1/model-versions/{version}", token) as answer:
        fields = _table(answer.read(), version)
    files = [file for file in fields.get("files", []) if str(file.get("name", "")).endswith(".safetensors")]
    if not files:
        raise BadFile(f"civitai:{version} has no .safetensors file", hint="choose another version")
    file = next((file for file in files if file.get("primary")), files[0])
    name = Path(str(file["name"])).name
    sha256 = str((file.get("hashes") or {}).get("SHA256", "")).lower()
    place = cache / name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _download(f"{site}/api/download/models/{version}", token, place, sha256)
    except OSError as error:
        raise CannotWrite(
            f"{place} cannot be kept: {error.strerror or error}", hint="make room, or set FLUXONE_CACHE"
        ) from None
    return place


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to the file's store without the token, which is for the site alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request to where the answer points."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            following.headers.pop("Authorization", None)
        return following


@contextmanager
def _answers(url: str, token: str | None, start: int = 0) -> Iterator[Any]:
    """The answer to a request, from the byte `start` on."""
    request = urllib.request.Request(url, headers={"User-Agent": "fluxone"})
    if urlsplit(url).scheme not in ("http", "https"):
        raise HubError(f"{url} is no web address", hint="mend FLUXONE_CIVITAI")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        hints = {401: "set CIVITAI_TOKEN to a token of your account", 403: "this token may not have it"}
        hints |= {404: "check the version's id", 429: "wait a little and try again"}
        raise HubError(f"{url} answered {error.code}", hint=hints.get(error.code, "try again later")) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise HubError(f"{url} is out of reach: {error}", hint="check the network") from None


def _download(url: str, token: str | None, place: Path, sha256: str) -> None:
    part = place.with_name(f"{place.name}.part")
    have = part.stat().st_size if part.exists() else 0
    with _answers(url, token, have) as answer, part.open("ab" if have and answer.status == 206 else "wb") as file:
        while chunk := answer.read(CHUNK):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and found != sha256:
        part.unlink()
        raise BadFile(f"{url} gave a file of SHA-256 {found[:16]}..., not {sha256[:16]}...", hint="download it again")
    part.replace(place)


def _table(raw: bytes, version: str) -> dict[str, Any]:
    try:
        fields = json.loads(raw)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise HubError(f"the site's answer on civitai:{version} is not understood", hint="try again later")
    return fields


def _in_folder(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    favourite = [file for file in files if file.name in FAVOURITES]
    for choice in (favourite, files):
        if len(choice) == 1:
            return choice[0]
    held = f"{len(files)}: {listing(file.name for file in files)}" if files else "none"
    raise BadFile(f"{folder} should hold one .safetensors file, and holds {held}", hint="give the file itself")


def _hub(repo: str, file: str | None, *, token: str | None) -> Path:
    return download(repo, file=file or _only(repo, token), token=token)


def _only(repo: str, token: str | None) -> str:
    """The one adapter of a repository, by its name there."""
    import huggingface_hub as hf

    try:
        with explained(repo, token):
            listed = [sibling.rfilename for sibling in hf.HfApi().model_info(repo, token=token).siblings or ()]
    except Unreachable:
        if (here := snapshot(repo)) is None:
            raise
        return _in_folder(here).name
    names = [name for name in listed if name.endswith(".safetensors")]
    chosen = [name for name in names if Path(name).name in FAVOURITES] or names
    if len(chosen) != 1:
        hint = f"give {repo}/FILE.safetensors"
        raise HubError(f"{repo} holds {len(names)} adapters: {listing(names)}", hint=hint)
    return chosen[0]
