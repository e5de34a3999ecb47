"""Serving on Ray Serve: whole servers as replicas, over GPUs and hosts, which share a database and a storage.

    client -> Ray's proxy on a host -> any replica: app, jobs and engine as `fluxone serve` runs them in one process

Every replica tells of every job, because all of them read one database. A replica that stops finishes what it has begun
and gives its other jobs back; those of one that dies are another's when its lease is over.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fluxone.errors import BadRequest, FluxoneError, MissingExtra
from fluxone.serve.app import create_app
from fluxone.serve.database import connect
from fluxone.serve.engine import DRAIN
from fluxone.serve.logs import LOGS
from fluxone.serve.metrics import Metrics
from fluxone.serve.run import SWITCH, engine_of
from fluxone.serve.settings import Settings

log = logging.getLogger("fluxone.serve")

NAME = "fluxone"
TASKS = "tasks"  # of a replica, that wait or are drawn: what it is scaled by
EACH = 4.0  # tasks of a replica, from which another one is worth starting
AT_ONCE = 1000  # HTTP requests of a replica: many of them only wait for their picture
STOPPING = 2 * DRAIN + 15  # s
HEADER = "serve-multiplexed-model-id"  # in which a client names the LoRA that it asks for; Ray leads it by that
LORAS = 16  # of a replica, that requests are led to it for
LONGEST = 255  # characters of such a name
OBJECTS = 100 * 2**20  # bytes of Ray's object store where it is started here: no picture goes through it
USAGE = "RAY_USAGE_STATS_ENABLED"


class Replica:
    """One server of several. Ray Serve makes it, asks it how it is, and gives it HTTP requests."""

    def __init__(self, settings: Settings, name: str | None = None) -> None:
        self.settings = replace(settings, name=name or _replica_name())
        self.metrics = Metrics()
        self.engine = engine_of(self.settings, self.metrics)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app, when its models are loaded: until then the replicas before it have the requests."""
        LOGS[self.settings.log](False)
        sys.setswitchinterval(SWITCH)
        self.engine.start()
        self.engine.wait_ready()
        return Wearing(create_app(self.settings, self.engine, self.metrics), self.wear)

    async def wear(self, lora: str) -> str:
        """Let Ray know that requests for a LoRA are best led to this replica from now on."""
        return lora

    def check_health(self) -> None:
        """Asked by Ray now and again.

        Raises:
            FluxoneError: it can draw no more, and is to be replaced.
        """
        if not all(worker.is_alive() for worker in self.engine.workers):
            raise FluxoneError("a worker has ended")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `scaled` decides by: HTTP requests are short, what they order is not."""
        state = self.engine.state()
        return {TASKS: float(state.waiting + state.begun)}


class Wearing:
    """Stands before a replica's app: requests that name a LoRA in Ray's header make it one of the replica's."""

    def __init__(self, app: ASGIApp, wear: Callable[[str], Awaitable[str]]) -> None:
        self.app, self.wear = app, wear

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""
        if scope["type"] == "http" and (lora := Headers(scope=scope).get(HEADER)):
            await self.wear(lora[:LONGEST])
        await self.app(scope, receive, send)


def scaled(context: Any) -> tuple[int, dict[str, Any]]:
    """How many replicas there should be, by the tasks of all of them; Ray keeps to its limits and delays."""
    found: Mapping[Any, float] = (context.aggregated_metrics or {}).get(TASKS) or {}
    wanted = math.ceil(sum(found.values()) / EACH)
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return min(max(wanted, least), most), {}


def options_of(settings: Settings) -> dict[str, Any]:
    """What Ray Serve is told of the replicas.

    Raises:
        BadRequest: their numbers contradict each other.
    """
    if settings.parallel and settings.devices[0] != "cpu" and settings.replica_gpus < len(settings.devices):
        found = f"{len(settings.devices)} devices share each model, and replica_gpus is {settings.replica_gpus:g}"
        raise BadRequest(found, hint=f"use replica_gpus = {len(settings.devices)}")
    if settings.replicas < 1 or (settings.most_replicas and settings.most_replicas < settings.replicas):
        found = f"replicas is {settings.replicas}, most_replicas {settings.most_replicas}"
        raise BadRequest(found, hint="use 1 or more, and as many at most or more")
    options: dict[str, Any] = {
        "name": NAME,
        "max_ongoing_requests": AT_ONCE,
        "graceful_shutdown_timeout_s": STOPPING,
        "ray_actor_options": {"num_cpus": settings.replica_cpus, "num_gpus": settings.replica_gpus},
    }
    if settings.most_replicas <= settings.replicas:
        return {**options, "num_replicas": settings.replicas}
    limits = {"min_replicas": settings.replicas, "max_replicas": settings.most_replicas}
    return {**options, "autoscaling_config": {**limits, "policy": {"policy_function": f"{__name__}:scaled"}}}


def serve_on_ray(settings: Settings) -> None:
    """Serve by replicas until interrupted or terminated; on a cluster that was there before, they stay.

    Raises:
        MissingExtra: the extra `ray` is not installed.
        BadRequest: the settings do not suit several servers.
        FluxoneError: the replicas do not start.
    """
    os.environ.setdefault(USAGE, "0")  # nothing is told to anybody
    try:
        import ray
        from ray import serve
    except ImportError:
        raise MissingExtra("ray", "serving by replicas needs Ray Serve, which is not installed") from None
    settings, options, own = _everywhere(settings), options_of(settings), not settings.cluster
    connect(settings.url).dispose()  # the schema, once: replicas start at the same time
    if own:
        ray.init("local", include_dashboard=False, object_store_memory=OBJECTS)
    else:
        ray.init(settings.cluster)
    where = {"host": settings.host, "port": settings.port, "location": "HeadOnly" if own else "EveryNode"}
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: over.set())
    try:
        serve.start(http_options=where)
        wear = serve.multiplexed(max_num_models_per_replica=LORAS)(Replica.wear)
        made = type(Replica.__name__, (Replica,), {"wear": wear, "__module__": __name__})
        deployment = serve.deployment(serve.ingress()(made)).options(**options)
        serve.run(deployment.bind(settings), name=NAME, route_prefix="/")
        log.info("%d replicas serve", settings.replicas)
        over.wait()
    except RuntimeError as error:
        raise FluxoneError(f"the replicas do not start: {error}", hint="Ray's logs say why") from error
    finally:
        if own:
            serve.shutdown()
        ray.shutdown()


def _everywhere(settings: Settings) -> Settings:
    """The settings with whole paths: replicas run in other folders."""

    def whole(place: str) -> str:
        return str(Path(place).absolute()) if place and Path(place).exists() else place

    return replace(
        settings,
        folder=settings.folder.absolute(),
        models=tuple(whole(model) for model in settings.models),
        finetunes={name: whole(file) for name, file in settings.finetunes.items()},
        classifier=whole(settings.classifier),
        c2pa_certificate=whole(settings.c2pa_certificate),
        c2pa_key=whole(settings.c2pa_key),
    )


def _replica_name() -> str:
    from ray import serve

    return f"{NAME}-{serve.get_replica_context().replica_id.unique_id}"
