"""Finds people on a picture and reads how they look, without a network: by what the renderer would have drawn there.

    picture -- how much like each ink --> gains (px, inks) -- coarse, whole picture --> candidates
            -- fine, one attribute after another --> figure -- what it covers is taken --> the next one

A figure is worth the sum over its parts of how well one ink of the part's material, the same for all parts of that
material, explains the px there; px that it explains badly count against it. So all values of all attributes compete,
colours at once and shapes in turn, and nothing is known of what was asked. Text, things and stages are not its matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from PIL import Image

from fluxone.evaluate.follow import wide
from fluxone.evaluate.shapes import INKS, MATERIALS, PARTS, PROBE, SPANS, TONES, Shape, called, head, shape
from fluxone.evaluate.truth import DETAILS
from fluxone.storybook.canvas import SPAN
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Person

COARSE, FINE = 32, 128  # px: where figures are looked for, and where they are looked at
NEAR, FAR = 0.12, 0.2  # of 0..1, a channel: how far a px may be from its ink to count for it; what counts as farthest
HEIGHTS = (42.0, 47.0, 53.0, 60.0, 67.0, 75.0)
SHORTEST, TALLEST = 36.0, 84.0
MOST = 3  # people on a picture
TRIED = 3  # candidates looked at closely
LIKELY = 0.5  # share of its greatest worth that a shape must have on the small picture to be looked at closely
SURE = 0.6  # share from which no other candidate is looked at
FOUND = 0.4  # share of its greatest worth that a figure must have
STEPS = ((0, 0), *((x, y) for step in (1, 3) for x in (-step, 0, step) for y in (-step, 0, step) if x or y))
PHASES = ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5))
EDGE = 2  # px around a figure that its edge is mixed into
MARGIN = 6  # px around a figure that tell nothing about what is behind it
BEYOND = -1.0  # what a px counts that is outside the picture, or someone else's
Mask = Bool[np.ndarray, "H W"]
Pixels = Float[np.ndarray, "H W 3"]  # 0..1
Gains = Sequence[Float[np.ndarray, "px inks"]]  # of each part; the last row is what lies beyond the picture


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A shape with its head in a px of `FINE`, what it is worth there, and the values of its materials."""

    person: Person  # in the probe's colours
    x: int
    y: int
    phase: tuple[float, float] = (0.0, 0.0)
    worth: float = -np.inf
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Someone on a picture, how good the likeness is, 1 at best, and the px where it is like that."""

    person: Person
    share: float
    seen: Mask = field(repr=False, compare=False)


def find(picture: Image.Image) -> list[Figure]:
    """Everyone on the picture, the surest first.

    Raises:
        MissingExtra: what draws storybook scenes is not installed.
    """
    pixels = _pixels(picture)
    gains = _gains(pixels)
    found: list[Figure] = []
    while len(found) < MOST:
        best = _best(gains, pixels)
        if best is None or _share(best) < FOUND:
            break
        found.append(Figure(person=_person(best), share=_share(best), seen=_like(gains, best)))
        _take(gains, best)
    return found


def without(picture: Image.Image, figures: Sequence[Figure]) -> Image.Image:
    """The picture, at `FINE` px, with what is behind these people where they are, as the places beside them tell it."""
    pixels, taken = _pixels(picture), np.zeros((FINE, FINE), bool)
    for figure in figures:
        taken |= figure.seen
    return Image.fromarray((_behind(pixels, _grown(taken, EDGE)) * 255).round().astype(np.uint8))


def _best(gains: Gains, pixels: Pixels) -> Guess | None:
    """The best of the likely ones: the first that is surely someone, for the likeliest come first."""
    best: Guess | None = None
    for guess in _far(_pooled(gains)):
        close = _close(gains, pixels, guess)
        if best is None or close.worth > best.worth:
            best = close
        if _share(best) > SURE:
            break
    return best


def _share(guess: Guess) -> float:
    """What the guess is worth of what it could be."""
    return guess.worth / len(_shape(guess).across)


def _pixels(picture: Image.Image) -> Pixels:
    rgb = picture.convert("RGB")
    if rgb.size != (FINE, FINE):
        rgb = rgb.resize((FINE, FINE), Image.Resampling.BOX if rgb.width > FINE else Image.Resampling.BICUBIC)
    return np.asarray(rgb, np.float32) / 255


def _gains(pixels: Pixels) -> Gains:
    """How well each ink explains each px: 1 if it is the px's colour, less than 0 beyond `NEAR`."""
    x = pixels.reshape(-1, 3)
    off = (np.square(x).sum(1, keepdims=True) - 2 * x @ INKS.T + np.square(INKS).sum(1)) / 3
    return _parted(1 - np.minimum(off, FAR**2) / NEAR**2)


