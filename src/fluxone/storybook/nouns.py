"""Names one thing of a scene, in many ways: its colour, size, number, text, or a person's looks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from fluxone.storybook.idioms import (
    LETTERED_MORE,
    LONE_MORE,
    PAIRED_MORE,
    PLURALS,
    SHADES,
    SIZES,
    SYNONYMS,
    TITLED,
    WORN,
)
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Thing
from fluxone.storybook.wordings import BRIEF, DRESSED, LETTERED, NUMBERS, PAIRED

NAMED = 0.45  # own colours spoken of
OTHERWISE = 0.2  # share of the names for which a fluent caption takes a synonym
AN = re.compile(r"\ba (?=[aeiou])")


def article(phrase: str) -> str:
    """The phrase with its indefinite article."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def noun(t: Thing, r: Random, *, brief: bool = False, paired: bool = False, fluent: bool = False) -> str:
    """The thing without an article: "red car", "two white rabbits", "banner that says ..."."""
    if t.detail("pose"):
        if paired:
            return _paired(t, r, fluent)
        return _figure(t, r, brief, fluent)
    spoken = t.colour if not t.plain or (not brief and r.random() < NAMED) else ""
    name = OBJECTS[t.name].many(t.name) if t.count > 1 else t.name
    if fluent:
        spoken, name = _otherwise(r, spoken, SHADES), _named(t, name, r)
        if t.detail("size"):
            spoken = f"{r.choice(SIZES[t.detail('size')])} {spoken}"
        if t.name == "book cover" and r.random() < 0.7:
            return r.choice(TITLED).format(colour=spoken, text=t.text).strip()
    phrase = f"{spoken} {name}".strip()
    if t.text:
        return r.choice((*LETTERED, *LETTERED_MORE) if fluent else LETTERED).format(sign=phrase, text=t.text)
    return f"{NUMBERS[t.count]} {phrase}" if t.count > 1 else phrase


def _named(t: Thing, name: str, r: Random) -> str:
    """The name or, now and then, a synonym in the same number."""
    if t.name not in SYNONYMS or r.random() > OTHERWISE:
        return name
    other = r.choice(SYNONYMS[t.name])
    return PLURALS.get(other, f"{other}s") if t.count > 1 else other


def _otherwise(r: Random, word: str, table: dict[str, tuple[str, ...]]) -> str:
    return r.choice(table[word]) if word in table and r.random() < OTHERWISE else word


def _worn(t: Thing) -> list[str]:
    """What the person wears on the head, with articles."""
    worn = [article(f"{t.detail('hat colour')} {t.detail('hat')}".strip())] if t.detail("hat") else []
    return [*worn, "glasses"] if t.detail("glasses") else worn


def _figure(t: Thing, r: Random, brief: bool, fluent: bool) -> str:
    dress = t.detail("bottom") == "dress"
    style, bottom = t.detail("style"), t.detail("bottom")
    top = "dress" if dress else "shirt"
    who, hair, pose = t.name, t.detail("hair"), r.choice(POSES[t.detail("pose")].phrases)
    if fluent:
        who, hair = _named(t, who, r), _otherwise(r, hair, SHADES)
        worn = " and ".join(_worn(t))
        if worn and r.random() < 0.3:
            said = r.choice(WORN).format(who=who, worn=worn, shirt=t.detail("shirt"), top=top)
            return AN.sub("an ", f"{said}, {pose}," if r.random() < 0.7 else said)
    if style and not brief and r.random() < 0.5 and style in ("curly", "long", "short", "spiky"):
        hair = f"{hair} {style}" if r.random() < 0.5 and not fluent else f"{style} {hair}"
    templates: Sequence[str] = BRIEF if brief else DRESSED
    if fluent and r.random() < 0.2:
        templates = LONE_MORE
        pose = POSES[t.detail("pose")].phrases[0]
        templates = LONE_MORE if " " not in pose else LONE_MORE[:1]
    phrase = r.choice(templates).format(who=who, hair=hair, shirt=t.detail("shirt"), top=top, pose=pose)
    extra = []
    if bottom and not dress:
        lower = f"{t.detail('trousers')} {bottom}"
        extra.append(article(lower) if bottom == "skirt" else lower)
    extra += _worn(t)
    if extra and not brief and templates is DRESSED:
        phrase = f"{phrase.rstrip(',')}, wearing {' and '.join(extra)},"
    return AN.sub("an ", phrase)


def _paired(t: Thing, r: Random, fluent: bool) -> str:
    """A person in few words, for captions that hold two."""
    top = "dress" if t.detail("bottom") == "dress" else "shirt"
    looks = {"who": t.name, "hair": t.detail("hair"), "shirt": t.detail("shirt"), "top": top}
    templates: Sequence[str] = PAIRED
    if fluent:
        looks |= {"who": _named(t, t.name, r), "hair": _otherwise(r, looks["hair"], SHADES)}
        pose, worn = POSES[t.detail("pose")].phrases[0], " and ".join(_worn(t))
        draw = r.random()
        if worn and draw < 0.3:
            return AN.sub("an ", r.choice(WORN).format(worn=worn, **looks))
        if draw > 0.65:
            looks["pose"] = pose
            templates = [row for row in PAIRED_MORE if "pose" not in row or (" " not in pose and pose != "holding")]
    return AN.sub("an ", r.choice(templates).format(**looks))
