"""Written files, proven: each is loaded as any user would load it, and draws what was drawn while training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fluxone.lora.adapters import Strength
from fluxone.lora.load import load_lora
from fluxone.pipeline import Pipeline
from fluxone.tune.looks import Looker


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How far the files' pictures are from those of the training, of 255: on average, and at most."""

    mean: float
    most: float
    styles_apart: float

    @property
    def holds(self) -> bool:
        """Whether nobody could tell them apart."""
        return self.mean < 1.0 and self.styles_apart < 1.0


def prove(
    pipeline: Pipeline, paths: Sequence[Path], strength: float, looker: Looker, drawn: Sequence[Image.Image]
) -> Proof:
    """Draw the first prompts with each file.

    Args:
        drawn: what the training drew of them.
    """
    made = []
    for path in paths:
        pipeline.adapters.load(load_lora(path), path.stem)
        pipeline.adapters.use({path.stem: Strength(scale=strength)})
        made.append(np.stack([np.asarray(p) for p in looker.draw(looker.prompts.named[: len(drawn)])]).astype(int))
        pipeline.adapters.drop(path.stem)
    truth = np.stack([np.asarray(picture) for picture in drawn]).astype(int)
    far = np.abs(made[0] - truth)
    apart = float(max(np.abs(other - made[0]).mean() for other in made))
    return Proof(mean=float(far.mean()), most=float(far.max()), styles_apart=apart)
