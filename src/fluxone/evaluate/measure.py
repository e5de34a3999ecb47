"""Suites -> scores: draws the prompts, lets the judge look, and counts; the judge is measured on the same scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from fluxone.evaluate.bench import Bench
from fluxone.evaluate.change import made
from fluxone.evaluate.follow import FOLLOWED, UNITS
from fluxone.evaluate.given import Prompt, shown
from fluxone.evaluate.judge import Seen
from fluxone.evaluate.statistics import Figure, mean, share
from fluxone.evaluate.suites import Suite, missing
from fluxone.evaluate.verdict import Verdict, alike, judged, plain


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture, what was given for it, and what came of it."""

    prompt: str
    seed: int
    steps: int
    image: Image.Image
    right: bool
    verdict: Verdict
    sort: str = ""
    given: tuple[Image.Image, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure of a suite. `truth` and `rebuilt` are what the judge says of the scenes themselves, drawn by the
    renderer, and drawn and put through the model's autoencoder; None where that has no meaning."""

    name: str
    figure: Figure
    truth: float | None = None
    rebuilt: float | None = None
    unit: str = "%"


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a suite came to, or why it was not scored."""

    suite: str
    title: str
    lines: tuple[Line, ...] = ()
    shots: tuple[Shot, ...] = ()
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A prompt with the verdicts on its pictures, on its scene, and on its scene rebuilt."""

    prompt: Prompt
    drawn: tuple[Verdict, ...]
    truth: Verdict
    rebuilt: Verdict


Value = Callable[[Verdict], float | None]


def score(name: str, suite: Suite, bench: Bench) -> Score:
    """Draw and judge a suite's prompts, or say why that is not possible."""
    if reason := missing(suite, bench.world, bench.pipeline.variant, bench.judge.tables):
        return Score(suite=name, title=suite.title, skipped=reason)
    bench.tell(f"{name}: {suite.title}")
    asked = suite.find(suite.search, bench.world, bench.prompts)
    shots = shoot(asked, suite, bench)
    scenes = [bench.truth(prompt.scene) for prompt in asked]
    again = [bench.rebuilt(image) for image in scenes]
    truth, rebuilt = (
        [verdict(*row, suite) for row in zip(asked, images, bench.look(images), strict=True)]
        for images in (scenes, again)
    )
    rows = [
        Row(prompt=p, drawn=tuple(shot.verdict for shot in s), truth=t, rebuilt=r)
        for p, s, t, r in zip(asked, shots, truth, rebuilt, strict=True)
    ]
    lines = _lines(rows, suite)
    if "word" in suite.parts and suite.takes is None:
        lines += _by_ocr(asked, shots, scenes, again, bench)
    return Score(suite=name, title=suite.title, lines=tuple(lines), shots=tuple(s for row in shots for s in row))


def shoot(asked: Sequence[Prompt], suite: Suite, bench: Bench, steps: int | None = None) -> list[list[Shot]]:
    """The pictures of the prompts, judged: a list for each, one a seed."""
    drawn = bench.draw(asked, bench.seeds, steps)
    seen = iter(bench.look([one.image for row in drawn for one in row]))
    return [
        [_shot(p, seed, steps or bench.usual, one.image, next(seen), suite) for seed, one in enumerate(row)]
        for p, row in zip(asked, drawn, strict=True)
    ]


def _shot(prompt: Prompt, seed: int, steps: int, image: Image.Image, seen: Seen, suite: Suite) -> Shot:
    found = verdict(prompt, image, seen, suite)
    given = tuple(shown(one.scene, one.mode, image.width) for one in prompt.given)
    return Shot(prompt=prompt.text, seed=seed, steps=steps, image=image, right=passed(found, suite), verdict=found,
                sort=prompt.sort, given=given)  # fmt: skip


def verdict(prompt: Prompt, image: Image.Image, seen: Seen, suite: Suite) -> Verdict:
    """What is right about a picture of the prompt: what the judge saw, and what the suite holds it to besides."""
    found = judged(prompt.scene, seen)
    told = (*suite.parts, *suite.also)
    held = {part: FOLLOWED[part](prompt, image) for part in told if part in FOLLOWED}
    parts = found.parts | {part: one.right for part, one in held.items()}
    if "change" in told:
        parts["change"] = made(next(one.scene for one in prompt.given if one.mode == "rgb"), prompt.scene, seen)
    numbers = found.numbers | {part: one.value for part, one in held.items() if one.value is not None}
    return replace(found, parts={part: parts[part] for part in told}, numbers=numbers)


def passed(verdict: Verdict, suite: Suite) -> bool:
    """Whether all the parts that the suite asks for are right."""
    return all(verdict.parts[part] for part in suite.parts)


def _lines(rows: Sequence[Row], suite: Suite) -> list[Line]:
    """What the suite asks for right; with all else that is told; each group of several prompts wholly right; each part;
    each sort; and the numbers."""

    def right(verdict: Verdict) -> bool:
        return passed(verdict, suite)

    lines = [_share("right", rows, right)]
    if suite.also:
        lines.append(_share("and all else", rows, lambda v: all(v.parts.values())))
    if len({row.prompt.group for row in rows}) < len(rows):
        lines.append(_whole(rows, suite))
    if len(told := (*suite.parts, *suite.also)) > 1:
        lines += [_share(part, rows, lambda v, part=part: v.parts[part]) for part in told]  # type: ignore[misc]
    for sort in dict.fromkeys(row.prompt.sort for row in rows if row.prompt.sort):
        lines.append(_share(f"right, {sort}", [row for row in rows if row.prompt.sort == sort], right))
    for name in dict.fromkeys(name for row in rows for name in row.truth.numbers):
        lines.append(_mean(name, rows))
    return lines


def _grouped(rows: Sequence[Row], value: Value) -> list[list[float]]:
    """The values of the pictures, those of one group of prompts together."""
    groups: dict[int, list[float]] = {}
    for row in rows:
        groups.setdefault(row.prompt.group, []).extend(v for one in row.drawn if (v := value(one)) is not None)
    return [group for group in groups.values() if group]


def _share(name: str, rows: Sequence[Row], right: Value) -> Line:
    figure = share([[bool(v) for v in group] for group in _grouped(rows, right)])
    truth, rebuilt = (sum(bool(right(v)) for v in column) / len(rows) for column in _columns(rows))
    return Line(name=name, figure=figure, truth=truth, rebuilt=rebuilt)


def _columns(rows: Sequence[Row]) -> tuple[list[Verdict], list[Verdict]]:
    return [row.truth for row in rows], [row.rebuilt for row in rows]


def _whole(rows: Sequence[Row], suite: Suite) -> Line:
    """The share of the groups, a seed each, of which every picture is right."""
    groups: dict[int, list[tuple[Verdict, ...]]] = {}
    for row in rows:
        groups.setdefault(row.prompt.group, []).append(row.drawn)
    whole = [[all(passed(v, suite) for v in of_seed) for of_seed in zip(*g, strict=True)] for g in groups.values()]
    size = max(map(len, groups.values()))
    return Line(name=f"all {size} of a group right", figure=share(whole))


def _mean(name: str, rows: Sequence[Row]) -> Line:
    unit, title = UNITS.get(name, "%"), f"{name}, mean" if name in UNITS else name
    known = [[v.numbers[name] for v in column if name in v.numbers] for column in _columns(rows)]
    truth, rebuilt = (sum(values) / len(values) for values in known)
    figure = mean(_grouped(rows, lambda v: v.numbers.get(name)))
    return Line(name=title, figure=figure, truth=truth, rebuilt=rebuilt, unit=unit)


def _by_ocr(
    asked: Sequence[Prompt],
    shots: Sequence[Sequence[Shot]],
    scenes: Sequence[Image.Image],
    again: Sequence[Image.Image],
    bench: Bench,
) -> list[Line]:
    """The same by OCR, which knows no storybook: exact texts, and letters."""
    if bench.read is None:
        return []
    read, words = bench.read, [plain(prompt.scene.facts.texts[0]) for prompt in asked]
    rows = (
        [[alike(word, plain(read(s.image))) for s in row] for word, row in zip(words, shots, strict=True)],
        *([[alike(word, plain(read(i)))] for word, i in zip(words, images, strict=True)] for images in (scenes, again)),
    )
    exact = [share([[value == 1 for value in row] for row in part]) for part in rows]
    letters = [mean(part) for part in rows]
    return [
        Line(name=f"{title} by OCR", figure=found[0], truth=found[1].value, rebuilt=found[2].value)
        for title, found in (("right", exact), ("letters", letters))
    ]
