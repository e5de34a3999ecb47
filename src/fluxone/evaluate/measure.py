"""Suites -> scores: draws the prompts, lets the judge look, and counts; the judge is measured on the same scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from fluxone.evaluate.bench import Bench
from fluxone.evaluate.statistics import Figure, mean, share
from fluxone.evaluate.suites import Prompt, Suite, missing, prompts
from fluxone.evaluate.verdict import Verdict, alike, judged


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture and what came of it."""

    prompt: str
    seed: int
    steps: int
    image: Image.Image
    right: bool
    verdict: Verdict


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


Verdicts = Sequence[Sequence[Verdict]]


def score(name: str, suite: Suite, bench: Bench) -> Score:
    """Draw and judge a suite's prompts, or say why that is not possible."""
    if reason := missing(suite, bench.world, bench.pipeline.variant.takes, bench.judge.tables):
        return Score(suite=name, title=suite.title, skipped=reason)
    bench.tell(f"{name}: {suite.title}")
    asked = prompts(suite, bench.world, bench.prompts)
    shots = [[shot(prompt, seed, suite, bench) for seed in range(bench.seeds)] for prompt in asked]
    drawn = [[one.verdict for one in row] for row in shots]
    scenes = [bench.truth(prompt.scene) for prompt in asked]
    again = [bench.rebuilt(image) for image in scenes]
    truth, rebuilt = (
        [[judged(p.scene, seen)] for p, seen in zip(asked, bench.look(images), strict=True)]
        for images in (scenes, again)
    )

    def line(title: str, right: Callable[[Verdict], bool]) -> Line:
        figures = [share([[right(v) for v in row] for row in rows]) for rows in (drawn, truth, rebuilt)]
        return Line(name=title, figure=figures[0], truth=figures[1].value, rebuilt=figures[2].value)

    lines = [line("right", lambda v: passed(v, suite))]
    if len(suite.parts) > 1:
        lines += [line(part, lambda v, part=part: v.parts[part]) for part in suite.parts]  # type: ignore[misc]
    if "word" in suite.parts:
        lines += _letters(drawn, truth, rebuilt)
        lines += _by_ocr(asked, shots, scenes, again, bench)
    return Score(suite=name, title=suite.title, lines=tuple(lines), shots=tuple(s for row in shots for s in row))


def shot(prompt: Prompt, seed: int, suite: Suite, bench: Bench, steps: int | None = None) -> Shot:
    """The picture of a prompt, judged."""
    image = bench.draw(prompt.text, seed, steps).image
    verdict = judged(prompt.scene, bench.look([image])[0])
    return Shot(prompt=prompt.text, seed=seed, steps=steps or bench.usual, image=image, right=passed(verdict, suite),
                verdict=verdict)  # fmt: skip


def passed(verdict: Verdict, suite: Suite) -> bool:
    """Whether all the parts that the suite asks for are right."""
    return all(verdict.parts[part] for part in suite.parts)


def _letters(drawn: Verdicts, truth: Verdicts, rebuilt: Verdicts) -> list[Line]:
    figure, *known = (mean([[v.letters for v in row] for row in rows]) for rows in (drawn, truth, rebuilt))
    return [Line(name="letters", figure=figure, truth=known[0].value, rebuilt=known[1].value)]


def _by_ocr(
    asked: Sequence[Prompt],
    shots: Sequence[Sequence[Shot]],
    scenes: Sequence[Image.Image],
    again: Sequence[Image.Image],
    bench: Bench,
) -> list[Line]:
    """The same by OCR, which knows no storybook: exact words, and letters."""
    if bench.read is None:
        return []
    read, words = bench.read, [prompt.scene.facts.texts[0].lower() for prompt in asked]
    rows = (
        [[alike(word, read(s.image)) for s in row] for word, row in zip(words, shots, strict=True)],
        *([[alike(word, read(i))] for word, i in zip(words, images, strict=True)] for images in (scenes, again)),
    )
    exact = [share([[value == 1 for value in row] for row in part]) for part in rows]
    letters = [mean(part) for part in rows]
    return [
        Line(name=f"{title} by OCR", figure=found[0], truth=found[1].value, rebuilt=found[2].value)
        for title, found in (("right", exact), ("letters", letters))
    ]
