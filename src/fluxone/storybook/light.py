"""Light on finished pixels: moonlight over any stage, and the soft side light, blur and grain of a photograph.

    backdrop (H, W, 3), things (H, W, 4) ── a row of LIGHTS ──▶ uint8 (H, W, 3)

Works on pixels alone, so that every engine that draws the layers gives the same look. The grain is drawn from the
scene's seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

Picture = UInt8[np.ndarray, "H W 3"]
Layer = UInt8[np.ndarray, "H W 4"]
Plane = Float[np.ndarray, "H W"]

SKY = np.array([[0.42, 0.04, 0.02], [0.04, 0.44, 0.06], [0.05, 0.14, 0.72]], np.float32)  # rows: r, g, b from r, g, b
SHONE = np.array([[0.75, 0.05, 0.02], [0.03, 0.76, 0.05], [0.04, 0.10, 0.80]], np.float32)  # on things
DARK = 1.7  # the backdrop's exponent: pale skies fall dark
BACK_BLUR, CAST, EDGE, ROUND = 0.011, 0.035, 0.008, 0.045  # of the picture's side: depth blur, shadow, bevels
WARM = np.array([1.02, 0.99, 0.94], np.float32)
GREY = np.array([0.3, 0.59, 0.11], np.float32)
COARSE = 4  # how much smaller wide blurs are done
GRAIN = 2.6  # standard deviation, of 255


def _blurred(plane: UInt8[np.ndarray, ...], radius: float) -> Float[np.ndarray, ...]:
    return np.asarray(Image.fromarray(plane).filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _spread(alpha: UInt8[np.ndarray, "H W"], radius: float) -> Plane:
    """A wide blur of a silhouette, 0 to 1: done at a quarter of the size, which nobody can tell."""
    small = Image.fromarray(alpha).reduce(COARSE).filter(ImageFilter.GaussianBlur(radius / COARSE))
    wide: Plane = np.asarray(small.resize(alpha.shape[::-1], Image.Resampling.BICUBIC), np.float32) / 255
    return wide


def moonlit(backdrop: Picture, things: Layer, seed: int) -> Picture:
    """A dark blue backdrop that fades towards the edges, and the things before it in cool, dim light."""
    fall = _falloff(backdrop.shape[0], 0.5, 0.45, 0.5)[..., None]
    back = (backdrop.astype(np.float32) / 255) ** DARK @ SKY.T * 205 * fall
    alpha = things[..., 3:].astype(np.float32) / 255
    front = things[..., :3].astype(np.float32) @ SHONE.T * fall**0.5
    out = back * (1 - alpha) + front * alpha
    picture: Picture = np.clip(out, 0, 255).astype(np.uint8)
    return picture


def _falloff(side: int, x: float, y: float, strength: float) -> Plane:
    """1 at (x, y), less with distance."""
    at = (np.arange(side, dtype=np.float32) + 0.5) / side
    far = (at[None, :] - x) ** 2 + (at[:, None] - y) ** 2
    share: Plane = 1 / (1 + strength * far * 2)
    return share


def photograph(backdrop: Picture, things: Layer, seed: int) -> Picture:
    """The things, lit from one side, before a backdrop that is out of focus; warm, with a vignette and fine grain."""
    side = backdrop.shape[0]
    rng = np.random.default_rng(seed)
    right = bool(rng.integers(2))
    alpha = things[..., 3].astype(np.float32) / 255
    back = _blurred(backdrop, BACK_BLUR * side) * WARM
    cast = np.roll(_spread(things[..., 3], CAST * side), round(0.03 * side) * (-1 if right else 1), axis=1)
    back *= 1 - 0.3 * np.roll(cast, round(0.02 * side), axis=0)[..., None]
    light = _relief(things[..., 3], right, side)
    front = things[..., :3].astype(np.float32) * light[..., None]
    front += 34 * np.clip(light - 1.1, 0, None)[..., None] * 4  # the glint where it faces the light
    out = back * (1 - alpha[..., None]) + front * alpha[..., None]
    out = _developed(out / 255, _falloff(side, 0.68 if right else 0.32, 0.3, 0.42))
    out += rng.standard_normal((side, side, 1), np.float32) * GRAIN
    picture: Picture = np.clip(out, 0, 255).astype(np.uint8)
    return picture


def _relief(alpha: UInt8[np.ndarray, "H W"], right: bool, side: int) -> Plane:
    """How much light falls on every place, when the silhouette is a rounded body: about 0.6 to 1.4."""
    total = np.ones(alpha.shape, np.float32)
    narrow, wide = _blurred(alpha, EDGE * side) / 255, _spread(alpha, ROUND * side)
    for plane, share, gain in ((narrow, EDGE, 0.25), (wide, ROUND, 1.0)):
        down, across = np.gradient(plane)
        toward = across if not right else -across
        total += gain * share * side * (toward * 0.9 + down * 0.75)
    light: Plane = np.clip(total, 0.55, 1.45)
    return light


def _developed(out: Float[np.ndarray, "H W 3"], falloff: Plane) -> Float[np.ndarray, "H W 3"]:
    """The film's curve: softer lights, deeper darks, colours a little muted; 0 to 255."""
    out = np.clip(out * (1.1 * falloff)[..., None], 0, 1.2)
    out = out / (out * 0.22 + 0.81)  # lights roll off
    out = out * (1 - 0.14) + 0.14 * out * out * (3 - 2 * np.clip(out, 0, 1.5))
    grey = out @ GREY
    return (grey[..., None] + (out - grey[..., None]) * 0.88) * 250


LIGHTS: dict[str, Callable[[Picture, Layer, int], Picture]] = {"moon": moonlit, "photo": photograph}
