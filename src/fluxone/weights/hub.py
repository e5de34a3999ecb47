"""Models of the Hugging Face hub: the files that are needed, whole, and a clear sentence where they cannot be had.

repository --its list of files--> those that the model's index names --room on the disk?--> one by one:
    part of a file --goes on where it stopped, hashed on the way--> blob --link--> snapshot

A file enters the hub's cache when its checksum is right, so what is there is whole, and other tools find it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fluxone.errors import BadFile, CannotWrite, HubError
from fluxone.weights import cache
from fluxone.weights.checksum import Hashed, RemoteFile, digest_of
from fluxone.weights.locate import INDEX
from fluxone.weights.safetensors import AGAIN, listing, read_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOG_IN = "log in with `hf auth login`, or give a token (HF_TOKEN)"
SITE = "https://huggingface.co"
SPARE = 64_000_000  # bytes that are left free on the disk
SMALL = (".json", ".txt", ".model")  # configurations and vocabularies
SHARDED = ".safetensors.index.json"
NETWORK = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "requests",
    "urllib3",
    "hf_xet",
)  # their errors are the network's

Told = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A model on this machine. `files` and `size`, bytes, are of the whole; `fetched` files are new, or mended."""

    folder: Path
    files: int
    size: int
    fetched: int


def download(repo: str, *, file: str | None = None, token: str | None = None) -> Path:
    """Fetch a model in the diffusers layout, or find it in the cache, and return its folder; or one file of it.

    Raises:
        HubError: the repository is gated, absent or private, in another layout, or out of reach.
        CannotWrite: the cache cannot be written.
    """
    try:
        folder = pull(repo, file=file, token=token).folder
    except Unreachable:
        here = cache.snapshot(repo)
        if here is None or not _there(here, repo, file):
            raise
        folder = here
    return folder if file is None else folder / file


def _there(here: Path, repo: str, file: str | None) -> bool:
    if file is None:
        return cache.state(repo) is cache.State.WHOLE
    return _inside(file) and (here / file).is_file()


def pull(
    repo: str,
    *,
    file: str | None = None,
    token: str | None = None,
    verify: bool = False,
    told: Told = lambda done, of, name: None,
) -> Pulled:
    """Bring a model, or one file of a repository, into the cache; what is there already is not fetched again.

    Args:
        verify: hash also the files that are here, and fetch again those that are not what the hub has.
        told: called with the bytes that are here, of how many, and the file in work.

    Raises:
        HubError: the repository is gated, absent or private, in another layout, or out of reach.
        BadFile: what came is not what the hub says it has.
        CannotWrite: the disk is too small, or the cache cannot be written.
    """
    import huggingface_hub as hf

    with explained(repo, token):
        api = hf.HfApi(token=token)
        info = api.model_info(repo, files_metadata=True)
        commit = info.sha or ""
        if not cache.COMMIT.fullmatch(commit):
            raise HubError(f"the hub names no commit of {repo}", hint="try again later")
        home = cache.home(repo)
        snapshot = home / "snapshots" / commit
        there = {sibling.rfilename: sibling for sibling in info.siblings or () if _inside(sibling.rfilename)}

        def described(names: Iterable[str]) -> list[RemoteFile]:
            return [RemoteFile.of(there[name], repo) for name in names]

        fetch = _Fetch(api, repo, commit, home, token)
        fetched = 0
        if file is not None and file not in there:
            raise HubError(f"{repo} has no {file}", hint=f"it has {listing(sorted(there))}")
        if file is not None:
            files = described([file])
        else:
            if INDEX not in there:
                single = [name for name in sorted(there) if name.endswith(".safetensors")]
                hint = f"pull one of its files: {listing(single)}" if single else f"look at {SITE}/{repo}"
                raise HubError(f"{repo} has no {INDEX}, so it is not in the diffusers layout", hint=hint)
            fetched += fetch.all(described([INDEX]), verify=verify)
            files = described(needed(sorted(there), _folders(snapshot / INDEX, repo)))
        fetched += fetch.all(files, verify=verify, told=told)
        _point(home / "refs" / "main", commit)
    return Pulled(folder=snapshot, files=len(files), size=sum(row.size for row in files), fetched=fetched)


