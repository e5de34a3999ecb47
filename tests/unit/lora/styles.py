"""The styles of published files as keys and shapes, from the patterns in `fixtures/lora/styles.json`."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FIXTURES = Path(__file__).parents[2] / "fixtures" / "lora" / "styles.json"
COUNTS = {"double": 19, "single": 38, "clip": 12, "t5": 24}
STYLES: dict[str, dict[str, Any]] = json.loads(FIXTURES.read_text(encoding="utf-8"))


def expand(pattern: str) -> list[str]:
    """Every key of a pattern: `{double}` is each block's number, `(a|b)` each of the words."""
    ranges = re.sub(r"\{(\w+)\}", lambda found: "(" + "|".join(map(str, range(COUNTS[found[1]]))) + ")", pattern)
    parts = [part.split("|") for part in re.split(r"[()]", ranges)]
    return ["".join(words) for words in itertools.product(*parts)]


@cache
def shapes(style: str) -> dict[str, tuple[int, ...]]:
    """Every key of a style and its shape."""
    return {key: tuple(shape) for pattern, shape in STYLES[style]["keys"].items() for key in expand(pattern)}


def on_meta(style: str) -> dict[str, Tensor]:
    """The style's tensors without numbers; alphas, which are read, are real."""
    return {
        key: torch.tensor(8.0) if shape == () else torch.empty(shape, device="meta")
        for key, shape in shapes(style).items()
    }
