"""What fluent worlds say beyond `wordings.py`: synonyms, more wordings, and words for sizes. Lower case; no logic."""

from __future__ import annotations

# Another word, and its plural where that is not the word with an s.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "cat": ("kitty", "kitten"),
    "dog": ("puppy",),
    "rabbit": ("bunny",),
    "bird": ("birdie",),
    "chick": ("baby chick",),
    "ladybug": ("ladybird",),
    "sheep": ("ewe",),
    "dinosaur": ("dino",),
    "horse": ("pony",),
    "turtle": ("tortoise",),
    "mushroom": ("toadstool",),
    "pumpkin": ("halloween pumpkin",),
    "donut": ("doughnut",),
    "cake": ("birthday cake",),
    "cupcake": ("muffin",),
    "hamburger": ("burger",),
    "pizza": ("pizza slice",),
    "cookie": ("biscuit",),
    "gift": ("present", "gift box"),
    "football": ("soccer ball",),
    "television": ("tv",),
    "backpack": ("rucksack",),
    "bucket": ("pail",),
    "clock": ("alarm clock",),
    "diamond": ("gem",),
    "teddy bear": ("teddy",),
    "hat": ("top hat",),
    "lantern": ("paper lantern",),
    "car": ("automobile",),
    "bicycle": ("bike",),
    "boat": ("sailboat",),
    "train": ("locomotive",),
    "scooter": ("moped",),
    "truck": ("fire truck",),
    "rocket": ("space rocket",),
    "airplane": ("plane",),
    "spaceship": ("ufo", "flying saucer"),
    "pine tree": ("fir tree",),
    "plant": ("potted plant",),
    "woman": ("lady",),
    "neon sign": ("neon light",),
    "wooden sign": ("sign", "wood sign"),
    "chalkboard": ("blackboard",),
    "book cover": ("book",),
    "table": ("desk",),
    "box": ("crate",),
}
PLURALS = {"kitty": "kitties", "puppy": "puppies", "bunny": "bunnies", "pony": "ponies",
           "gift box": "gift boxes", "ewe": "ewes"}  # fmt: skip
SHADES: dict[str, tuple[str, ...]] = {
    "gray": ("grey",),
    "purple": ("violet",),
    "teal": ("turquoise",),
    "blond": ("blonde",),
}
SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "big": ("big", "large", "huge", "giant"),
}

STAGES_MORE: dict[str, tuple[str, ...]] = {
    "meadow": ("in a field", "on a meadow", "in the park", "outside on the grass"),
    "beach": ("at the beach", "on the sand", "at the sea"),
    "snow": ("in winter", "in a snowy landscape", "in the mountains in winter"),
    "night": ("under the stars", "in the night", "under the moon"),
    "sunset": ("at dusk", "in the evening", "in front of a sunset"),
    "city": ("in town", "on a street", "on a city street", "in front of a skyline"),
    "room": ("indoors", "inside a room", "in a living room", "at home in a room"),
    "forest": ("in a forest", "among trees", "in the green forest"),
    "desert": ("in a desert", "on the dunes", "on desert sand"),
    "plain": ("on a simple background", "on an empty background"),
}

ALONE_MORE = (
    "{a} is {stage}",
    "{a} {stage}",
    "a cute picture of {a} {stage}",
    "a drawing of {a} {stage}",
    "an image of {a} {stage}",
    "show me {a} {stage}",
    "draw {a} {stage}",
)

