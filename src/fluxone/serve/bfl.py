"""Black Forest Labs' API: post to an endpoint, poll for the result, or be called when it is there.

    POST /v1/{endpoint} -> {id, polling_url}      GET /v1/get_result?id= -> {status, result, progress, preview}

Fields, ranges and statuses are those of BFL's OpenAPI document and of the client `blackforest` 0.1.3.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi import Request as Http
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from fluxone.errors import UnknownName, pick
from fluxone.serve import jobs, leases
from fluxone.serve.access import base_url, caller, digest, serving
from fluxone.serve.bfl_fields import ENDPOINTS, Endpoint, body_of
from fluxone.serve.bfl_requests import MAKERS, spoken
from fluxone.serve.database import Row
from fluxone.serve.fetch import check
from fluxone.serve.jobs import Order
from fluxone.serve.keys import Denied
from fluxone.serve.pictures import from_text
from fluxone.serve.serving import NoModel, Serving, Want
from fluxone.variants import Kind

UNLIMITED = 1e9  # credits that are told where there is no quota: JSON has no infinity
STATUSES = {
    leases.PENDING: "Pending",
    jobs.READY: "Ready",
    leases.ERROR: "Error",
    jobs.CANCELLED: "Error",
    jobs.ASKED: "Request Moderated",
    jobs.SHOWN: "Content Moderated",
}
NOT_FOUND = "Task not found"
BASE = "base"  # among a job's details: how its client reached the server
HIDDEN = {BASE, jobs.REQUEST_ID, leases.HELD}

Idempotency = Annotated[str | None, Header(max_length=255)]

router = APIRouter(tags=["Black Forest Labs"])


def _post(name: str, endpoint: Endpoint, body_type: type[BaseModel]) -> Callable[..., dict[str, object]]:
    def post(http: Http, body: Any, idempotency_key: Any = None) -> dict[str, object]:
        house, owner = serving(http), caller(http, "draw")
        house.keys.count(owner)
        if body.webhook_url:
            check(body.webhook_url, reachable=house.settings.reachable)
        order = _order(house, name, endpoint, body)
        base = base_url(http)
        order = replace(
            order,
            idempotency=idempotency_key,
            digest=digest(name, body.model_dump_json(exclude={"webhook_secret"})) if idempotency_key else None,
            details={**order.details, BASE: base},
        )
        row = house.jobs.accept(order, owner)
        megapixels = {"cost": row["cost"], "input_mp": _input(order), "output_mp": _output(order)}
        if row["webhook_url"]:
            return {"id": row["id"], "status": STATUSES[row["status"]], "webhook_url": row["webhook_url"], **megapixels}
        return {"id": row["id"], "polling_url": f"{base}/v1/get_result?id={row['id']}", **megapixels}

    post.__annotations__ = {
        "http": Http, "body": body_type, "idempotency_key": Idempotency, "return": dict[str, object]
    }  # fmt: skip
    post.__name__ = name.replace("-", "_").replace(".", "_")
    return post


def _want(house: Serving, name: str, endpoint: Endpoint) -> Want:
    told = house.settings.endpoints.get(name)
    return endpoint.want if told is None else replace(endpoint.want, names=(told,))


def _order(house: Serving, name: str, endpoint: Endpoint, body: Any) -> Order:
    want = _want(house, name, endpoint)
    prompt = getattr(body, "image_prompt", None)
    model = house.choose(replace(want, needs=Kind.PROMPT) if prompt else want)
    if getattr(body, "raw", False) and not prompt and house.variant(model).raw in house.engine.variants():
        model = house.variant(model).raw
    request, notes = MAKERS[endpoint.make](house, model, body)
    if prompt:
        picture = from_text(prompt, "image_prompt", house.limits).convert("RGB")
        request = spoken(house, model, request, picture, getattr(body, "image_prompt_strength", 1.0))
    if body.prompt_upsampling:
        notes = [*notes, "prompt_upsampling is not done here: the prompt is drawn as it is"]
    order = house.order(name, model, request, notes)
    loras = [(lora.name, lora.scale) for lora in body.loras]
    if "finetune_id" in endpoint.fields:
        loras.append((body.finetune_id, body.finetune_strength))
    return replace(
        order,
        loras=tuple(house.lora(lora, scale) for lora, scale in loras),
        format=body.output_format or endpoint.format,
        tolerance=body.safety_tolerance,
        webhook_url=body.webhook_url,
        webhook_secret=body.webhook_secret,
    )


def _input(order: Order) -> float:
    request = order.request
    several = (*request.references, *request.hints, *request.looks, *request.image_prompts)
    pictures = [picture for picture in (request.init, request.control, *several) if picture is not None]
    return round(sum(picture.width * picture.height for picture in pictures) / 1e6, 4)


def _output(order: Order) -> float:
    size = order.request.frame or order.request.resolution
    return 0.0 if size is None else round(size.width * size.height / 1e6, 4)


@router.get("/v1/get_result")
def get_result(http: Http, id: str) -> JSONResponse:
    """How far a job is; at its end a link to its picture, which lives for ten minutes and is new each time."""
    house = serving(http)
    row = house.jobs.find(id)
    if row is None:
        words = "there is no task of this id, or its result was deleted"
        told = {"id": id, "status": NOT_FOUND, "result": None, "progress": None, "details": None, "preview": None}
        return JSONResponse({**told, "detail": words, "message": words}, status_code=404)
    return JSONResponse(answer(house, row, base_url(http)))


def answer(house: Serving, row: Row, base: str) -> dict[str, object]:
    """What a client who polls is told of a job."""
    details = {key: value for key, value in json.loads(row["details"]).items() if key not in HIDDEN}
    if row["message"]:
        details["error"] = row["message"]
    watched = house.jobs.live.get(row["id"])
    ready = row["status"] == jobs.READY
    progress = 1.0 if ready else watched.task.progress if watched else None
    preview = watched.task.preview() if watched and not ready else None
    return {
        "id": row["id"],
        "status": STATUSES[row["status"]],
        "result": result(house, row, base) if ready else None,
        "progress": progress,
        "details": details,
        "preview": None if preview is None else {"sample": _inline(preview)},
    }


def result(house: Serving, row: Row, base: str) -> dict[str, object]:
    """Of a job that is ready."""
    request = json.loads(row["request"])["request"]
    link = house.jobs.store.link(row["id"], row["format"], house.settings.link_seconds)
    return {
        "sample": base + link,
        "prompt": request.get("prompt", ""),
        "seed": request["seed"],
        "start_time": row["created"],
        "end_time": row["finished"],
        "duration": row["finished"] - row["created"],
    }


def webhook_body(house: Serving, row: Row) -> dict[str, object]:
    """What a job's receiver is told."""
    stamp = datetime.fromtimestamp(row["finished"], UTC).isoformat()
    body: dict[str, object] = {"id": row["id"], "status": STATUSES[row["status"]]}
    if row["status"] == jobs.READY:
        whole = result(house, row, json.loads(row["details"]).get(BASE, ""))
        return {**body, "result": {key: whole[key] for key in ("sample", "prompt", "seed")}, "timestamp": stamp}
    words = row["message"] or STATUSES[row["status"]]
    return {**body, "error": row["status"], "message": words, "timestamp": stamp}


