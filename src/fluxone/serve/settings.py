"""What the server is told: where it listens, what it serves, where it keeps things, and its limits."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fluxone.errors import BadFile, BadRequest, UnknownName, pick
from fluxone.recipe import PARALLELS, Recipe

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to serve.

    Attributes:
        models: names, folders or files, as `fluxone generate --model` takes them. One of those inside the package
            brings the others that are there.
        recipe: fields of `Recipe` for all models; `recipes`: for one, over these.
        devices: one worker each; empty is the best there is.
        parallel: row of `PARALLELS`: the devices share every model, a process each, and are one worker; empty is none.
        engine: `local` is one server, in one process; `ray` runs several, which share the database and the storage.
        replicas: of `ray`, at least; most_replicas: at most, by how much there is to draw; 0 is as many as at least.
        replica_gpus, replica_cpus: that Ray is to keep for one of them.
        cluster: Ray's address; empty starts Ray on this machine, for as long as the server runs.
        folder: results, inputs of jobs that are not done, the secret that links are signed with, the database.
        storage: a URL as fsspec takes it (`s3://bucket/flux`), where results and inputs lie; empty is the folder.
        storage_options: what the filesystem of that URL is told besides.
        database: a URL as SQLAlchemy takes it; empty is SQLite in the folder.
        name: of this server, among those that share a database; empty is its host and port.
        public_url: how clients reach the server, where that differs from what they say in `Host`.
        endpoints: name of a BFL endpoint (`flux-dev`) -> name of a model, where the server should not choose.
        finetunes: id -> LoRA file, for the finetuned endpoints and the `lora` field.
        blocked: word -> the least `safety_tolerance` (0 to 6) at which it is allowed; 7 is never.
        classifier: folder of a model that looks at every result; empty is none. withheld: label -> share, from which a
            picture is withheld at a `safety_tolerance` of 2.
        c2pa_certificate, c2pa_key: PEM files with which results are signed as made by a model; empty signs nothing.
        watermark: a secret of 8 characters or more, by which results are marked invisibly; empty marks nothing.
        traces: address of an OpenTelemetry collector (OTLP over HTTP) that is told of every job; empty is none.
        log: `words` tells of trouble; `json` writes an object a line, of every request and every job too.
        log_prompts: whether prompts are in them.
        reachable: private hosts that pictures and webhooks may be fetched from and sent to all the same.
        waiting: requests that may wait; more are told to come again.
        concurrent: requests of one API key at a time.
        lease_seconds: after which the jobs of a server that is silent are taken up by another on the same database.
        keep_days: after which results are deleted.
        link_seconds: that a link to a result lives.
        body_megabytes: of a request's body.
        megapixels: of a picture in a request.
        deadline_seconds: after which a request that is not drawn is given up; 0 is never.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    models: tuple[str, ...] = ("mini",)
    recipe: Mapping[str, object] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    parallel: str = ""
    engine: str = "local"
    replicas: int = 1
    most_replicas: int = 0
    replica_gpus: float = 0.0
    replica_cpus: float = 1.0
    cluster: str = ""
    folder: Path = Path("serve")
    storage: str = ""
    storage_options: Mapping[str, object] = field(default_factory=dict)
    database: str = ""
    name: str = ""
    public_url: str | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)
    finetunes: Mapping[str, str] = field(default_factory=dict)
    blocked: Mapping[str, int] = field(default_factory=dict)
    classifier: str = ""
    withheld: Mapping[str, float] = field(default_factory=dict)
    c2pa_certificate: str = ""
    c2pa_key: str = ""
    watermark: str = ""
    traces: str = ""
    log: str = "words"
    log_prompts: bool = False
    reachable: tuple[str, ...] = ()
    waiting: int = 256
    concurrent: int = 24
    lease_seconds: float = 30.0
    keep_days: float = 7.0
    link_seconds: int = 600
    body_megabytes: int = 100
    megapixels: float = 20.0
    deadline_seconds: float = 0.0

    @property
    def url(self) -> str:
        """Of the database."""
        return self.database or f"sqlite:///{self.folder.absolute() / 'fluxone.db'}"

    def recipe_of(self, model: str, device: str) -> Recipe:
        """How a model is run on a device.

        Raises:
            UnknownName, BadRequest: a field is none of a recipe, or of another kind.
        """
        told: dict[str, Any] = {**self.recipe, **self.recipes.get(model, {}), "device": device}
        if told.setdefault("parallel", self.parallel or None) != (self.parallel or None):
            found = f"the recipe of {model} sets parallel to {told['parallel']!r}"
            raise BadRequest(found, hint="set it for the server, beside devices")
        for name in told:
            pick(dict.fromkeys(item.name for item in fields(Recipe)), name, "field of a recipe")
        given: dict[str, Any] = {name: tuple(row) if isinstance(row, list) else row for name, row in told.items()}
        return Recipe(**given)

    def check(self) -> None:
        """See whether devices can share models, where they are to.

        Raises:
            UnknownName: there is no such way.
            BadRequest: they cannot.
        """
        if not self.parallel:
            return
        pick(PARALLELS, self.parallel, "way of sharing")
        kinds = {device.partition(":")[0] for device in self.devices}
        apart = kinds == {"cpu"} or len(set(self.devices)) == len(self.devices)
        if len(self.devices) < 2 or len(kinds) > 1 or not kinds <= {"cpu", "cuda"} or not apart:
            found = f"parallel is {self.parallel!r}, devices are {list(self.devices)}"
            raise BadRequest(found, hint='name two or more of one kind, such as ["cuda:0", "cuda:1"] or ["cpu", "cpu"]')

    @property
    def own_name(self) -> str:
        """Of this server: what it left undone when it ended, it knows again by it."""
        return self.name or f"{socket.gethostname()}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK


def read(path: Path, *, base: Settings | None = None) -> Settings:
    """The settings of a TOML file, over others; paths in it are relative to it.

    Raises:
        BadFile: it cannot be read.
        UnknownName, BadRequest: a key is none of a setting, or its value of another kind.
    """
    try:
        told: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFile(f"{path} cannot be read: {error}", hint="give a TOML file; docs/http.md shows one") from None
    base = base or Settings()
    known = {item.name for item in fields(Settings)}
    for name, value in told.items():
        if name not in known:
            raise UnknownName(f"{path} sets {name!r}", hint=f"known are {', '.join(sorted(known))}")
        default = getattr(base, name)
        if not _fits(value, default):
            raise BadRequest(f"{path}: {name} is {value!r}", hint=f"the default is {default!r}")
        told[name] = tuple(value) if isinstance(value, list) else value
    if "folder" in told:
        told["folder"] = path.parent / told["folder"]
    for name in ("c2pa_certificate", "c2pa_key", "classifier"):
        if told.get(name):
            told[name] = _beside(path, told[name])
    if "finetunes" in told:
        told["finetunes"] = {name: _beside(path, file) for name, file in told["finetunes"].items()}
    return replace(base, **told)


def _fits(value: object, default: object) -> bool:
    """Whether a value of TOML is of the kind of a default."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, tuple):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(default, Mapping):
        return isinstance(value, dict)
    return isinstance(value, int if isinstance(default, int) else str)


def _beside(path: Path, file: str) -> str:
    near = path.parent / file
    return str(near) if near.exists() else file
