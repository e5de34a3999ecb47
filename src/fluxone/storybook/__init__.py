"""The procedural picture world that the mini models live in: seed -> scene -> picture, caption, ground truth.

from fluxone import storybook
world = storybook.WORLDS["first"]
scene = storybook.scene(7, world)
pixels = storybook.render(scene, 128)          # needs the `storybook` extra
"""

from fluxone.storybook.captions import caption, vocabulary, words
from fluxone.storybook.edits import edit
from fluxone.storybook.generate import held_out, nth, scene, stream
from fluxone.storybook.pairs import Pair, View, pair
from fluxone.storybook.render import render, svg
from fluxone.storybook.sheet import sheet
from fluxone.storybook.spec import Facts, Relation, Scene, Thing
from fluxone.storybook.worlds import WORLDS, World

__all__ = [
    "WORLDS",
    "Facts",
    "Pair",
    "Relation",
    "Scene",
    "Thing",
    "View",
    "World",
    "caption",
    "edit",
    "held_out",
    "nth",
    "pair",
    "render",
    "scene",
    "sheet",
    "stream",
    "svg",
    "vocabulary",
    "words",
]
