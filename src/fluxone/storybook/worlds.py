"""Worlds: which objects, colours, places, kinds of scene and words are in play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fluxone.storybook.colours import PALETTE
from fluxone.storybook.library import FONTS
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.stages import STAGES
from fluxone.storybook.words import WORDS

BASIC = ("colour", "stage", "style", "text", "swap", "shirt", "hair", "pose", "wear", "bare")
EVERY = (*BASIC, "add", "remove", "count", "move", "exchange", "size")


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
    styles: tuple[str, ...] = ()  # rows of styles.STYLES; a name may stand several times
    styled: float = 0.125  # share of the scenes that have one of them
    mirrored: bool = True  # whether things look either way, or all as they are drawn
    outfits: bool = False  # whether trousers, skirts, hats and glasses vary and are spoken of
    phrases: float = 0.0  # share of the signs with two to four words on them
    numbers: float = 0.0  # share of the signs with a number
    sized: float = 0.0  # share of the lone things that are small or big, and called so
    fluent: bool = False  # whether captions use the wordings and synonyms of idioms.py
    edits: tuple[str, ...] = BASIC  # rows of edits.EDITS
    edit_weights: Mapping[str, float] = field(default_factory=dict)  # other than those of edits.WEIGHTS

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
        "one": 0.18,
        "side": 0.24,
        "stack": 0.05,
        "count": 0.08,
        "sign": 0.18,
        "person": 0.08,
        "company": 0.04,
        "two": 0.02,
        "reading": 0.04,
        "inside": 0.04,
        "hiding": 0.05,
    },
    hair=("black", "brown", "blond", "red", "pink", "blue"),
    random_words=0.25,
    mirrored=False,
    outfits=True,
)

WORLDS: dict[str, World] = {
    "first": FIRST,
    "mini": MINI,
    "full": World(
        objects=tuple(name for name in OBJECTS if name != "cherry"),  # drawn as two: nobody could count them
        colours=tuple(PALETTE),
        stages=tuple(STAGES),
        kinds={
            "one": 0.11,
            "side": 0.13,
            "stack": 0.045,
            "count": 0.09,
            "sign": 0.18,
            "person": 0.08,
            "two": 0.03,
            "three": 0.015,
            "company": 0.045,
            "holding": 0.045,
            "saying": 0.03,
            "between": 0.03,
            "sizes": 0.03,
            "reading": 0.02,
            "tree": 0.02,
            "front": 0.025,
            "table": 0.025,
            "inside": 0.025,
            "hiding": 0.025,
        },
        signs=("wooden sign", "banner", "speech bubble", "chalkboard", "neon sign", "book cover", "poster"),
        people=("boy", "girl", "man", "woman"),
        hair=("black", "brown", "blond", "red", "gray", "pink", "blue"),
        poses=("standing", "waving", "jumping", "walking", "running", "dancing", "pointing", "cheering", "posing"),
        styles=("sketch", "comic", "sticker", "sketch", "comic", "sticker", "night", "night", "night", *("photo",) * 6),
        styled=0.2,
        outfits=True,
        random_words=0.25,
        phrases=0.35,
        numbers=0.07,
        sized=0.12,
        fluent=True,
        edits=EVERY,
    ),
}