def needed(names: Sequence[str], folders: Iterable[str]) -> list[str]:
    """The files of a repository that a model is made of: its index, and of each folder what would be loaded.

    Of several sets of weights in a folder, the one without a precision in its name; never a pickled one.
    """
    chosen = [INDEX]
    for folder in sorted(folders):
        own = [name for name in names if str(PurePosixPath(name).parent) == folder]
        chosen += [name for name in own if name.endswith(SMALL) and not name.endswith(SHARDED)]
        indexes = [name for name in own if name.endswith(SHARDED)]
        sets = [*indexes, *(name for name in own if name.endswith(".safetensors") and "-of-" not in name)]
        plain = [name for name in sets if PurePosixPath(name).name.split(".", 1)[1] in (SHARDED[1:], "safetensors")]
        for one in (plain or sets)[:1]:
            chosen.append(one)
            if one in indexes:
                head, _, variant = one.removesuffix(SHARDED).partition(".")
                ending = f".{variant}.safetensors" if variant else ".safetensors"
                chosen += [name for name in own if name.startswith(f"{head}-") and name.endswith(ending)]
    return [name for name in names if name in set(chosen)]


class Unreachable(HubError):
    """There is no way to the hub, and the model is not in the cache."""


@contextmanager
def explained(repo: str, token: str | None) -> Iterator[None]:
    """Turn what the hub's library raises about a repository into a sentence and a step to take.

    Raises:
        HubError: the repository is gated, absent or private, or out of reach.
        CannotWrite: the cache cannot be written.
    """
    import huggingface_hub as hf
    from huggingface_hub import constants, errors

    signed = token is not None or hf.get_token() is not None
    try:
        yield
    except errors.GatedRepoError:
        licence = f"accept its licence at {SITE}/{repo}"
        hint = f"{licence} with the account of your token" if signed else f"{licence}, then {LOG_IN}"
        raise HubError(f"{repo} is gated: its owner gives access on request", hint=hint) from None
    except errors.RepositoryNotFoundError:
        hint = "check its name" if signed else f"check its name; if it is private, {LOG_IN}"
        raise HubError(f"{repo} does not exist on the hub, or is private", hint=hint) from None
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", "no status")
        raise HubError(f"the hub answered {code} for {repo}", hint=_hint(code)) from None
    except errors.HFValidationError as error:
        raise HubError(f"{repo!r} is no hub id: {error}", hint="write org/name") from None
    except Exception as error:
        offline = isinstance(error, errors.OfflineModeIsEnabled)
        network = isinstance(error, (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError))
        if offline or network or type(error).__module__.partition(".")[0] in NETWORK:
            offline = offline or bool(constants.HF_HUB_OFFLINE)
            why = "HF_HUB_OFFLINE forbids the network" if offline else "there is no way to the hub"
            hint = "unset HF_HUB_OFFLINE" if offline else "check the network; what has come is kept"
            raise Unreachable(
                f"{repo} is not in the cache, or not all of it, and {why}",
                hint=f"{hint}, or give the path of a folder or file",
            ) from None
        if not isinstance(error, OSError):
            raise
        if error.errno is None:  # the library's word for a body that is too short
            raise Unreachable(f"{repo}: {error}", hint="pull it again: it goes on where it stopped") from None
        raise CannotWrite(
            f"{repo} cannot be kept: {error.strerror or error}", hint="make room in the hub's cache"
        ) from None


