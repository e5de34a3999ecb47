"""What the arguments of a call of `FluxPipeline` must be, and the plain values that they stand for.

It knows no model: what a model can do with them is for others to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.geometry import Resolution
from fluxone.request import MAX_SEED, Region
from fluxone.sampling.noise import Source, generators

Prompts = str | Sequence[str] | None
COLOURS = 3
MOST_TOKENS = 512  # T5 tokens, as diffusers allows
SCALE = "scale"  # the one word of `joint_attention_kwargs` that FLUX.1 has a meaning for


def plain(value: object) -> Any:
    """A number of numpy's as Python's own, which is what records can hold; all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def whole(name: str, value: object, most: int | None = None) -> None:
    """Refuse what is no whole number from 1 on, to `most`."""
    upwards = f"use a whole number from 1 {'on' if most is None else f'to {most}'}"
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most is not None and value > most):
        raise BadRequest(f"{name} is {value!r:.80}", hint=upwards)


def tensors(given: Mapping[str, object]) -> None:
    """Refuse what is neither a tensor nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Tensor):
            raise BadRequest(f"{name} is {type(value).__name__}", hint="give a torch tensor")


def callback(value: object, inputs: object, readable: Sequence[str]) -> None:
    """Refuse what cannot be called after a step, or told what it asks for."""
    if value is not None and not callable(value):
        raise BadRequest(f"callback_on_step_end is {value!r:.80}", hint="give a function of (pipe, step, t, tensors)")
    unknown = [name for name in inputs if name not in readable] if isinstance(inputs, list | tuple) else [inputs]
    if unknown:
        hint = f"give a list of {' and '.join(readable)}"
        raise BadRequest(f"a callback cannot read {', '.join(map(str, unknown))}", hint=hint)


def replaced(answer: object, told: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors to go on with: what a callback was told, and in its place what it gave back.

    Raises:
        BadRequest: it gave back something else than it can replace, or a tensor of another shape.
    """
    if answer is not None and not isinstance(answer, Mapping):
        raise BadRequest(f"a callback gave back {answer!r:.80}", hint="give back a dict of tensors, or None")
    given = {name: tensor for name, tensor in (answer or {}).items() if tensor is not told.get(name)}
    for name, tensor in given.items():
        if name not in told:
            hint = f"it may give back {' and '.join(told)}"
            raise BadRequest(f"a callback gave back {name}, which cannot be replaced during the walk", hint=hint)
        if not isinstance(tensor, Tensor) or tensor.shape != told[name].shape:
            shape = tuple(told[name].shape)
            raise BadRequest(f"a callback gave back {name} {tensor!r:.60}", hint=f"their shape is {shape}")
    return {name: given.get(name, tensor).to(tensor) for name, tensor in told.items()}


def latents_of(image: object, channels: int) -> Tensor | None:
    """What was given as a picture's latents, (B, C, h, w) as the autoencoder gives them, scaled: tensors of as many
    channels, alone or in a list. None: it is something else, a picture at best.

    Raises:
        BadRequest: several of different sizes are to be one batch, or one has no whole tokens.

    Source: huggingface/diffusers, `VaeImageProcessor.preprocess`.
    """
    several = list(image) if isinstance(image, list | tuple) else [image]
    found = [one for one in several if isinstance(one, Tensor) and one.ndim in (3, 4) and one.shape[-3] == channels]
    if channels == COLOURS or not found or len(found) != len(several):
        return None
    rows = [(one if one.ndim == 4 else one[None]).detach().float().cpu() for one in found]
    sizes = {tuple(one.shape[-2:]) for one in rows}
    height, width = next(iter(sizes))
    if len(sizes) > 1 or 0 in rows[0].shape or height % 2 or width % 2:
        told = " and ".join(f"{wide}x{high}" for high, wide in sorted(sizes))
        raise BadRequest(f"an image is given as latents of {told} cells", hint="give one even size of both sides")
    return torch.cat(rows)


def fitting(name: str, latents: Tensor, canvas: Resolution, factor: int) -> None:
    """Refuse latents that are not those of a picture of the canvas' size; `factor` is px a cell."""
    height, width = (side * factor for side in latents.shape[-2:])
    if (height, width) != (canvas.height, canvas.width):
        hint = "leave height and width out, or give the latents of a picture of that size"
        raise BadRequest(f"{name} is latents of {width}x{height} px, and {canvas} is drawn", hint=hint)


