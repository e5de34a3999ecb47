"""The tables that captions and instructions are put together from. Lower case, plain words; no logic.

`{a}` and `{b}` are things with their article, `{A}` without; `{stage}` is a phrase such as "in the snow".
"""

from __future__ import annotations

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
TAGS = ("storybook", "flat colors", "illustration")

ALONE = (
    "{a} {stage}",
    "{a} {stage}",
    "a picture of {a} {stage}",
    "there is {a} {stage}",
    "{stage}, {a}",
    "an illustration of {a} {stage}",
    "{A} {stage}",
    "a storybook picture of {a} {stage}",
)

RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": (
        "{a} to the left of {b} {stage}",
        "{b} to the right of {a} {stage}",
        "{a} left of {b} {stage}",
        "{b} right of {a} {stage}",
        "{a} on the left and {b} on the right {stage}",
        "{b} on the right and {a} on the left {stage}",
        "{stage}, {a} to the left of {b}",
        "{stage}, {b} to the right of {a}",
        "a picture of {a} to the left of {b} {stage}",
        "a picture of {b} to the right of {a} {stage}",
    ),
    "next to": (
        "{a} next to {b} {stage}",
        "{b} next to {a} {stage}",
        "{a} and {b} {stage}",
        "{b} and {a} {stage}",
        "{a} beside {b} {stage}",
        "{b} beside {a} {stage}",
        "{stage}, {a} next to {b}",
        "a picture of {b} next to {a} {stage}",
    ),
    "above": (
        "{a} above {b} {stage}",
        "{b} below {a} {stage}",
        "{a} in the air above {b} {stage}",
        "{b} under {a} {stage}",
        "{a} over {b} {stage}",
        "{stage}, {a} above {b}",
        "a picture of {b} below {a} {stage}",
    ),
    "under": (
        "{a} under {b} {stage}",
        "{b} above {a} {stage}",
        "{a} below {b} {stage}",
        "{b} over {a} {stage}",
        "{stage}, {a} under {b}",
    ),
    "saying": (
        '{a} saying "{text}" in a speech bubble {stage}',
        '{a} that says "{text}" {stage}',
        '{stage}, {a} saying "{text}"',
        '{a} with a speech bubble that says "{text}" {stage}',
        '{a} and a speech bubble with the word "{text}" {stage}',
    ),
    "shaded by": (
        "{a} under {b} {stage}",
        "{a} in the shade of {b} {stage}",
        "{stage}, {a} under {b}",
        "a picture of {a} under {b} {stage}",
    ),
    "reading": (
        "{a} reading {b} {stage}",
        "{a} is reading {b} {stage}",
        "{stage}, {a} reading {b}",
        "{a} with {b} {stage}",
        "a picture of {a} reading {b} {stage}",
    ),
    "in front of": (
        "{a} in front of {b} {stage}",
        "{b} behind {a} {stage}",
        "{stage}, {a} in front of {b}",
        "{stage}, {b} behind {a}",
        "a picture of {a} in front of {b} {stage}",
    ),
    "on": (
        "{a} on {b} {stage}",
        "{a} on top of {b} {stage}",
        "{a} standing on {b} {stage}",
        "{b} with {a} on top {stage}",
        "{stage}, {a} on {b}",
    ),
    "below": (
        "{a} under {b} {stage}",
        "{a} below {b} {stage}",
        "{b} with {a} under it {stage}",
        "{stage}, {a} under {b}",
        "a picture of {a} under {b} {stage}",
    ),
    "inside": (
        "{a} in {b} {stage}",
        "{a} inside {b} {stage}",
        "{b} with {a} in it {stage}",
        "{a} sitting in {b} {stage}",
        "{stage}, {a} in {b}",
    ),
    "tail": (
        "{a} hiding in {b}, only its tail is visible, {stage}",
        "{a} inside {b} with only its tail visible {stage}",
        "only the tail of {a} that is hiding in {b} {stage}",
        "{stage}, {a} hiding in {b} with only its tail showing",
        "{b} with the tail of {a} showing {stage}",
    ),
    "ears": (
        "{a} hiding in {b}, only its ears are visible, {stage}",
        "{a} inside {b} with only its ears visible {stage}",
        "only the ears of {a} that is hiding in {b} {stage}",
        "{stage}, {a} hiding in {b} with only its ears showing",
        "{b} with the ears of {a} showing {stage}",
    ),
}

