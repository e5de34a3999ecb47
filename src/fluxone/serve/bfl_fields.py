"""THE TABLE of BFL's endpoints: their fields with ranges and defaults, and the models that serve them.

Steps and guidance that are not given are the local model's own: null in BFL's API, too, means the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, create_model, model_validator

from fluxone.request import MAX_PROMPT, MAX_SEED
from fluxone.serve.serving import Want
from fluxone.variants import Kind

Fields = Mapping[str, Any]  # name -> (type, default or Field)


def _within(kind: Any, low: float, high: float, default: Any = None) -> tuple[Any, Any]:
    return (kind | None if default is None else kind), Field(default, ge=low, le=high)


class Lora(BaseModel):
    """A LoRA by a name that the operator gave it."""

    name: str
    scale: float = Field(1.0, ge=-10, le=10)


MAX_LORAS = 8
COMMON: Fields = {
    "seed": _within(int, 0, MAX_SEED),
    "safety_tolerance": _within(int, 0, 6, 2),
    "output_format": (Literal["jpeg", "png", "webp"] | None, None),
    "prompt_upsampling": (bool, False),
    "webhook_url": (str | None, Field(None, min_length=1, max_length=2083)),
    "webhook_secret": (str | None, Field(None, max_length=4096)),
    "loras": (list[Lora], Field([], max_length=MAX_LORAS, description="Not in BFL's API.")),
}
TEXT = (str | None, Field("", max_length=MAX_PROMPT))
NEEDED = (str, Field(..., max_length=MAX_PROMPT))
IMAGE = (str | None, None)


def _side(default: int) -> tuple[Any, Any]:
    return int, Field(default, ge=256, le=1440, multiple_of=32)


BASE: Fields = {"prompt": TEXT, "image_prompt": IMAGE, "width": _side(1024), "height": _side(768)}
ULTRA: Fields = {
    "prompt": TEXT, "aspect_ratio": (str, Field("16:9", pattern=r"^\d{1,4}:\d{1,4}$")), "raw": (bool, False),
    "image_prompt": IMAGE, "image_prompt_strength": _within(float, 0, 1, 0.1),
}  # fmt: skip
# BFL's own are four; some clients send ten. `then` is ours: further instructions, each for what came of the one before.
INPUTS = ("input_image", *(f"input_image_{n}" for n in range(2, 11)))
THEN = Annotated[str, Field(max_length=MAX_PROMPT)]
MAX_THEN = 8
KONTEXT: Fields = {
    "prompt": NEEDED, **dict.fromkeys(INPUTS, IMAGE), "then": (list[THEN], Field([], max_length=MAX_THEN)),
    "aspect_ratio": (str | None, Field(None, pattern=r"^\d{1,4}:\d{1,4}$")),
}  # fmt: skip
PRO: Fields = {"steps": _within(int, 15, 50), "guidance": _within(float, 1.5, 100)}
# Vercel's client calls the picture to fill what Kontext's is called.
FILLED = (str, Field(..., validation_alias=AliasChoices("image", "input_image")))
FILL: Fields = {"prompt": TEXT, "image": FILLED, "mask": IMAGE, **PRO}
MARGIN = _within(int, 0, 2048, 0)
EXPAND: Fields = {
    "prompt": TEXT, "image": FILLED, "top": MARGIN, "bottom": MARGIN, "left": MARGIN, "right": MARGIN, **PRO
}  # fmt: skip
CONTROL: Fields = {
    "prompt": NEEDED, "control_image": IMAGE, "preprocessed_image": IMAGE, "steps": _within(int, 15, 50),
    "guidance": _within(float, 1, 100),
}  # fmt: skip
THRESHOLDS: Fields = {
    "canny_low_threshold": _within(int, 0, 500, 50), "canny_high_threshold": _within(int, 0, 500, 200)
}  # fmt: skip
DEV: Fields = {**BASE, "steps": _within(int, 1, 50), "guidance": _within(float, 1.5, 5)}


def _finetuned(strength: float) -> Fields:
    return {"finetune_id": (str, ...), "finetune_strength": _within(float, 0, 2, strength)}


WORDS = Want(names=("dev", "krea"))


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One of BFL's endpoints.

    Attributes:
        fields: besides the common ones.
        make: row of `bfl_requests.MAKERS`.
        want: what it needs of a model.
        format: of the result, where the request says none.
    """

    summary: str
    fields: Fields
    make: str = "words"
    want: Want = WORDS
    format: str = "jpeg"