def _inline(image: Any) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@router.post("/v1/cancel")
def cancel(http: Http, id: str) -> dict[str, object]:
    """Give a job up (not in BFL's API)."""
    caller(http, "jobs")
    return {"id": id, "cancelled": serving(http).jobs.cancel(id)}


@router.get("/v1/endpoints")
def endpoints(http: Http) -> dict[str, object]:
    """Which model serves each endpoint, with its steps and guidance, or null; and the LoRAs (not in BFL's API)."""
    caller(http, "draw")
    house = serving(http)
    return {
        "endpoints": {name: _served(house, name, row) for name, row in ENDPOINTS.items()},
        "loras": sorted(house.settings.finetunes),
    }


def _served(house: Serving, name: str, endpoint: Endpoint) -> dict[str, object] | None:
    try:
        model = house.choose(_want(house, name, endpoint))
    except NoModel:
        return None
    row = house.variant(model)
    return {"model": model, "steps": row.steps, "guidance": row.guidance, "size": row.size}


@router.get("/v1/credits")
def credits(http: Http) -> dict[str, float]:
    """What the key has left."""
    left = caller(http, "draw").credits
    return {"credits": UNLIMITED if left is None else left}


@router.get("/v1/my_finetunes")
def my_finetunes(http: Http) -> dict[str, list[str]]:
    """The LoRAs that the operator has given names."""
    caller(http, "draw")
    return {"finetunes": sorted(serving(http).settings.finetunes)}


@router.get("/v1/finetune_details")
def finetune_details(http: Http, finetune_id: str) -> dict[str, object]:
    """Of one of them."""
    caller(http, "draw")
    pick(serving(http).settings.finetunes, finetune_id, "finetune")
    return {"finetune_details": {"finetune_id": finetune_id, "finetune_type": "lora"}}


for _name, _endpoint in ENDPOINTS.items():
    _body = body_of(_name, _endpoint)
    router.add_api_route(
        f"/v1/{_name}", _post(_name, _endpoint, _body), methods=["POST"], summary=_endpoint.summary, name=_name
    )


@router.post("/v1/finetune", include_in_schema=False)
def finetune() -> None:
    """Training, which BFL closed in 2025."""
    raise NoModel("nothing is trained over HTTP", hint="run fluxone train, then name its file in [finetunes]")


@router.post("/v1/delete_finetune", include_in_schema=False)
def delete_finetune() -> None:
    """Deleting what the operator has named."""
    raise Denied(403, "finetunes are the operator's here: they are named, and forgotten, in the server's [finetunes]")


@router.post("/v1/licenses/models/{slug}/usage", include_in_schema=False)
def usage(slug: str) -> None:
    """What is owed to Black Forest Labs, who alone can be told."""
    hint = f"tell Black Forest Labs, at api.bfl.ai, what {slug} has drawn"
    raise NoModel("usage is not reported from here", hint=hint)


@router.post("/v1/{name}", include_in_schema=False)
def unknown(name: str) -> None:
    """Everything else, FLUX.2 too."""
    pick(ENDPOINTS, name, "endpoint of this server")
    raise UnknownName(f"no endpoint is called {name!r}")
