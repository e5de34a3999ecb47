"""The world that the judge inside the package knows, the suites that ask for words alone in it, and a perfect look."""

from __future__ import annotations

from dataclasses import replace

from fluxone.evaluate import first
from fluxone.evaluate.judge import Seen, shipped
from fluxone.evaluate.prompts import captions
from fluxone.evaluate.suites import SUITES, missing
from fluxone.evaluate.truth import spots
from fluxone.storybook import WORLDS, Scene
from fluxone.variants import VARIANTS

TABLES = shipped().tables
WORLD = WORLDS["mini" if TABLES == first.TABLES else "full"]
ANY = replace(VARIANTS["mini"], takes=())
SCORED = [name for name, s in SUITES.items() if s.find is captions and not missing(s, WORLD, ANY, TABLES)]


def perfect(scene: Scene) -> Seen:
    """What there is to see on a picture of the scene."""
    text = " ".join(scene.facts.texts)
    return Seen(spots=tuple(spots(scene)), stage=scene.facts.stage, style=scene.style, text=text)