def pair(name: str, value: object) -> tuple[float, float]:
    """Two numbers.

    Raises:
        BadRequest: it is something else.
    """
    try:
        start, end = value  # type: ignore[misc]
        return float(start), float(end)  # type: ignore[has-type]
    except (TypeError, ValueError):
        raise BadRequest(f"{name} is {value!r:.80}", hint="give two numbers, such as (0.0, 0.8)") from None


def regions(value: object) -> tuple[Region, ...]:
    """Regions as a tuple; one may be given alone.

    Raises:
        BadRequest: it is something else.
    """
    several: list[object] = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(one, Region) for one in several):
        raise BadRequest(f"regions is {value!r:.80}", hint="give a list of fluxone.Region")
    return tuple(one for one in several if isinstance(one, Region))


def levels(sigmas: object) -> tuple[float, ...]:
    """Noise levels as numbers: a list, an array or a tensor of them.

    Raises:
        BadRequest: they are something else.
    """
    try:
        if isinstance(sigmas, str):
            raise TypeError("text")
        return tuple(float(level) for level in sigmas)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise BadRequest(f"sigmas is {sigmas!r:.80}", hint="give falling numbers, such as [1.0, 0.5]") from None


def texts(prompts: str | Sequence[str], name: str) -> list[str]:
    """Prompts as a list.

    Raises:
        BadRequest: it is no text and no list of texts.
    """
    several: list[object] = list(prompts) if isinstance(prompts, list | tuple) else [prompts]
    if not several or not all(isinstance(text, str) for text in several):
        raise BadRequest(f"{name} is {prompts!r:.80}", hint="give text, or a list of texts")
    return [str(text) for text in several]


def sources(seed: int | None, generator: object, batch: int) -> Source:
    """What the noise of a batch is drawn from: a generator a seed, those that are given, or torch's global one.

    Raises:
        BadRequest: they are no generators, or not as many as there are pictures.
    """
    if seed is not None:
        return generators(seed + i for i in range(batch))
    several: list[Any] = list(generator) if isinstance(generator, list | tuple) else [generator]
    for one in several:
        if not isinstance(one, torch.Generator) and generator is not None:
            raise BadRequest(f"generator is {one!r:.80}", hint="give a torch.Generator, or a list of them; or seed=")
    if not isinstance(generator, list | tuple):
        found: Source = generator  # type: ignore[assignment]
        return found
    if len(several) not in (1, batch):
        raise BadRequest(f"{len(several)} generators for {batch} pictures", hint="give as many")
    return several[0] if len(several) == 1 else several


def seeds(seed: int | None, generator: object, batch: int) -> list[int]:
    """The seed of each picture of a batch, as its choices are drawn by it: with a generator the one that it was made
    with."""
    several = list(generator) if isinstance(generator, list | tuple) else [generator]
    own = [one.initial_seed() if isinstance(one, torch.Generator) else seed or 0 for one in several]
    if len(own) == batch > 1:
        return own
    return [(own[0] + i) % (MAX_SEED + 1) for i in range(batch)] if own else [0] * batch


def attention_scale(said: Mapping[str, Any] | None) -> float:
    """The strength of all adapters in this call, as diffusers takes it.

    Raises:
        BadRequest: something else is said, or it is no number.
    """
    if said is not None and not isinstance(said, Mapping):
        raise BadRequest(f"joint_attention_kwargs is {said!r:.80}", hint="give a dict")
    if others := [str(name) for name in said or {} if name != SCALE]:
        hint = f"it may hold {SCALE}, the strength of adapters"
        raise BadRequest(f"joint_attention_kwargs holds {', '.join(others)}, of which nothing is known", hint=hint)
    scale = (said or {}).get(SCALE)
    scale = 1.0 if scale is None else scale
    if not isinstance(scale, int | float) or not abs(scale) <= 100:
        raise BadRequest(f"{SCALE} of joint_attention_kwargs is {scale!r:.80}", hint="use a number such as 0.8")
    return float(scale)