_KONTEXT = Endpoint(
    summary="Change a picture by an instruction", fields=KONTEXT, make="edit",
    want=Want(names=("kontext",), needs=Kind.REFERENCE), format="png",
)  # fmt: skip
_FILL = Endpoint(
    summary="Repaint what a mask covers", fields=FILL, make="fill",
    want=Want(names=("fill",), needs=Kind.FILL, instead=True),
)  # fmt: skip
_CANNY = Endpoint(
    summary="Draw along edges", fields={**CONTROL, **THRESHOLDS}, make="canny",
    want=Want(names=("canny",), needs=Kind.CONTROL, shows="canny"),
)  # fmt: skip
_DEPTH = Endpoint(
    summary="Draw along depths", fields=CONTROL, make="depth",
    want=Want(names=("depth",), needs=Kind.CONTROL, shows="depth"),
)  # fmt: skip
_ULTRA = Endpoint(summary="Four megapixels, by aspect", fields=ULTRA, make="ultra")
ENDPOINTS: dict[str, Endpoint] = {
    "flux-dev": Endpoint(summary="FLUX.1 [dev]", fields=DEV),
    "flux-krea-dev": Endpoint(summary="FLUX.1 Krea [dev]", fields=DEV, want=Want(names=("krea", "dev"))),
    "flux-schnell": Endpoint(
        summary="FLUX.1 [schnell]: few steps", fields=DEV, want=Want(names=("schnell",), quick=True)
    ),
    "flux-pro": Endpoint(
        summary="FLUX.1 [pro]", fields={**DEV, "interval": _within(float, 1, 4, 2.0)}
    ),
    "flux-pro-1.1": Endpoint(summary="FLUX1.1 [pro]", fields=BASE),
    "flux-pro-1.1-ultra": _ULTRA,
    "flux-pro-1.1-raw": _ULTRA,
    "flux-kontext-pro": _KONTEXT,
    "flux-kontext-max": _KONTEXT,
    "flux-kontext": _KONTEXT,
    "flux-pro-1.0-fill": _FILL,
    "flux-pro-1.0-expand": replace(_FILL, summary="Grow a picture", fields=EXPAND, make="expand"),
    "flux-pro-1.0-canny": _CANNY,
    "flux-pro-1.0-depth": _DEPTH,
    "flux-pro-1.0-pose": replace(
        _DEPTH, summary="Draw along a pose (not in BFL's API)", make="pose",
        want=Want(names=("pose",), needs=Kind.CONTROL, shows="pose"),
    ),
    "flux-pro-finetuned": Endpoint(summary="With a LoRA", fields={**DEV, **_finetuned(1.1)}),
    "flux-pro-1.1-ultra-finetuned": Endpoint(
        summary="Four megapixels with a LoRA", fields={**ULTRA, **_finetuned(1.2)}, make="ultra"
    ),
    "flux-pro-1.0-fill-finetuned": replace(
        _FILL, summary="Repaint with a LoRA", fields={**FILL, **_finetuned(1.1)}
    ),
    "flux-pro-1.0-canny-finetuned": replace(
        _CANNY, summary="Draw along edges with a LoRA", fields={**_CANNY.fields, **_finetuned(1.1)}
    ),
    "flux-pro-1.0-depth-finetuned": replace(
        _DEPTH, summary="Draw along depths with a LoRA", fields={**CONTROL, **_finetuned(1.1)}
    ),
}  # fmt: skip


class Told(BaseModel):
    """What all bodies do."""

    @model_validator(mode="before")
    @classmethod
    def default(cls, told: Any) -> Any:
        """Take null as the default, as in BFL's API."""
        return {name: value for name, value in told.items() if value is not None} if isinstance(told, dict) else told


def body_of(name: str, endpoint: Endpoint) -> type[BaseModel]:
    """The type of a request's body, checked by its fields; those that it has not are ignored, as BFL does."""
    title = "".join(word.capitalize() for word in name.replace(".", "-").split("-")) + "Inputs"
    body: type[BaseModel] = create_model(title, __base__=Told, **{**endpoint.fields, **COMMON})
    return body