# Which relations a kind of scene can have, beyond those that every world may speak of.
COMMON = ("left of", "next to", "above", "under", "saying")
SPOKEN: dict[str, tuple[str, ...]] = {  # those of fluent worlds stand in idioms.py
    "reading": ("reading", "shaded by"),
    "tree": ("shaded by",),
    "front": ("in front of",),
    "table": ("on", "below"),
    "inside": ("inside",),
    "hiding": ("tail", "ears"),
}
PROPS: dict[str, tuple[str, ...]] = {
    "table": ("table", "tables"),
    "inside": ("box",),
    "hiding": ("box",),
}

LETTERED = (
    '{sign} that says "{text}"',
    '{sign} saying "{text}"',
    '{sign} with the word "{text}"',
    '{sign} reading "{text}"',
    '{sign} with the text "{text}"',
)
DRESSED = (
    "{who} with {hair} hair and a {shirt} {top}, {pose},",
    "{who} with {hair} hair wearing a {shirt} {top}, {pose},",
    "{who} in a {shirt} {top} with {hair} hair, {pose},",
    "{who} {pose}, with {hair} hair and a {shirt} {top},",
    "{hair} haired {who} in a {shirt} {top}, {pose},",
)
BRIEF = (
    "{who} in a {shirt} {top}, {pose},",
    "{who} with {hair} hair, {pose},",
    "{who} {pose}",
    "{who} with {hair} hair in a {shirt} {top}",
)
PAIRED = (
    "{who} in a {shirt} {top}",
    "{who} with {hair} hair",
    "{who} with {hair} hair in a {shirt} {top}",
    "{who} with {hair} hair and a {shirt} {top}",
)
CLOTHES = (
    "wearing", "glasses", "cap", "beanie", "hat", "crown", "trousers", "shorts", "skirt", "dress", "shirt", "curly",
    "long", "short", "spiky", "pigtails", "bun", "ponytail",
)  # fmt: skip
GRAMMAR = ("a", "an", "the", "and", "there are")

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "colour": (
        "make the {thing} {colour}",
        "change the color of the {thing} to {colour}",
        "change the {thing} to {colour}",
        "turn the {thing} {colour}",
    ),
    "stage": (
        "change the background to {place}",
        "change the place to {place}",
        "move it to {place}",
        "put it {stage}",
    ),
    "style": (
        "show it {style}",
        "make it {style}",
        "now show it {style}",
    ),
    "text": (
        'change the text to "{new}"',
        'change "{old}" to "{new}"',
        'make the {thing} say "{new}"',
        'replace "{old}" with "{new}"',
    ),
    "swap": (
        "replace the {thing} with {other}",
        "change the {thing} into {other}",
        "turn the {thing} into {other}",
    ),
    "shirt": (
        "make the {top} {colour}",
        "change the {top} to {colour}",
        "change the color of the {top} to {colour}",
        "give the {thing} a {colour} {top}",
    ),
    "hair": (
        "make the hair {colour}",
        "change the hair to {colour}",
        "give the {thing} {colour} hair",
    ),
    "pose": (
        "make the {thing} {pose}",
        "show the {thing} {pose}",
        "now the {thing} is {pose}",
    ),
    "wear": (
        "add {other}",
        "give the {thing} {other}",
        "put {other} on the {thing}",
    ),
    "bare": (
        "remove the {other}",
        "take off the {other}",
    ),
    "add": (
        "add {other} on the {side}",
        "put {other} on the {side}",
        "add {other} to the {side} of the {thing}",
        "place {other} to the {side} of the {thing}",
    ),
    "remove": (
        "remove the {thing}",
        "take the {thing} away",
        "delete the {thing}",
    ),
    "count": (
        "make it {number}",
        "show {number}",
        "there should be {number}",
        "change it to {number}",
    ),
    "move": (
        "move the {thing} to the {side}",
        "put the {thing} on the {side}",
        "move the {thing} to the {side} side",
    ),
    "exchange": (
        "swap the {thing} and the {other}",
        "move the {thing} to the other side of the {other}",
        "let the {thing} and the {other} change places",
        "put the {thing} on the {side} of the {other}",
    ),
    "size": (
        "make the {thing} {size}",
        "show the {thing} {size}",
    ),
}
