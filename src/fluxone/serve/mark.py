"""An invisible watermark: a pattern of low frequencies that a secret key tells, spread over the whole picture.

    picture --cosine transform of its brightness, 7000 coefficients--> each a little up or down, by the key's signs
    picture --the same coefficients, each over the size of its neighbours--> how well their signs agree with the key's

It says whether a picture comes from a server with that key, and nothing else. It outlives JPEG, other sizes, light and
contrast, but no cropping, turning or mirroring, and nobody who is out to destroy it. Spread spectrum as in Cox et al.
1997. The agreement of a picture without the mark is a sum of signs that know nothing of it: it is above t with a
probability of at most exp(-t²/2) (Hoeffding 1963), whatever the picture.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fluxone.errors import BadRequest

Array = npt.NDArray[np.float32]
Mark = Callable[[Image.Image], Image.Image]

LOW, HIGH = 10.0, 96.0  # of the ring, half waves across the picture
SURE = 6.0  # agreement from which a picture is marked: one of 65 million others would be
AIM, WORST = 12.0, 75  # agreement that is left after a JPEG of that quality
QUIETEST, LOUDEST = 0.4, 2.2  # grey levels, root mean square: 56 and 41 dB below white
TRIES = 6
NEAR = 3  # neighbours to each side that a coefficient is measured by
LEAST_SIDE = 128  # px: below, the ring is too fine for the picture
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
FLOOR = 0.02  # grey levels: a smooth picture's coefficients are rounding alone
CALM = 0.5  # share of the pattern where the picture is flat
BUSY = 12.0  # grey levels of detail that hide the whole of it
SHORTEST_KEY = 8  # characters


def marking(key: str) -> Mark | None:
    """What marks a picture by a key; None for no key.

    Raises:
        BadRequest: the key is too short to be a secret.
    """
    if not key:
        return None
    if len(key) < SHORTEST_KEY:
        raise BadRequest(f"the watermark's key has {len(key)} characters", hint=f"use {SHORTEST_KEY} or more")
    return lambda image: marked(image, key)


def marked(image: Image.Image, key: str) -> Image.Image:
    """The picture with the mark, as faint as it may be; one that is smaller than 128 px has no room and stays."""
    if min(image.size) < LEAST_SIDE:
        return image
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    pattern = _pattern(pixels, key)
    low, high, best = QUIETEST, LOUDEST, image
    for tried in range(TRIES):
        loud = high if not tried else (low + high) / 2  # even the loudest may be too little for a white picture
        shown = np.clip(np.rint(pixels + loud * pattern[..., None]), 0, 255).astype(np.uint8)
        if not tried or agreement(_worn(Image.fromarray(shown)), key) >= AIM:
            best, high = Image.fromarray(shown), loud
        else:
            low = loud
    return best


def agreement(image: Image.Image, key: str) -> float:
    """How well a picture agrees with a key: about 0 ± 1 without the mark, `SURE` or more with it."""
    signs = _signs(key)
    found = _coefficients(np.asarray(image.convert("RGB"), dtype=np.float32) @ GREY)
    even = (found / _sizes(found)) * (signs != 0)
    return float((even * signs).sum() / max(np.sqrt((even**2).sum()), 1e-6))


def _worn(image: Image.Image) -> Image.Image:
    """The picture as a JPEG leaves it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=WORST)
    return Image.open(file)


def _pattern(pixels: Array, key: str) -> Array:
    """What is added to brightness, of a root mean square of 1: more where there is detail to hide in."""
    grey = pixels @ GREY
    sizes = _sizes(_coefficients(grey))
    height, width = grey.shape
    weights = _signs(key) / np.sqrt(sizes)
    pattern = _waves(height).T @ weights.astype(np.float32) @ _waves(width)
    pattern *= _room(grey)
    even: Array = pattern / np.sqrt((pattern**2).mean())
    return even


def _room(grey: Array) -> Array:
    """How much of the pattern each place takes."""
    radius = max(2, min(grey.shape) // 64)
    image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    smooth = np.asarray(image.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32)
    detail = Image.fromarray(np.clip(np.abs(grey - smooth), 0, 255).astype(np.uint8))
    near = np.asarray(detail.filter(ImageFilter.BoxBlur(2 * radius)), dtype=np.float32)
    room: Array = CALM + (1 - CALM) * np.clip(near / BUSY, 0, 1)
    return room


def _coefficients(grey: Array) -> Array:
    height, width = grey.shape
    found: Array = _waves(height) @ grey @ _waves(width).T / (height * width)
    return found


def _sizes(coefficients: Array) -> Array:
    """About how large a coefficient is, by those around it."""
    span = 2 * NEAR + 1
    wide = np.pad(np.abs(coefficients), NEAR, mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(wide, (span, span)).mean((2, 3))
    return np.asarray(around + FLOOR, dtype=np.float32)


@lru_cache(maxsize=8)
def _waves(side: int) -> Array:
    """Cosines of 0 to `HIGH` half waves over a side, each of a root mean square of 1."""
    place = (np.arange(side) + 0.5) / side
    return np.asarray(np.sqrt(2) * np.cos(np.pi * np.arange(int(HIGH) + 1)[:, None] * place), dtype=np.float32)


@lru_cache(maxsize=8)
def _signs(key: str) -> Array:
    """1 or -1 at each coefficient of the ring, 0 elsewhere."""
    seed = int.from_bytes(hashlib.sha256(b"fluxone watermark\0" + key.encode()).digest())
    order = np.arange(int(HIGH) + 1)
    radius = np.hypot(*np.meshgrid(order, order))
    signs = np.random.Generator(np.random.PCG64(seed)).choice([-1.0, 1.0], size=radius.shape)
    return (signs * ((radius >= LOW) & (radius <= HIGH))).astype(np.float32)