def _grown(mask: Mask, by: int) -> Mask:
    """The mask with all px within `by` of it, across, down or both."""
    found: Mask = wide(torch.from_numpy(mask), by).numpy()
    return found


def _parted(gains: Float[np.ndarray, "px inks"]) -> Gains:
    whole = np.concatenate([gains, np.full((1, len(INKS)), BEYOND, np.float32)])
    return [np.ascontiguousarray(whole[:, span]) for span in SPANS]


def _pooled(gains: Gains) -> Gains:
    """The same on the small picture: the best of each cell, so that a px or two beside its place is no matter."""
    whole = np.concatenate(gains, 1)[:-1].reshape(COARSE, FINE // COARSE, COARSE, FINE // COARSE, -1)
    return _parted(whole.max((1, 3)).reshape(COARSE * COARSE, -1))


def _worth(
    gains: Gains, one: Shape, x: Int[np.ndarray, " n"], y: Int[np.ndarray, " n"], size: int
) -> tuple[Float[np.ndarray, " n"], dict[str, Int[np.ndarray, " n"]]]:
    """What the shape is worth with its head at each of the places, and the number of each material's best value."""
    at = one.at(x[:, None], y[:, None], size)
    worth = np.zeros(len(x), np.float32)
    sums: dict[str, NDArray[np.float32]] = {}
    for part, span in one.spans():
        told = gains[part].take(at[:, span], axis=0).sum(1)
        if material := PARTS[part].material:
            sums[material] = sums[material] + told if material in sums else told
        else:
            worth += told[:, 0]
    for told in sums.values():
        worth += told.max(1)
    return worth, {material: told.argmax(1) for material, told in sums.items()}


def _far(gains: Gains) -> list[Guess]:
    """The likeliest places, heights and rough shapes on the small picture."""
    grid = np.arange(COARSE)
    x, y = (part.ravel() for part in np.meshgrid(grid[3:-3], grid[4:-10]))
    found: list[tuple[float, Person, int, int]] = []
    for height in HEIGHTS:
        for pose in ("standing", "jumping"):
            for style in ("short", "long"):
                one = replace(PROBE, height=height, pose=pose, style=style)
                worth = _worth(gains, shape(one, COARSE), x, y, COARSE)[0]
                best = [n for n in np.argsort(-worth)[:3] if worth[n] > LIKELY * len(shape(one, COARSE).across)]
                found += [(float(worth[n]), one, int(x[n]), int(y[n])) for n in best]
    found.sort(key=lambda row: -row[0])
    kept: list[Guess] = []
    scale = FINE // COARSE
    for _, one, column, row in found:
        if len(kept) == TRIED:
            break
        place = column * scale + scale // 2, row * scale + scale // 2
        if all(abs(k.x - place[0]) + abs(k.y - place[1]) > scale or k.person.style != one.style for k in kept):
            kept.append(Guess(person=one, x=place[0], y=place[1]))
    return kept


def _close(gains: Gains, pixels: Pixels, guess: Guess) -> Guess:
    """The best guess that is reached from this one by changing one thing after another; half a px comes last.

    Then what could as well be the background counts nothing: yellow before a yellow sky is no crown.
    """
    best = _climbed(gains, _placed(gains, guess, STEPS))
    for phase in PHASES:
        best = max(best, _placed(gains, replace(best, phase=phase), STEPS), key=lambda one: one.worth)
    behind = _behind(pixels, _grown(_covered(best), MARGIN))
    plain = (1 - np.square(pixels - behind).mean(-1) / NEAR**2).clip(min=0).reshape(-1, 1)
    for part in (rest := [part.copy() for part in gains]):
        part[:-1] -= plain
    return _climbed(rest, _placed(rest, best))


def _like(gains: Gains, guess: Guess) -> Mask:
    """The px where the figure is and nothing is before it."""
    one, found = _shape(guess), np.zeros(FINE * FINE + 1, bool)
    at = one.at(guess.x, guess.y, FINE)
    for part, span in one.spans():
        material = PARTS[part].material
        ink = tuple(MATERIALS[material]).index(guess.values[material]) if material else 0
        found[at[span]] = gains[part][at[span], ink] > 0
    return found[:-1].reshape(FINE, FINE)


def _covered(guess: Guess) -> Mask:
    """The px where the figure is."""
    found = np.zeros(FINE * FINE + 1, bool)
    found[_shape(guess).at(guess.x, guess.y, FINE)] = True
    return found[:-1].reshape(FINE, FINE)


def _shape(guess: Guess) -> Shape:
    return shape(guess.person, FINE, guess.phase)


def _behind(pixels: Pixels, covered: Mask) -> Pixels:
    """The picture with every covered px as it is between the nearest others in its row."""
    found, columns = pixels.copy(), np.arange(FINE)
    for row in np.nonzero(covered.any(1) & ~covered.all(1))[0]:
        gap = covered[row]
        for channel in range(3):
            found[row, gap, channel] = np.interp(columns[gap], columns[~gap], pixels[row, ~gap, channel])
    return found


def _climbed(gains: Gains, best: Guess) -> Guess:
    while True:
        before = best.worth
        for others in (_statures, _stances, _cuts, _hats, _bottoms):
            for person in others(best.person):
                best = max(best, _placed(gains, replace(best, person=person)), key=lambda one: one.worth)
            best = _placed(gains, best, STEPS)
        if best.worth <= before:
            return best


def _placed(gains: Gains, guess: Guess, steps: Sequence[tuple[int, int]] = ((0, 0),)) -> Guess:
    """The guess at the best of the places beside it."""
    x, y = (np.array([step[axis] for step in steps]) + place for axis, place in enumerate((guess.x, guess.y)))
    worth, told = _worth(gains, _shape(guess), x, y, FINE)
    n = int(worth.argmax())
    values = {material: tuple(MATERIALS[material])[int(row[n])] for material, row in told.items()}
    return replace(guess, x=int(x[n]), y=int(y[n]), worth=float(worth[n]), values=values)


def _statures(person: Person) -> Iterator[Person]:
    for by in (-4, -2, -1, 1, 2, 4):
        if SHORTEST <= person.height + by <= TALLEST:
            yield replace(person, height=person.height + by)


def _stances(person: Person) -> Iterator[Person]:
    for pose in POSES:
        for flip in (False, True):
            yield replace(person, pose=pose, flip=flip)


def _cuts(person: Person) -> Iterator[Person]:
    for style in DETAILS["style"]:
        yield replace(person, style=style)


def _hats(person: Person) -> Iterator[Person]:
    for hat in DETAILS["hat"]:
        yield replace(person, hat=hat)
    yield replace(person, glasses=not person.glasses)


def _bottoms(person: Person) -> Iterator[Person]:
    for bottom in DETAILS["bottom"]:
        yield replace(person, bottom=bottom)


def _take(gains: Gains, guess: Guess) -> None:
    """Let nobody else be where this figure is."""
    covered = np.append(_covered(guess).ravel(), False)
    for part in gains:
        part[covered] = BEYOND


def _person(guess: Guess) -> Person:
    """The figure as the renderer would be asked for it."""
    unit, shown = SPAN / FINE, guess.values
    hatted = guess.person.hat not in ("", "crown")
    return replace(
        guess.person,
        who=called(guess.person),
        x=(guess.x + 0.5 + guess.phase[0]) * unit,
        foot=(guess.y + 0.5 + guess.phase[1]) * unit - head(guess.person),
        skin=TONES.index(shown["skin"]),
        hair=shown.get("hair", ""),
        shirt=shown["shirt"],
        trousers=shown.get("trousers", PROBE.trousers),
        hat_colour=shown["hat colour"] if hatted else "",
    )
