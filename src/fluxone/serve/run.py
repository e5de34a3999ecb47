"""From settings to a server that answers: models loaded in the background, one worker a device."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fluxone.errors import BadRequest, MissingExtra
from fluxone.serve.settings import Settings

if TYPE_CHECKING:
    from fluxone.serve.keys import Keys

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


def serve(settings: Settings) -> None:
    """Serve until interrupted or terminated; what has begun is finished first.

    Raises:
        BadRequest: it would listen to others than this machine, and has no API keys.
        MissingExtra: the extra `serve` is not installed.
    """
    available()
    if not settings.local and not keys_of(settings).any():
        raise BadRequest(
            f"{settings.host} can be reached from other machines, and there are no API keys",
            hint="make one with --new-key NAME, or listen on 127.0.0.1",
        )
    import uvicorn

    from fluxone.assembly import assemble, best_device
    from fluxone.pipeline import Pipeline
    from fluxone.recipe import Recipe
    from fluxone.serve.app import create_app
    from fluxone.serve.engine import Engine
    from fluxone.serve.metrics import Metrics
    from fluxone.serve.worker import Room

    metrics = Metrics()

    def load(device: str) -> dict[str, Pipeline]:
        recipe = Recipe(device=device)
        return {_name(model): assemble(model, recipe) for model in settings.models}

    devices = settings.devices or (best_device(),)
    # On a CPU a pass takes as long as its pictures one by one, and riders would only slow the first.
    room = Room(batch=1) if all(device == "cpu" for device in devices) else Room()
    engine = Engine(
        [lambda device=device: load(device) for device in devices],  # type: ignore[misc]
        waiting=settings.waiting,
        room=room,
        report=metrics.passed,
    )
    app = create_app(settings, engine, metrics)
    engine.start()
    config = uvicorn.Config(app, host=settings.host, port=settings.port, log_level="warning", server_header=False)
    uvicorn.Server(config).run()


def _name(model: str) -> str:
    """What clients call a model: a path's last part."""
    return model.rstrip("/").rpartition("/")[2]


def changed(settings: Settings, told: Mapping[str, object]) -> Settings:
    """The settings, with what the command line says besides."""
    return replace(settings, **{name: value for name, value in told.items() if value})  # type: ignore[arg-type]
