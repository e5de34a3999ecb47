"""Captions by a vision-language model that the person has: a folder as transformers saves them. Nothing is fetched.

picture, what is asked for --chat template, or none--> the model --> its words
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fluxone.assembly import best_device
from fluxone.errors import BadFile, MissingExtra
from fluxone.tune.captions import Describe, Subject, plain

LONGEST = 80  # tokens of an answer
SIDE = 1024  # px: larger pictures are made smaller before they are looked at
ASKED = (
    "Describe this picture in one plain sentence of at most 30 words: what is done, the place, the light, "
    "and what else is there."
)


def asked(subject: Subject) -> str:
    """What the model is told: to say what may change, and not what makes the subject itself."""
    if not subject.name:
        return ASKED
    if subject.style:
        return f"{ASKED} Do not say how it is drawn, nor its colours as a whole."
    whom = f"The {subject.class_word}" if subject.class_word else "What it is mainly of"
    return f"{ASKED} {whom} is called {subject.name}: use that name, and do not say what {subject.name} looks like."


def reader(folder: Path, subject: Subject, device: str | None = None) -> Describe:
    """What describes pictures by the model in a folder.

    Raises:
        BadFile: it holds no such model, or only pickled weights.
        MissingExtra: transformers, or what the model needs besides, is not installed.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        raise MissingExtra("captions", "a model that describes pictures needs transformers") from None
    if not folder.is_dir():
        hint = "give the folder of a vision-language model, as transformers saves it"
        raise BadFile(f"there is no folder {folder}", hint=hint)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    place = torch.device(device or best_device())
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype
        )
    except ImportError as error:
        raise MissingExtra("captions", f"{folder}: {_first(error)}") from None
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadFile(
            f"{folder} holds no vision-language model: {_first(error)}", hint="give its folder, with safetensors"
        ) from None
    model = model.eval().to(place)
    words = asked(subject)

    def describe(pictures: Iterable[Image.Image]) -> Iterator[str]:
        for picture in pictures:
            yield plain(_said(model, processor, picture, words))

    return describe


@torch.inference_mode()
def _said(model: Any, processor: Any, picture: Image.Image, words: str) -> str:
    """The model's answer; one without a chat template is no talker, and says what it sees unasked."""
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE))
    if getattr(processor, "chat_template", None):
        content = [{"type": "image", "image": picture}, {"type": "text", "text": words}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
    else:
        inputs = processor(images=picture, return_tensors="pt")
    inputs = inputs.to(model.device)
    for name, value in inputs.items():
        if torch.is_floating_point(value):
            inputs[name] = value.to(model.dtype)
    made = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
    start = inputs["input_ids"].shape[1] if "input_ids" in inputs and not model.config.is_encoder_decoder else 0
    text: str = processor.batch_decode(made[:, start:], skip_special_tokens=True)[0]
    return text


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