RELATIONS_MORE: dict[str, tuple[str, ...]] = {
    "left of": (
        "{a} is to the left of {b} {stage}",
        "{a} on the left side, {b} on the right side, {stage}",
        "{a} on the left, {b} on the right, {stage}",
        "{a} is on the left and {b} is on the right {stage}",
    ),
    "next to": (
        "{a} is next to {b} {stage}",
        "{a} together with {b} {stage}",
        "{a} by the side of {b} {stage}",
    ),
    "above": ("{a} is above {b} {stage}", "{a} flying over {b} {stage}", "{b} with {a} above it {stage}"),
    "under": ("{a} beneath {b} {stage}",),
    "saying": (
        '{a} says "{text}" {stage}',
        'a speech bubble that says "{text}" over {a} {stage}',
        '{a} speaking the word "{text}" {stage}',
    ),
    "shaded by": ("{a} is under {b} {stage}", "{a} beneath {b} {stage}"),
    "reading": ("{a} sitting and reading {b} {stage}",),
    "in front of": ("{a} is in front of {b} {stage}", "{b} is behind {a} {stage}"),
    "on": ("{a} is on {b} {stage}",),
    "below": ("{a} is under {b} {stage}", "{a} beneath {b} {stage}"),
    "inside": ("{a} is in {b} {stage}", "{a} looking out of {b} {stage}", "{b} with {a} inside {stage}"),
    "tail": (
        "{a} is inside {b}, but only its tail is visible, {stage}",
        "{a} is hiding in {b}, only the tail is visible, {stage}",
    ),
    "ears": (
        "{a} is inside {b}, but only its ears are visible, {stage}",
        "{a} is hiding in {b}, only the ears are visible, {stage}",
    ),
    "holding": (
        "{a} holding {b} {stage}",
        "{a} holding {b} {stage}",
        "{a} holds {b} {stage}",
        "{a} with {b} in one hand {stage}",
        "{a} is holding {b} {stage}",
        "{stage}, {a} holding {b}",
        "a picture of {a} holding {b} {stage}",
    ),
    "between": (
        "{a} between {b} and {c} {stage}",
        "{a} between {c} and {b} {stage}",
        "{a} is between {b} and {c} {stage}",
        "{b} and {c} with {a} between them {stage}",
        "{stage}, {a} between {b} and {c}",
        "a picture of {a} between {b} and {c} {stage}",
    ),
    "in a row": (
        "{a}, {b} and {c} in a row {stage}",
        "{a}, {b} and {c} side by side {stage}",
        "{a} on the left, {b} in the middle and {c} on the right {stage}",
        "{stage}, {a}, {b} and {c}",
        "a picture of {a}, {b} and {c} {stage}",
    ),
}  # fmt: skip

LETTERED_MORE = (
    '{sign} with "{text}" written on it',
    '{sign} that reads "{text}"',
    '{sign} on which is written "{text}"',
)
TITLED = (
    '{colour} book titled "{text}"',
    '{colour} book with the title "{text}"',
    '{colour} book called "{text}"',
    '{colour} book cover with the title "{text}"',
    '{colour} book cover that says "{text}"',
)
PAIRED_MORE = (
    "{who}",
    "{pose} {who} in a {shirt} {top}",
    "{who} in {shirt}",
    "{hair} haired {who}",
)
WORN = ("{who} wearing {worn}", "{who} with {worn}", "{who} in a {shirt} {top} wearing {worn}")
LONE_MORE = (
    "{who} wearing a {shirt} {top}, {pose},",
    "{pose} {who} in a {shirt} {top}",
)
OPENINGS: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of", "a photo of", "a photograph of", "a realistic photo of"),
    "sketch": ("a pencil sketch of", "a sketch of"),
    "comic": ("a comic drawing of",),
    "sticker": ("a sticker of",),
}

# The texts of pairs with references: `{a}` is a thing without its article, `{what}` what it does or is with.
PAIRS: dict[str, tuple[str, ...]] = {
    "character": (
        "the same {a} {what}",
        "this {a} {what}",
        "the {a} of the picture {what}",
        "the same {a} in another scene: {what}",
        "show the {a} {what}",
    ),
    "both": (
        "the {a} of the first picture next to the {b} of the second picture {stage}",
        "the {a} from the first picture and the {b} from the second picture {stage}",
        "put the two together {stage}",
        "put the {a} and the {b} together {stage}",
        "both of them {stage}",
        "this {a} next to this {b} {stage}",
    ),
    "left": (
        "the {a} of the first picture to the left of the {b} of the second picture {stage}",
        "this {a} on the left and this {b} on the right {stage}",
    ),
    "depth": (
        "{caption}",
        "{caption}",
        "{caption}",
        "{caption}, following the depth",
        "{caption}, from this depth map",
    ),
    "pose": (
        "{caption}",
        "{caption}, in this pose",
        "{caption}, following the pose",
    ),
    "posed": (
        "a {looks} in this pose {stage}",
        "a {looks} {stage}, in the same pose",
        "{stage}, a {looks} in this pose",
    ),
}
