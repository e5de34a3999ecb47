"""The app: dialects, page, health and metrics on one port, and what starts and stops with it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from fastapi import APIRouter, FastAPI
from fastapi import Request as Http
from fastapi.responses import FileResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from fluxone import __version__
from fluxone.errors import UnknownName
from fluxone.serve import answers, bfl, openai, training
from fluxone.serve.access import caller, serving
from fluxone.serve.database import connect
from fluxone.serve.engine import DRAIN, Drawing
from fluxone.serve.guard import Guard
from fluxone.serve.jobs import Jobs
from fluxone.serve.keys import Keys
from fluxone.serve.mark import marking
from fluxone.serve.metrics import Metrics
from fluxone.serve.moderation import policy_of
from fluxone.serve.policy import Policy
from fluxone.serve.sealing import seal_of
from fluxone.serve.serving import Serving
from fluxone.serve.settings import MEGABYTE, Settings
from fluxone.serve.shelf import Away
from fluxone.serve.store import TYPES, Store, shelf_of
from fluxone.serve.tracing import traces_to
from fluxone.serve.webhooks import Webhooks

log = logging.getLogger("fluxone.serve")

PAGE = Path(__file__).parent / "page"
FILES = {  # path -> type
    "": "text/html",
    "docs": "text/html",
    "page.css": "text/css",
    **dict.fromkeys(("api.js", "docs.js", "history.js", "page.js", "source.js", "train.js"), "text/javascript"),
}
CLEAN = 3600.0  # s between clean-ups
BEATS = 6  # signs of life in the database, within a lease
LOOK = 0.5  # s between looks whether the engine is ready

router = APIRouter(tags=["Server"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether the server runs."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz")
def readyz(http: Http) -> JSONResponse:
    """Whether models are loaded and warm."""
    house = serving(http)
    state = house.engine.state()
    told = {"ready": state.ready, "waiting": state.waiting, "begun": state.begun, "models": [*house.engine.variants()]}
    return JSONResponse(told | ({"trouble": state.trouble} if state.trouble else {}), 200 if state.ready else 503)


@router.get("/metrics")
def metrics(http: Http) -> Response:
    """For Prometheus."""
    caller(http, "metrics")
    return Response(serving(http).metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/results/{name}")
def results(http: Http, name: str, expires: int, signature: str) -> Response:
    """A finished picture, by a link that was signed and has not expired."""
    store = serving(http).jobs.store
    headers = {"Cache-Control": "private, max-age=600"}
    if file := store.linked(name, expires, signature):
        kind, path = TYPES[Path(name).suffix], store.shelf.path(file)
        if path is not None and path.is_file():
            return FileResponse(path, media_type=kind, headers=headers)
        if path is None and (data := store.shelf.read(file)) is not None:
            return Response(data, media_type=kind, headers=headers)
    raise UnknownName("this link has expired or is not whole", hint="poll the task again for a new one")


def create_app(settings: Settings, engine: Drawing, metrics: Metrics, policy: Policy | None = None) -> FastAPI:
    """The app of a server. The engine is stopped with it, but started by the caller.

    Raises:
        CannotWrite: its folder cannot be used.
        UserError: what its results are to be signed with cannot be.
        sqlalchemy.exc.SQLAlchemyError: its database is not there.
    """
    store = Store(shelf_of(settings), seal_of(settings), marking(settings.watermark))
    traces = traces_to(settings.traces)
    database = connect(settings.url)
    jobs = Jobs(settings, engine, database, store, policy or policy_of(settings), metrics, traces)
    house = Serving(
        settings=settings, engine=engine, database=database, jobs=jobs, keys=Keys(database), metrics=metrics
    )
    metrics.watch("waiting", lambda: engine.state().waiting)
    metrics.watch("begun", lambda: engine.state().begun)
    metrics.watch("device", _device_bytes)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        over = threading.Event()
        webhooks = Webhooks(database, partial(bfl.webhook_body, house), settings.reachable)
        keeper = threading.Thread(target=_keep, args=(house, over), name="keeper", daemon=True)
        webhooks.start()
        keeper.start()
        yield
        over.set()
        app.state.trainings.end()
        webhooks.stop()
        await run_in_threadpool(engine.stop, DRAIN)
        await run_in_threadpool(jobs.stop)
        if traces is not None:
            await run_in_threadpool(traces.stop)
        database.dispose()

    app = FastAPI(title="fluxone", version=__version__, lifespan=living, docs_url=None, redoc_url=None)
    app.state.serving = house
    app.state.trainings = training.Trainings(settings.folder / "training")
    answers.install(app)
    for name, kind in FILES.items():
        _file(app, name, kind)
    for part in (router, training.router, openai.router, bfl.router):
        app.include_router(part)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.body_megabytes * MEGABYTE)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    return app


def _file(app: FastAPI, name: str, kind: str) -> None:
    path = PAGE / {"": "index.html", "docs": "docs.html"}.get(name, name)

    @app.get(f"/{name}", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(path, media_type=kind)


def _device_bytes() -> float:
    import torch

    return float(sum(torch.cuda.memory_allocated(n) for n in range(torch.cuda.device_count())))


def _keep(house: Serving, over: threading.Event) -> None:
    """Take up what is nobody's once the models are there, keep this server's leases, and clean up now and again."""
    while not over.is_set() and not house.engine.state().ready:
        over.wait(LOOK)
    cleaned = float("-inf")
    while not over.is_set():
        try:
            house.jobs.leases.beat()
            house.jobs.leases.resume()
            house.jobs.leases.relieve()
            if time.monotonic() - cleaned > CLEAN:
                house.jobs.sweep()
                cleaned = time.monotonic()
        except (sa.exc.SQLAlchemyError, OSError, Away) as error:
            log.error("the database or the folder is away: %s", error)
        over.wait(house.settings.lease_seconds / BEATS)
