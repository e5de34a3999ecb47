"""Worlds: which objects, colours, places, kinds of scene and words are in play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fluxone.storybook.colours import PALETTE
from fluxone.storybook.library import FONTS
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.stages import STAGES
from fluxone.storybook.styles import STYLES
from fluxone.storybook.words import WORDS


@dataclass(frozen=True, kw_only=True)
class World:
    """A choice from the tables; smaller worlds are learnt sooner."""

    objects: tuple[str, ...]
    colours: tuple[str, ...]
    stages: tuple[str, ...]
    kinds: Mapping[str, float]  # weights of the rows of compose.KINDS
    words: tuple[str, ...] = WORDS
    random_words: float = 0.3  # share of the signs whose word is made up
    max_letters: int = 8
    signs: tuple[str, ...] = ("wooden sign", "banner")
    fonts: tuple[str, ...] = FONTS
    people: tuple[str, ...] = ("boy", "girl")
    hair: tuple[str, ...] = ("black", "brown", "blond", "red")
    poses: tuple[str, ...] = ("standing", "waving", "jumping")
    styles: tuple[str, ...] = ()  # rows of styles.STYLES, for one scene in eight
    mirrored: bool = True  # whether things look either way, or all as they are drawn
    outfits: bool = False  # whether trousers, skirts, hats and glasses vary and are spoken of

    def floating(self) -> tuple[str, ...]:
        """The objects that are drawn in the air."""
        return tuple(name for name in self.objects if OBJECTS[name].floats)

    def grounded(self) -> tuple[str, ...]:
        """The objects that stand on the ground."""
        return tuple(name for name in self.objects if not OBJECTS[name].floats)


FIRST = World(
    objects=(
        "cat",
        "dog",
        "fox",
        "rabbit",
        "duck",
        "penguin",
        "owl",
        "turtle",
        "elephant",
        "dinosaur",
        "whale",
        "butterfly",
        "apple",
        "mushroom",
        "cupcake",
        "strawberry",
        "balloon",
        "umbrella",
        "book",
        "gift",
        "teapot",
        "star",
        "heart",
        "car",
        "bus",
        "boat",
        "rocket",
        "train",
        "house",
        "tree",
        "cactus",
        "tulip",
        "snowman",
    ),
    colours=("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    stages=("meadow", "beach", "snow", "night", "sunset", "city", "room", "forest"),
    kinds={"one": 0.28, "side": 0.26, "stack": 0.08, "count": 0.09, "sign": 0.2, "person": 0.05, "reading": 0.04},
    max_letters=6,
    fonts=("fredoka", "baloo2"),
)

MINI = replace(  # what the model inside the package is trained on
    FIRST,
    objects=(
        "cat",
        "dog",
        "fox",
        "rabbit",
        "duck",
        "penguin",
        "turtle",
        "elephant",
        "apple",
        "mushroom",
        "balloon",
        "umbrella",
        "book",
        "gift",
        "star",
        "car",
        "boat",
        "rocket",
        "house",
        "tree",
        "cactus",
        "snowman",
    ),
    colours=("red", "orange", "yellow", "green", "blue", "purple", "pink"),
    kinds={
        "one": 0.22,
        "side": 0.32,
        "stack": 0.05,
        "count": 0.09,
        "sign": 0.18,
        "reading": 0.04,
        "inside": 0.04,
        "hiding": 0.06,
    },
    random_words=0.25,
    mirrored=False,
)

WORLDS: dict[str, World] = {
    "first": FIRST,
    "mini": MINI,
    "full": World(
        objects=tuple(OBJECTS),
        colours=tuple(PALETTE),
        stages=tuple(STAGES),
        kinds={
            "one": 0.13,
            "side": 0.16,
            "stack": 0.06,
            "count": 0.1,
            "sign": 0.18,
            "person": 0.12,
            "two": 0.04,
            "reading": 0.03,
            "tree": 0.03,
            "front": 0.04,
            "table": 0.04,
            "inside": 0.04,
            "hiding": 0.03,
        },
        signs=("wooden sign", "banner", "speech bubble", "chalkboard", "neon sign"),
        people=("boy", "girl", "man", "woman"),
        hair=("black", "brown", "blond", "red", "gray", "pink", "blue"),
        poses=("standing", "waving", "jumping", "walking", "running", "dancing", "pointing", "cheering", "posing"),
        styles=tuple(STYLES),
        outfits=True,
    ),
}
