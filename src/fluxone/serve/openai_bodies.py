"""The bodies that OpenAI's images API takes: its own fields, and those that other servers of it know.

What stable-diffusion.cpp reads inside a prompt, `<sd_cpp_extra_args>{...}</sd_cpp_extra_args>`, becomes fields.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from fluxone.request import MAX_PROMPT, MAX_SEED
from fluxone.serve.bfl_fields import Lora

MOST_IMAGES = 16
TAG = "sd_cpp_extra_args"
EXTRA = re.compile(rf"<{TAG}>(.*?)</{TAG}>", re.DOTALL)
SPELT = {  # stable-diffusion.cpp's name -> ours
    "steps": "num_inference_steps", "sample_steps": "num_inference_steps", "cfg_scale": "true_cfg_scale",
    "guidance": "guidance_scale",
}  # fmt: skip


class Common(BaseModel):
    """What all three take."""

    prompt: str = Field("", max_length=MAX_PROMPT)
    model: str | None = None
    n: int = Field(1, ge=1, le=10)
    size: str = "auto"
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] = "auto"
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(100, ge=0, le=100)
    background: Literal["auto", "opaque"] = "auto"
    moderation: Literal["auto", "low"] = "auto"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    negative_prompt: str | None = Field(None, max_length=MAX_PROMPT)
    num_inference_steps: int | None = Field(None, ge=1, le=100)
    guidance_scale: float | None = Field(None, ge=0, le=100)
    true_cfg_scale: float = Field(1.0, ge=1, le=30)
    lora: Lora | list[Lora] | None = None

    @model_validator(mode="before")
    @classmethod
    def read(cls, told: Any) -> Any:
        """Take null as what it is in OpenAI's document, the default, and out of the prompt what stable-diffusion.cpp
        would."""
        if isinstance(told, dict):
            told = {name: value for name, value in told.items() if value is not None}
        if not isinstance(told, dict) or not (found := EXTRA.search(str(told.get("prompt", "")))):
            return told
        try:
            extra = json.loads(found[1])
        except (ValueError, RecursionError):
            extra = None
        if not isinstance(extra, dict):
            raise ValueError(f"what is inside <{TAG}> is no JSON object")
        own = {SPELT.get(name, name): value for name, value in extra.items()}
        return {**told, **own, "prompt": EXTRA.sub("", str(told["prompt"])).strip()}


class Generation(Common):
    """Words to pictures."""

    prompt: str = Field(max_length=MAX_PROMPT)


class Place(BaseModel):
    """A picture at a URL, which may hold it as data."""

    image_url: str

    @model_validator(mode="before")
    @classmethod
    def read(cls, told: Any) -> Any:
        """Say that there are no files here, which OpenAI's own server keeps."""
        if isinstance(told, dict) and told.get("file_id") and not told.get("image_url"):
            raise ValueError("no files are kept here: give image_url, which may be a data URL")
        return told


class Edit(Generation):
    """Pictures and words to pictures."""

    images: list[Place] = Field(min_length=1, max_length=MOST_IMAGES)
    mask: Place | None = None
