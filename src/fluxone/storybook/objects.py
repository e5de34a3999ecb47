"""The things a scene can show: one row an object, naming the sprite that draws it.

`natural` is the colour word a stranger would use for the untinted sprite; it stays empty when the sprite has
several colours or none with a clear name, so that captions never call an orange cat yellow. A sprite with
`tint` may be drawn in any colour of the world; one without is only ever drawn as it is.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Object:
    """One row: the icon's name in Fluent Emoji Flat, and how the world may use it."""

    icon: str
    natural: str = ""
    tint: bool = True
    size: float = 1.0  # of the usual longest side for its place in the layout
    floats: bool = False  # drawn in the air, without a shadow
    animal: bool = False
    plural: str = ""

    def many(self, name: str) -> str:
        """The plural of `name`, regular unless the row says otherwise."""
        return self.plural or f"{name}s"


def _animal(icon: str, natural: str = "", *, size: float = 1.0, plural: str = "", tint: bool = True) -> Object:
    return Object(icon=icon, natural=natural, size=size, plural=plural, tint=tint, animal=True)


def _thing(icon: str, natural: str = "", *, size: float = 1.0, plural: str = "") -> Object:
    return Object(icon=icon, natural=natural, size=size, plural=plural)


def _fixed(icon: str, *, size: float = 1.0, plural: str = "") -> Object:
    return Object(icon=icon, tint=False, size=size, plural=plural)


def _flyer(
    icon: str, natural: str = "", *, tint: bool = True, size: float = 1.0, plural: str = "", animal: bool = False
) -> Object:
    return Object(icon=icon, natural=natural, tint=tint, size=size, floats=True, plural=plural, animal=animal)


