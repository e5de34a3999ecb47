"""From settings to a server that answers: models loaded in the background, one worker a device."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fluxone.errors import BadRequest, MissingExtra, UserError, pick
from fluxone.serve.logs import LOGS
from fluxone.serve.settings import Settings
from fluxone.variants import VARIANTS

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline
    from fluxone.serve.engine import Engine
    from fluxone.serve.keys import Keys
    from fluxone.serve.metrics import Metrics
    from fluxone.serve.worker import Room

log = logging.getLogger("fluxone.serve")

LANES = 2  # of a CPU
SWITCH = 0.0005  # s, after which a thread that only computes in Python lets others go on: passes are many small steps
PACKAGES = ("alembic", "fastapi", "greenlet", "prometheus_client", "python_multipart", "sqlalchemy", "uvicorn")


def available() -> None:
    """See that everything is there that serving needs.

    Raises:
        MissingExtra: something is not.
    """
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise MissingExtra("serve", f"serving needs {name}, which is not installed") from None


def keys_of(settings: Settings) -> Keys:
    """The API keys in the database of a server."""
    available()
    from fluxone.serve.database import connect
    from fluxone.serve.keys import Keys

    settings.folder.mkdir(parents=True, exist_ok=True)
    return Keys(connect(settings.url))


def serve(settings: Settings, *, quiet: bool = False) -> None:
    """Serve until interrupted or terminated; what has begun is finished first.

    Args:
        quiet: whether the log tells of errors only.

    Raises:
        UnknownName: there is no such engine, or way of logging.
        BadRequest: it would listen to others than this machine, and has no API keys; or devices cannot share models.
        MissingExtra: the extra `serve` is not installed, or `ray` for that engine.
    """
    available()
    settings.check()
    logging_ = pick(LOGS, settings.log, "way of logging")(quiet)
    if not settings.local and not keys_of(settings).any():
        raise BadRequest(
            f"{settings.host} can be reached from other machines, and there are no API keys",
            hint="make one with --new-key NAME, or listen on 127.0.0.1",
        )
    pick(ENGINES, settings.engine, "engine")(settings, logging_)


def _alone(settings: Settings, logging_: Mapping[str, Any]) -> None:
    """One server, in this process."""
    import uvicorn

    from fluxone.serve.app import create_app
    from fluxone.serve.metrics import Metrics

    metrics = Metrics()
    engine = engine_of(settings, metrics)
    app = create_app(settings, engine, metrics)
    sys.setswitchinterval(SWITCH)
    engine.start()
    config = uvicorn.Config(app, host=settings.host, port=settings.port, server_header=False, **logging_)
    uvicorn.Server(config).run()


def _on_ray(settings: Settings, logging_: Mapping[str, Any]) -> None:
    """Several servers, which Ray Serve runs."""
    from fluxone.serve.cluster import serve_on_ray

    serve_on_ray(settings)


ENGINES: dict[str, Callable[[Settings, Mapping[str, Any]], None]] = {"local": _alone, "ray": _on_ray}


def engine_of(settings: Settings, metrics: Metrics) -> Engine:
    """A worker a device, each with all models, or one of all devices that share them; not started.

    Raises:
        UserError: a model's recipe is none.
    """
    from fluxone.assembly import best_device
    from fluxone.serve.crew import Crew
    from fluxone.serve.engine import Engine

    models, devices = family(settings.models), settings.devices or (best_device(),)
    for model in models:
        settings.recipe_of(model, devices[0])
    loads, room = [partial(load, settings, models, device) for device in devices], room_on(devices)
    if not settings.parallel:
        return Engine(loads, waiting=settings.waiting, room=room, report=metrics.passed)
    crew = Crew(settings, models, devices, loads[0])
    room = replace(room, lanes=0, cores=None)  # calls of a network follow each other, alike in all processes
    return Engine([crew.load], crew=crew, waiting=settings.waiting, room=room, report=metrics.passed)


def load(settings: Settings, models: Sequence[str], device: str) -> dict[str, Pipeline]:
    """The pipelines of one worker, by the names that clients use.

    Raises:
        UserError: one of the models that are asked for cannot be loaded; others that cannot are left out.
    """
    from fluxone.assembly import assemble
    from fluxone.nn.autoencoder import straight

    found: dict[str, Pipeline] = {}
    for model in models:
        recipe = settings.recipe_of(model, device)
        try:
            found[name_of(model)] = assemble(model, recipe)
            if settings.parallel:  # the first process decodes alone, while the others wait for the next pass
                found[name_of(model)].autoencoder.decoder.walk = straight
        except UserError as error:
            if model in settings.models:
                raise
            log.warning("%s is not served: %s", model, error)
    return found


def family(models: Sequence[str]) -> tuple[str, ...]:
    """The models; with one of those inside the package the others too, so that every endpoint is served."""
    inside = [row.name for row in VARIANTS.values() if row.assets]
    more = inside if any(model in inside for model in models) else []
    return tuple(dict.fromkeys((*models, *more)))


def room_on(devices: Sequence[str]) -> Room:
    """What a worker does at a time.

    On an accelerator a pass takes little longer with eight pictures than with one, and one stream of work fills it.
    On a CPU it takes nearly as long as its pictures one by one: two go together there, of which none delays a shorter
    one, and two passes at a time on half of the cores each. docs/http.md has the figures.
    """
    import torch

    from fluxone.serve.worker import Room

    if not all(device == "cpu" for device in devices):
        return Room()
    return Room(batch=2, polite=True, lanes=LANES, cores=torch.get_num_threads())


def name_of(model: str) -> str:
    """What clients call a model: a path's last part."""
    return model.rstrip("/").rpartition("/")[2]


def changed(settings: Settings, told: Mapping[str, object]) -> Settings:
    """The settings, with what the command line says besides."""
    return replace(settings, **{name: value for name, value in told.items() if value})  # type: ignore[arg-type]
