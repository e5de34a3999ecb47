"""The world that the judge inside the package knows, and the suites that ask for words alone in it."""

from __future__ import annotations

from dataclasses import replace

from fluxone.evaluate import first
from fluxone.evaluate.judge import shipped
from fluxone.evaluate.prompts import captions
from fluxone.evaluate.suites import SUITES, missing
from fluxone.storybook import WORLDS
from fluxone.variants import VARIANTS

TABLES = shipped().tables
WORLD = WORLDS["mini" if TABLES == first.TABLES else "full"]
ANY = replace(VARIANTS["mini"], takes=())
SCORED = [name for name, s in SUITES.items() if s.find is captions and not missing(s, WORLD, ANY, TABLES)]