@dataclass(frozen=True)
class _Fetch:
    """Brings files of one commit."""

    api: HfApi
    repo: str
    commit: str
    home: Path
    token: str | None

    def all(self, files: Sequence[RemoteFile], *, verify: bool, told: Told = lambda done, of, name: None) -> int:
        """Bring files, after a look at the room there is; how many were not here, or not whole."""
        missing = [file for file in files if not self._here(file, verify=verify)]
        self._check_room(missing)
        of = sum(file.size for file in files)
        done = of - sum(file.size for file in missing)
        for file in missing:
            self._one(file, partial(_add, told, done, of, file.name))
            done += file.size
            told(done, of, file.name)
        return len(missing)

    def _blob(self, file: RemoteFile) -> Path:
        return self.home / "blobs" / file.digest

    def _pointer(self, file: RemoteFile) -> Path:
        return self.home / "snapshots" / self.commit / file.name

    def _here(self, file: RemoteFile, *, verify: bool) -> bool:
        blob, pointer = self._blob(file), self._pointer(file)
        for path in (blob, pointer):
            if not path.is_file() or path.stat().st_size != file.size:
                continue
            if verify and digest_of(path, file) != file.digest:
                continue
            if path == blob and not (pointer.exists() and pointer.samefile(blob)):
                cache.place(blob, pointer)
            return True
        return False

    def _check_room(self, missing: Sequence[RemoteFile]) -> None:
        parts = [self._blob(file).with_name(f"{file.digest}{cache.PART}") for file in missing]
        more = sum(file.size for file in missing) - sum(part.stat().st_size for part in parts if part.exists())
        place = next(folder for folder in (self.home, *self.home.parents) if folder.exists())
        free = shutil.disk_usage(place).free
        if missing and free < more + SPARE:
            raise CannotWrite(
                f"{self.repo} needs {more / 1e9:.2f} GB more, and {place} has {free / 1e9:.2f} GB free",
                hint="make room, or let HF_HOME name a folder on another disk",
            )

    def _one(self, file: RemoteFile, told: Callable[[int], None]) -> None:
        """Go on with a file where it stopped; it becomes a blob when its checksum is right."""
        import huggingface_hub as hf
        from huggingface_hub import file_download

        utils: Any = hf.utils  # which does not list what it gives
        blob = self._blob(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        part = blob.with_name(f"{file.digest}{cache.PART}")
        url = hf.hf_hub_url(self.repo, file.name, revision=self.commit, endpoint=self.api.endpoint)
        lock = cache.root() / ".locks" / self.home.name / f"{file.digest}.lock"  # the one that the hub's library takes
        lock.parent.mkdir(parents=True, exist_ok=True)
        with utils.WeakFileLock(lock), _no_bars():
            if self._here(file, verify=True):  # another process has brought it meanwhile
                return
            with part.open("r+b" if part.exists() else "w+b") as raw:
                sink: Any = Hashed(raw, file, told)
                headers = utils.build_hf_headers(token=self.token)
                file_download.http_get(url, sink, resume_size=sink.tell(), headers=headers, expected_size=file.size)
                raw.flush()
                os.fsync(raw.fileno())
            if sink.hexdigest() != file.digest:
                part.unlink()
                raise BadFile(
                    f"{self.repo}/{file.name} came with the checksum {sink.hexdigest()[:16]}..., "
                    f"the hub says {file.digest[:16]}...",
                    hint="it was thrown away: pull it again",
                )
            part.replace(blob)
            cache.place(blob, self._pointer(file))


def _add(told: Told, done: int, of: int, name: str, here: int) -> None:
    told(done + here, of, name)


@contextmanager
def _no_bars() -> Iterator[None]:
    """The library's own progress bars off; whoever pulls is told in their own way."""
    import huggingface_hub as hf

    utils: Any = hf.utils
    if utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def _folders(index: Path, repo: str) -> list[str]:
    """The folders of the parts that a model's index names.

    Raises:
        HubError: it is of another kind of model.
    """
    try:
        fields = read_json(index)
    except BadFile as error:
        raise HubError(f"{repo}: {error.message}", hint=AGAIN) from None
    kind = fields.get("_class_name")
    if not isinstance(kind, str) or not kind.startswith("Flux"):
        raise HubError(f"{repo} holds a {kind!r:.80}", hint="only FLUX.1 models can be run")
    return [name for name, part in fields.items() if isinstance(part, list) and any(part) and "/" not in name]


def _inside(name: str) -> bool:
    """Whether a file's name stays in the folder that it is put into."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def _point(ref: Path, commit: str) -> None:
    if not ref.is_file() or ref.read_text(encoding="utf-8") != commit:
        ref.parent.mkdir(parents=True, exist_ok=True)
        new = ref.with_name(f"{ref.name}.{os.getpid()}.part")
        new.write_text(commit, encoding="utf-8")
        new.replace(ref)


def _hint(code: object) -> str:
    if code in (401, 403):
        return f"the token is not accepted: {LOG_IN} again"
    return "wait a little and try again" if code == 429 or str(code).startswith("5") else "check the repository's name"