OBJECTS: dict[str, Object] = {
    # animals
    "cat": _animal("cat", "orange"),
    "dog": _animal("dog"),
    "poodle": _animal("poodle", "gray"),
    "rabbit": _animal("rabbit", "white"),
    "bear": _animal("bear", "brown"),
    "panda": _animal("panda", tint=False),
    "fox": _animal("fox", "orange", plural="foxes"),
    "tiger": _animal("tiger", tint=False),
    "lion": _animal("lion", tint=False),
    "cow": _animal("cow", tint=False, size=1.1),
    "pig": _animal("pig", "pink"),
    "mouse": _animal("mouse", "gray", size=0.9, plural="mice"),
    "hedgehog": _animal("hedgehog", tint=False, size=0.9),
    "penguin": _animal("penguin", "black"),
    "owl": _animal("owl", "brown", size=0.95),
    "duck": _animal("duck", tint=False),
    "swan": _animal("swan", tint=False),
    "chick": _animal("front-facing-baby-chick", "yellow", size=0.8),
    "rooster": _animal("rooster", tint=False),
    "parrot": _animal("parrot", tint=False),
    "flamingo": _animal("flamingo", "pink", size=1.1),
    "bird": _animal("bird", "red", size=0.85),
    "turtle": _animal("turtle", "green"),
    "frog": _animal("frog", "green", size=0.9),
    "snail": _animal("snail", size=0.9),
    "ladybug": _animal("lady-beetle", "red", size=0.75),
    "whale": _animal("whale", "blue", size=1.1),
    "octopus": _animal("octopus", "orange", plural="octopuses"),
    "crab": _animal("crab", "red"),
    "elephant": _animal("elephant", "gray", size=1.15),
    "giraffe": _animal("giraffe", tint=False, size=1.2),
    "zebra": _animal("zebra", tint=False, size=1.1),
    "horse": _animal("horse", "brown", size=1.1),
    "sheep": _animal("ewe", tint=False, plural="sheep"),
    "deer": _animal("deer", tint=False, size=1.1, plural="deer"),
    "monkey": _animal("monkey", "brown"),
    "dinosaur": _animal("sauropod", "green", size=1.15),
    "dragon": _animal("dragon", "green", size=1.1),
    "otter": _animal("otter", "brown"),
    "snake": _animal("snake", "green"),
    "butterfly": _flyer("butterfly", "orange", size=0.85, plural="butterflies", animal=True),
    "bee": _flyer("honeybee", tint=False, size=0.8, animal=True),
    "fish": _flyer("fish", "blue", size=0.9, plural="fish", animal=True),
    # food
    "apple": _thing("red-apple", "red", size=0.85),
    "banana": _fixed("banana", size=0.85),
    "pear": _thing("pear", "green", size=0.85),
    "lemon": _fixed("lemon", size=0.8),
    "strawberry": _fixed("strawberry", size=0.8, plural="strawberries"),
    "watermelon": _fixed("watermelon", size=0.9),
    "carrot": _fixed("carrot", size=0.85),
    "pineapple": _fixed("pineapple", size=0.95),
    "cherry": _thing("cherries", "red", size=0.85, plural="cherries"),
    "cupcake": _thing("cupcake", "pink", size=0.9),
    "cake": _fixed("birthday-cake"),
    "donut": _fixed("doughnut", size=0.85),
    "mushroom": _thing("mushroom", "red", size=0.9),
    "pumpkin": _thing("jack-o-lantern", "orange"),
    "lollipop": _fixed("lollipop", size=0.9),
    "cookie": _fixed("cookie", size=0.8),
    "pizza": _fixed("pizza", size=0.9),
    "hamburger": _fixed("hamburger", size=0.9),
    # things
    "umbrella": _thing("umbrella", "purple"),
    "gift": _fixed("wrapped-gift", size=0.9),
    "football": _fixed("soccer-ball", size=0.8),
    "basketball": _thing("basketball", "orange", size=0.8),
    "guitar": _thing("guitar", "red"),
    "drum": _fixed("drum", size=0.95),
    "trumpet": _thing("trumpet", size=0.9),
    "teapot": _thing("teapot", "red"),
    "book": _thing("blue-book", "blue", size=0.9),
    "key": _thing("old-key", size=0.85),
    "bell": _thing("bell", "yellow", size=0.85),
    "hat": _thing("top-hat", "purple", size=0.85),
    "crown": _thing("crown", "yellow", size=0.85),
    "chair": _thing("chair", "brown"),
    "snowman": _fixed("snowman", size=1.05, plural="snowmen"),
    "teddy bear": _thing("teddy-bear"),
    "robot": _thing("robot", "gray"),
    "ghost": _thing("ghost", "white"),
    "camera": _fixed("camera", size=0.9),
    "television": _thing("television", "gray"),
    "candle": _fixed("candle", size=0.9),
    "backpack": _thing("backpack", "red"),
    "bucket": _thing("bucket", "blue", size=0.9),
    "clock": _thing("alarm-clock", "red", size=0.9),
    "diamond": _thing("gem-stone", "blue", size=0.8),
    "trophy": _thing("trophy", size=0.95, plural="trophies"),
    "lantern": _flyer("red-paper-lantern", "red", size=0.9),
    "balloon": _flyer("balloon", "red"),
    "star": _flyer("star", "yellow", size=0.9),
    "heart": _flyer("red-heart", "red", size=0.85),
    "snowflake": _flyer("snowflake", "blue", size=0.8),
    "kite": _flyer("kite", tint=False),
    # vehicles
    "car": _thing("automobile", "red", size=1.05),
    "bus": _thing("bus", "yellow", size=1.1, plural="buses"),
    "bicycle": _thing("bicycle", "red", size=1.1),
    "boat": _thing("sailboat", "yellow", size=1.05),
    "tractor": _thing("tractor", "teal", size=1.05),
    "train": _fixed("locomotive", size=1.1),
    "scooter": _thing("motor-scooter", "red"),
    "truck": _thing("fire-engine", "red", size=1.1),
    "rocket": _flyer("rocket", tint=False, size=1.05),
    "airplane": _flyer("small-airplane", tint=False),
    "helicopter": _flyer("helicopter", "orange"),
    "spaceship": _flyer("flying-saucer", tint=False),
    # places and plants
    "house": _fixed("house", size=1.15),
    "castle": _fixed("castle", size=1.2),
    "tent": _thing("tent", "green", size=1.1),
    "church": _fixed("church", size=1.2, plural="churches"),
    "fountain": _fixed("fountain", size=1.05),
    "tree": _thing("deciduous-tree", "green", size=1.2),
    "pine tree": _thing("evergreen-tree", "green", size=1.15),
    "palm tree": _fixed("palm-tree", size=1.2),
    "plant": _fixed("potted-plant", size=0.95),
    "sunflower": _fixed("sunflower"),
    "tulip": _thing("tulip", "pink", size=0.95),
    "rose": _thing("rose", "red", size=0.95),
    "cactus": _thing("cactus", "green", plural="cactuses"),
}
