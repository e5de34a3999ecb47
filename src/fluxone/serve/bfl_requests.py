"""From the bodies of BFL's endpoints to requests, with notes on what a local model does otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from PIL import Image

from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.request import Request
from fluxone.serve.bfl_fields import INPUTS
from fluxone.serve.pictures import edged, from_text, repainted
from fluxone.serve.serving import Serving, seeded
from fluxone.variants import Kind

FOUR_MEGAPIXELS = 2048 * 2048
ASPECTS = (1 / 4, 4.0)  # that Kontext takes
RATIOS = (9 / 21, 21 / 9)  # that Ultra takes
FEATHER = 4  # px of seam inside a mask
OVERLAP = 16  # px that a grown picture reaches into the old one
EDGES = (50, 200)  # thresholds that edges are found with

Made = tuple[Request, list[str]]


def words(house: Serving, model: str, body: Any) -> Made:
    """From words alone."""
    notes = ["interval is not used here"] if getattr(body, "interval", 2.0) != 2.0 else []
    resolution = Resolution(width=body.width, height=body.height)
    request = Request(
        prompt=body.prompt or "",
        resolution=resolution,
        seed=seeded(body.seed),
        steps=getattr(body, "steps", None),
        guidance=getattr(body, "guidance", None),
    )
    return request, notes


def ultra(house: Serving, model: str, body: Any) -> Made:
    """Four megapixels in an aspect, in two passes; from an image prompt in one."""
    resolution = Resolution.from_aspect(_aspect(body.aspect_ratio, RATIOS), FOUR_MEGAPIXELS)
    raw = body.raw and bool(house.variant(model).raw)
    notes = ["this model has no raw look of its own"] if body.raw and not raw else []
    request = Request(
        prompt=body.prompt or "", resolution=resolution, seed=seeded(body.seed), raw=raw,
        ultra=None if body.image_prompt else "tiled",
    )  # fmt: skip
    return request, notes


def spoken(house: Serving, model: str, request: Request, picture: Image.Image, strength: float) -> Request:
    """The request with a picture that speaks beside its words: by Redux, or else by an IP-Adapter."""
    if Kind.PROMPT in house.variant(model).takes:
        return replace(request, image_prompts=(picture,), image_prompt_strength=strength)
    return replace(request, looks=(picture,))


def edit(house: Serving, model: str, body: Any) -> Made:
    """By an instruction; without a picture from words."""
    given = {name: getattr(body, name) for name in INPUTS if getattr(body, name)}
    references = tuple(from_text(text, name, house.limits).convert("RGB") for name, text in given.items())
    aspect = None if body.aspect_ratio is None else _aspect(body.aspect_ratio, ASPECTS)
    area = house.variant(model).size ** 2
    resolution = None if aspect is None else Resolution.from_aspect(aspect, area)
    request = Request(
        prompt=body.prompt, references=references, resolution=resolution, seed=seeded(body.seed), then=tuple(body.then)
    )
    return request, []


def fill(house: Serving, model: str, body: Any) -> Made:
    """What a mask covers."""
    image = from_text(body.image, "image", house.limits)
    mask = from_text(body.mask, "mask", house.limits) if body.mask else None
    init, white = repainted(image, mask, alpha_of_mask=False)
    guidance, notes = _guidance(house, model, body.guidance)
    request = Request(
        prompt=body.prompt or "", init=init, mask=white, strength=1.0, paste=FEATHER, seed=seeded(body.seed),
        steps=body.steps, guidance=guidance,
    )  # fmt: skip
    return request, [*notes, *_instead(house, model)]


def expand(house: Serving, model: str, body: Any) -> Made:
    """A picture grown by margins."""
    margins = (body.left, body.right, body.top, body.bottom)
    if not any(margins):
        raise BadRequest("top, bottom, left and right are all 0", hint="say by how many pixels it is to grow")
    image = from_text(body.image, "image", house.limits).convert("RGB")
    whole = (image.width + body.left + body.right) * (image.height + body.top + body.bottom) / 1e6
    if whole > house.settings.megapixels:
        raise BadRequest(f"it would grow to {whole:.0f} megapixels", hint=f"at most {house.settings.megapixels:g}")
    guidance, notes = _guidance(house, model, body.guidance)
    request = Request(
        prompt=body.prompt or "", init=image, expand=margins, strength=1.0, paste=OVERLAP, seed=seeded(body.seed),
        steps=body.steps, guidance=guidance,
    )  # fmt: skip
    return request, [*notes, *_instead(house, model)]


def canny(house: Serving, model: str, body: Any) -> Made:
    """Along edges: those of a picture, or given ones."""
    if body.preprocessed_image:
        return _control(house, model, body, "canny", _given(house, body))
    if not body.control_image:
        raise BadRequest("there is no control_image", hint="give control_image or preprocessed_image")
    picture = from_text(body.control_image, "control_image", house.limits).convert("RGB")
    edges = (body.canny_low_threshold, body.canny_high_threshold)
    if edges == EDGES and not house.engine.beside(model).controlnets:
        return _control(house, model, body, "canny", picture, "canny")  # at the size that is drawn
    return _control(house, model, body, "canny", edged(picture, edges))


def depth(house: Serving, model: str, body: Any) -> Made:
    """Along given depths."""
    request, notes = _control(house, model, body, "depth", _given(house, body))
    found = "depths are not found here: control_image is taken for a picture of depths"
    return request, notes if body.preprocessed_image else [*notes, found]


def pose(house: Serving, model: str, body: Any) -> Made:
    """Along a given pose."""
    return _control(house, model, body, "pose", _given(house, body))


def _given(house: Serving, body: Any) -> Image.Image:
    name = "preprocessed_image" if body.preprocessed_image else "control_image"
    if not (text := getattr(body, name)):
        raise BadRequest("there is no preprocessed_image", hint="give preprocessed_image or control_image")
    return from_text(text, name, house.limits).convert("RGB")


def _control(
    house: Serving, model: str, body: Any, shows: str, picture: Image.Image, detector: str | None = None
) -> Made:
    """Along a picture: in channels of the model's own, or by the ControlNets beside it."""
    guidance, notes = _guidance(house, model, body.guidance)
    beside = house.engine.beside(model)
    request = Request(prompt=body.prompt, seed=seeded(body.seed), steps=body.steps, guidance=guidance)
    if beside.controlnets:
        modes = (shows,) * beside.controlnets if beside.modes else ()
        return replace(request, hints=(picture,) * beside.controlnets, hint_modes=modes), notes
    return replace(request, control=picture, detector=detector), notes


def _guidance(house: Serving, model: str, guidance: float | None) -> tuple[float | None, list[str]]:
    """BFL's scale for these endpoints reaches to 100; what is above a local model's own breaks its pictures."""
    own = house.variant(model).guidance
    if guidance is None or guidance <= own:
        return guidance, []
    return own, [f"guidance {guidance:g} is {own:g} here, the most that this model was trained for"]


def _instead(house: Serving, model: str) -> list[str]:
    takes = Kind.FILL in house.variant(model).takes
    return [] if takes else ["this model was not trained on masks: the rest is put back after each step"]


def _aspect(text: str, bounds: tuple[float, float]) -> str:
    across, _, down = text.partition(":")
    low, high = bounds
    if not (int(across) and int(down) and low - 1e-6 <= int(across) / int(down) <= high + 1e-6):
        raise BadRequest(f"aspect_ratio is {text}", hint=f"use one from {low:.2f} to {high:.2f}, e.g. 16:9")
    return text


MAKERS: dict[str, Callable[[Serving, str, Any], Made]] = {
    "canny": canny,
    "depth": depth,
    "edit": edit,
    "expand": expand,
    "fill": fill,
    "pose": pose,
    "ultra": ultra,
    "words": words,
}
