"""Whether a model draws different pictures for different seeds, and new ones rather than those it was trained on.

Both are distances between small versions of pictures, told as shares of what the world itself does: its own scenes of
the same description differ from each other by 100 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, islice

import torch
from PIL import Image
from torch import Tensor

from fluxone import storybook
from fluxone.evaluate.bench import Bench
from fluxone.evaluate.given import Prompt
from fluxone.evaluate.judge import tensor
from fluxone.evaluate.measure import Line, Score
from fluxone.evaluate.statistics import mean, share
from fluxone.evaluate.suites import SUITES, missing
from fluxone.storybook import Scene, World, nth

ASKED = ("objects", "relations")
SMALL = 32  # px: pictures are compared at this size, where a shift by a pixel is no difference
PROMPTS, SEEDS, TRIED = 8, 4, 400
TRAINED = 4000  # training scenes that are looked through
NEAREST = 24  # of them, those that share most with a prompt, are compared with its pictures
COPIED = 0.5  # nearer by this share than a new scene of the same prompt is a copy


def diversity(name: str, bench: Bench) -> Score:
    """Mean distance between the pictures of a prompt with different seeds."""
    title = "difference between seeds"
    suite = SUITES["objects"]
    if reason := missing(suite, bench.world, bench.pipeline.variant, bench.judge.tables):
        return Score(suite=name, title=title, skipped=reason)
    bench.tell(f"{name}: {title}")
    seeds = max(SEEDS, bench.seeds)
    shares = []
    asked = suite.find(suite.search, bench.world, min(PROMPTS, bench.prompts))
    for prompt, drawn in zip(asked, bench.draw(asked, seeds), strict=True):
        own = _spread([one.image for one in drawn])
        true = _spread([bench.truth(scene) for scene in islice(alike(prompt.scene, bench.world), seeds)])
        shares.append([own / true])
    return Score(suite=name, title=title, lines=(Line(name="of the world's own", figure=mean(shares)),))


def alike(scene: Scene, world: World) -> list[Scene]:
    """Other scenes of the same description: the same thing in the same colour on the same stage."""
    (thing,) = scene.facts.things
    narrow = replace(world, objects=(thing.name,), stages=(scene.stage,), kinds={scene.kind: 1.0}, styles=(), sized=0.0)
    drawn = (storybook.scene(seed, narrow) for seed in range(TRIED))
    return [other for other in drawn if other.key == scene.key]


def _spread(images: Sequence[Image.Image]) -> float:
    """Root mean square difference between two of the pictures, averaged over the pairs."""
    apart = [_apart(a, b) for a, b in combinations(tensor(images, SMALL), 2)]
    return sum(apart) / len(apart)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


def copying(name: str, bench: Bench) -> Score:
    """How near the pictures are to training pictures, compared with how near a new scene of the prompt is."""
    title = "nearest training picture"
    reasons = {s: missing(SUITES[s], bench.world, bench.pipeline.variant, bench.judge.tables) for s in ASKED}
    suites = [SUITES[s] for s, reason in reasons.items() if not reason]
    if not suites:
        return Score(suite=name, title=title, skipped=reasons[ASKED[0]])
    bench.tell(f"{name}: {title}, of {TRAINED} training scenes")
    trained = [nth(bench.world, index) for index in range(TRAINED)]
    near, copied = [], []
    asked = [p for s in suites for p in s.find(s.search, bench.world, min(PROMPTS, bench.prompts))]
    for prompt, drawn in zip(asked, bench.draw(asked, bench.seeds), strict=True):
        known = tensor([storybook.render(scene, SMALL) for scene in nearest(prompt, trained)], SMALL)
        own = tensor([one.image for one in drawn], SMALL)
        true = _nearness(tensor([bench.truth(prompt.scene)], SMALL), known)[0]
        shares = [value / true for value in _nearness(own, known)]
        near.append(shares)
        copied.append([value < COPIED for value in shares])
    lines = (
        Line(name="distance, of a new scene's", figure=mean(near)),
        Line(name="copies", figure=share(copied)),
    )
    return Score(suite=name, title=title, lines=lines)


def nearest(prompt: Prompt, trained: Sequence[Scene]) -> list[Scene]:
    """The training scenes that share most with the prompt's: the stage, the kind, things with their colours."""
    wanted = prompt.scene

    def shared(scene: Scene) -> int:
        both = {(t.name, t.colour) for t in scene.facts.things} & {(t.name, t.colour) for t in wanted.facts.things}
        return 2 * (scene.stage == wanted.stage) + 2 * len(both) + (scene.kind == wanted.kind)

    return sorted(trained, key=shared, reverse=True)[:NEAREST]


def _nearness(pictures: Tensor, known: Tensor) -> list[float]:
    """The distance of each picture to the nearest of the known ones."""
    squared = (pictures[:, None] - known[None]).square().mean((2, 3, 4))
    return [float(value) for value in torch.sqrt(squared.amin(1))]
