"""OpenAI's images API: one request, one answer, or a stream with unfinished pictures.

Besides its own fields it takes those that other servers of this API take: seed, negative_prompt,
num_inference_steps, guidance_scale, true_cfg_scale, lora; and those that stable-diffusion.cpp reads inside a prompt.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi import Request as Http
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from fluxone.errors import BadRequest, FluxoneError, UnknownName
from fluxone.geometry import Resolution
from fluxone.request import MAX_SEED, Request
from fluxone.serve import jobs as states
from fluxone.serve.access import base_url, caller, digest, serving
from fluxone.serve.bfl_requests import spoken
from fluxone.serve.database import Row
from fluxone.serve.jobs import Order
from fluxone.serve.keys import Owner
from fluxone.serve.openai_bodies import MOST_IMAGES, Common, Edit, Generation
from fluxone.serve.pictures import from_bytes, from_text, repainted
from fluxone.serve.serving import NoModel, Serving, Want, seeded
from fluxone.variants import Kind

HABITS = ("gpt-image", "dall-e", "chatgpt-image")  # names that clients send whatever the server
FEATHER = 4  # px of seam inside a mask
VARY = 0.7  # of a picture that is forgotten in a variation
EFFORT = {"low": 0.5}  # share of the model's own steps, by quality; 1 is all others'
TOKEN = 256  # px
PATIENCE = 1.0  # s between looks whether the client is still there
MOST_FIELDS = 64
OBJECT = re.compile(r"(\w+)\[(\w+)\]")  # a field of an object, as forms write it

router = APIRouter(tags=["OpenAI"])


Idempotency = Annotated[str | None, Header(max_length=255)]


@router.post("/v1/images/generations")
async def generations(http: Http, body: Generation, idempotency_key: Idempotency = None) -> Response:
    """Pictures from words."""
    return await _answer(http, body, [], None, "image_generation", idempotency_key)


@router.post("/v1/images/edits")
async def edits(http: Http, idempotency_key: Idempotency = None) -> Response:
    """A picture changed by words: inside a mask, or with a model that takes references. Multipart, or JSON."""
    limits = serving(http).limits
    body: Common
    mask: Image.Image | None
    if http.headers.get("content-type", "").startswith("multipart/"):
        body, images, mask = await _form(http)
        _needed("prompt", body.prompt)
    else:
        body = edit = Edit.model_validate(_json(await http.body()))
        images = [await run_in_threadpool(from_text, place.image_url, "image", limits) for place in edit.images]
        mask = None
        if edit.mask is not None:
            mask = await run_in_threadpool(from_text, edit.mask.image_url, "mask", limits)
    return await _answer(http, body, images, mask, "image_edit", idempotency_key)


@router.post("/v1/images/variations")
async def variations(http: Http, idempotency_key: Idempotency = None) -> Response:
    """Pictures like one that is given."""
    body, images, _ = await _form(http)
    return await _answer(http, body, images[:1], None, "image_variation", idempotency_key)


@router.get("/v1/models")
def models(http: Http) -> dict[str, object]:
    """What is loaded."""
    caller(http, "draw")
    return {"object": "list", "data": [_model(name) for name in serving(http).engine.variants()]}


@router.get("/v1/models/{name}")
def model(http: Http, name: str) -> dict[str, object]:
    """One of them."""
    caller(http, "draw")
    serving(http).variant(name)
    return _model(name)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fluxone"}


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequest("the body is no JSON", hint="send JSON, or multipart/form-data") from None


async def _form(http: Http) -> tuple[Common, list[Image.Image], Image.Image | None]:
    """Fields, pictures and mask of a multipart body."""
    limits, images, mask = serving(http).limits, [], None
    fields: dict[str, Any] = {}
    async with http.form(max_files=MOST_IMAGES + 1, max_fields=MOST_FIELDS) as form:
        for key, value in form.multi_items():
            name = key.removesuffix("[]")
            if not isinstance(value, UploadFile):
                _put(fields, name, value)
                continue
            picture = await run_in_threadpool(from_bytes, await value.read(), name, limits)
            if name == "mask":
                mask = picture
            else:
                images.append(picture)
    _needed("image", images)
    return Common.model_validate(fields), images, mask


def _put(fields: dict[str, Any], name: str, value: str) -> None:
    """One field of a form: objects come as JSON, or with their own fields in brackets (`lora[name]`)."""
    if found := OBJECT.fullmatch(name):
        inner = fields.setdefault(found[1], {})
        if isinstance(inner, dict):
            inner[found[2]] = value
        return
    fields[name] = _json(value.encode()) if name == "lora" and value.lstrip().startswith(("{", "[")) else value


def _print(image: Image.Image) -> str:
    """What tells one picture from another."""
    return f"{image.mode}{image.size}{hashlib.sha256(image.tobytes()).hexdigest()}"


def _needed(name: str, value: object) -> None:
    if not value:
        raise BadRequest(f"there is no {name}")


async def _answer(
    http: Http, body: Common, images: list[Image.Image], mask: Image.Image | None, kind: str, once: str | None
) -> Response:
    house = serving(http)
    owner = await run_in_threadpool(caller, http, "draw")
    house.keys.count(owner)
    orders = await run_in_threadpool(_orders, house, body, images, mask, kind)
    if once is not None:
        same = digest(kind, body.model_dump_json(), *map(_print, [*images, *([mask] if mask else [])]))
        orders = [replace(order, idempotency=f"{once}-{i}"[:255], digest=same) for i, order in enumerate(orders)]
    rows = await run_in_threadpool(_accept, house, orders, owner)
    size = str(orders[0].request.frame or orders[0].request.resolution)
    about: dict[str, object] = {"output_format": body.output_format, "size": size}
    about |= {"quality": "auto", "background": "opaque"}
    if body.stream:
        return StreamingResponse(_stream(http, rows, kind, about, orders), media_type="text/event-stream")
    async for _ in follow(http, rows):
        pass
    found = [await run_in_threadpool(house.jobs.find, row["id"]) for row in rows]
    data = [await run_in_threadpool(_datum, house, row, base_url(http), body.response_format) for row in found if row]
    return JSONResponse({"created": int(time.time()), "data": data, "usage": _usage(orders), **about})


def _accept(house: Serving, orders: Sequence[Order], owner: Owner) -> list[Row]:
    rows: list[Row] = []
    try:
        for order in orders:
            rows.append(house.jobs.accept(order, owner))
    except FluxoneError:
        for row in rows:
            house.jobs.cancel(row["id"])
        raise
    return rows


def _orders(
    house: Serving, body: Common, images: list[Image.Image], mask: Image.Image | None, kind: str
) -> list[Order]:
    """One for each picture, their seeds in a row."""
    model, request = _request(house, body, images, mask, kind)
    steps = body.num_inference_steps
    if steps is None and body.quality in EFFORT:
        steps = max(1, round(house.variant(model).steps * EFFORT[body.quality]))
    request = replace(
        request,
        prompt=body.prompt,
        negative=body.negative_prompt or "",
        steps=steps,
        guidance=body.guidance_scale,
        cfg=body.true_cfg_scale,
        resolution=None if body.size == "auto" else Resolution.parse(body.size),
    )
    worn = body.lora if isinstance(body.lora, list) else [body.lora] if body.lora else []
    loras = tuple(house.lora(lora.name, lora.scale) for lora in worn)
    seed, tolerance = seeded(body.seed), 6 if body.moderation == "low" else 2
    orders = []
    for i in range(body.n):
        one = house.order(kind, model, replace(request, seed=(seed + i) % (MAX_SEED + 1)))
        orders.append(
            replace(
                one,
                tolerance=tolerance,
                held=True,
                partials=body.partial_images if body.stream else 0,
                loras=loras,
                format=body.output_format,
                quality=max(1, body.output_compression),
            )
        )
    return orders


def _request(
    house: Serving, body: Common, images: list[Image.Image], mask: Image.Image | None, kind: str
) -> tuple[str, Request]:
    """The model, and a request with the pictures as that model takes them."""
    told = house.engine.variants()
    asked = [name for name in told if name == body.model]
    if body.model and not asked and not body.model.startswith(HABITS):
        served = house.settings.endpoints.get(body.model)
        if served is None:
            raise UnknownName(f"no model is called {body.model!r}", hint=f"loaded are {', '.join(told)}")
        asked = [served]
    want = Want(names=tuple(asked))
    if not images:
        return house.choose(want), Request()
    if mask is None and kind == "image_edit" and images[0].mode != "RGBA":
        model = house.choose(replace(want, needs=Kind.REFERENCE))
        return model, Request(references=tuple(image.convert("RGB") for image in images))
    if kind == "image_edit":
        # The mask is of the first picture; others are looked at, by a model that takes references.
        others = tuple(image.convert("RGB") for image in images[1:])
        needs = replace(want, needs=Kind.REFERENCE) if others else replace(want, needs=Kind.FILL, instead=True)
        init, white = repainted(images[0], mask, alpha_of_mask=True)
        return house.choose(needs), Request(init=init, mask=white, strength=1.0, paste=FEATHER, references=others)
    picture = images[0].convert("RGB")
    try:
        model = house.choose(replace(want, needs=Kind.PROMPT))
    except NoModel:
        return house.choose(want), Request(init=picture, strength=VARY)
    return model, spoken(house, model, Request(), picture, 1.0)


async def follow(http: Http, rows: Sequence[Row]) -> AsyncIterator[None]:
    """Yield whenever there is something new about the jobs, until all are settled. If the client goes, so do they."""
    jobs, changed, loop = serving(http).jobs, asyncio.Event(), asyncio.get_running_loop()
    names = [row["id"] for row in rows]

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(changed.set)

    for name in names:
        jobs.listeners[name] = wake
    try:
        while any(name in jobs.live for name in names):
            try:
                await asyncio.wait_for(changed.wait(), PATIENCE)
            except TimeoutError:
                if await http.is_disconnected():
                    return
            changed.clear()
            yield
    finally:
        for row in rows:
            jobs.listeners.pop(row["id"], None)
            if row["idempotency"] is None:  # else the client may come back for it
                jobs.cancel(row["id"])


async def _stream(
    http: Http, rows: Sequence[Row], kind: str, about: dict[str, object], orders: Sequence[Order]
) -> AsyncIterator[str]:
    """Unfinished pictures as they come, then the finished ones, as server-sent events."""
    house = serving(http)
    tasks = [watched.task for row in rows if (watched := house.jobs.live.get(row["id"]))]
    shown = dict.fromkeys(tasks, 0)
    async for _ in follow(http, rows):
        for task in tasks:
            while shown[task] < len(task.partial):
                encoded = await run_in_threadpool(_encoded, task.partial[shown[task]], str(about["output_format"]))
                more = {"b64_json": encoded, "partial_image_index": shown[task], "created_at": int(time.time())}
                yield _event(f"{kind}.partial_image", {**more, **about})
                shown[task] += 1
    for row, order in zip(rows, orders, strict=True):
        found = await run_in_threadpool(house.jobs.find, row["id"])
        try:
            datum = await run_in_threadpool(_datum, house, found or row, base_url(http), "b64_json")
        except FluxoneError as error:
            yield _event("error", {"error": {"message": str(error), "type": "server_error", "code": None}})
            continue
        told = {"b64_json": datum["b64_json"], "created_at": int(time.time()), "usage": _usage([order])}
        yield _event(f"{kind}.completed", {**told, **about})


def _event(name: str, data: dict[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"


def _datum(house: Serving, row: Row, base: str, how: str | None) -> dict[str, object]:
    """A finished picture as it is asked for."""
    if row["status"] in (states.ASKED, states.SHOWN):
        raise BadRequest("the request was refused by the server's content policy")
    if row["status"] != states.READY:
        raise FluxoneError(row["message"] or "the picture was not finished", hint="try again")
    if how == "url":
        return {"url": base + house.jobs.store.link(row["id"], row["format"], house.settings.link_seconds)}
    return {"b64_json": base64.b64encode(house.jobs.store.read(row["id"], row["format"])).decode()}


def _encoded(image: Image.Image, format_: str) -> str:
    file = io.BytesIO()
    image.save(file, format_)
    return base64.b64encode(file.getvalue()).decode()


def _usage(orders: Sequence[Order]) -> dict[str, object]:
    """In the network's own tokens."""
    sizes = [order.request.resolution or Resolution(height=16, width=16) for order in orders]
    drawn = sum(size.width * size.height // TOKEN for size in sizes)
    text = sum(order.request.text_tokens or 0 for order in orders)
    given = orders[0].request
    images = sum(p.width * p.height // TOKEN for p in (given.init, *given.references) if p is not None)
    return {
        "input_tokens": text + images,
        "input_tokens_details": {"image_tokens": images, "text_tokens": text},
        "output_tokens": drawn,
        "total_tokens": text + images + drawn,
    }
