"""Captions that fit another picture better than their own, found by the base itself: the network is the reader.

loss of a picture with its own caption   against   with others' captions, same noise
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fluxone.tune.buckets import stream
from fluxone.tune.learner import Learner
from fluxone.tune.lint import Finding

LEVELS = (0.6, 0.8, 0.95)  # of noise: what is where is decided there
OTHERS = 5  # captions that each own one is held against
CLEARLY = 0.03  # of the loss, by which another must be better at every level


def disagreements(learner: Learner) -> list[Finding]:
    """Pictures whose caption says something else, with the caption that fits better."""
    found = []
    items = learner.material.items
    texts = [item.example.text for item in items]
    for number, item in enumerate(items):
        others = _others(texts, number, learner.settings.seed)
        if not texts[number] or not others:
            continue
        with torch.no_grad(), learner.beside.at(0):
            rows = torch.stack([_losses(learner, number, level, [texts[number], *others]) for level in LEVELS])
        gain = 1 - rows[:, 1:] / rows[:, :1]
        best = int(gain.amin(0).argmax())
        if float(gain[:, best].amin()) > CLEARLY:
            what = f"its caption {texts[number]!r} fits less than {others[best]!r}"
            found.append(
                Finding(level="warning", file=item.example.path.name, what=what, hint="look whether they are mixed up")
            )
    return found


def _others(texts: Sequence[str], number: int, seed: int) -> list[str]:
    different = [text for text in dict.fromkeys(texts) if text and text != texts[number]]
    order = torch.randperm(len(different), generator=stream(seed, "agree", number)).tolist()
    return [different[i] for i in order[:OTHERS]]


def _losses(learner: Learner, number: int, level: float, prompts: Sequence[str]) -> Tensor:
    """The loss of one picture with each of the prompts, with the same noise."""
    one = learner.material.fixed(number, level)
    count = len(prompts)
    parts: dict[str, Any] = {k: v.expand(count, *v.shape[1:]) for k, v in vars(one).items()
             if isinstance(v, Tensor) and k not in ("ids", "txt", "pooled")}  # fmt: skip
    batch = learner.material.with_prompts(replace(one, **parts), prompts)
    return learner.losses(batch.to(learner.device))
