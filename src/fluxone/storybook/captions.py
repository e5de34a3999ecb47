"""Puts a scene's facts into words, in many wordings, and lists every word they can use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random

from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Scene, Thing
from fluxone.storybook.stages import STAGES
from fluxone.storybook.styles import STYLES
from fluxone.storybook.wordings import (
    ALONE,
    BRIEF,
    CLOTHES,
    COMMON,
    DRESSED,
    GRAMMAR,
    INSTRUCTIONS,
    LETTERED,
    NUMBERS,
    PAIRED,
    PROPS,
    RELATIONS,
    SPOKEN,
    TAGS,
)
from fluxone.storybook.worlds import World

TAGGED, TERSE, NAMED = 0.1, 0.15, 0.45  # tag-style captions; captions that drop something; own colours spoken of
WORD = re.compile(r"[a-z]+")
QUOTED = re.compile(r'"[^"]*"')


def article(phrase: str) -> str:
    """The phrase with its indefinite article."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _noun(t: Thing, r: Random, *, brief: bool = False, paired: bool = False) -> str:
    """The thing without an article: "red car", "two white rabbits", "banner that says ..."."""
    if t.detail("pose"):
        return _paired(t, r) if paired else _figure(t, r, brief)
    spoken = t.colour if not t.plain or (not brief and r.random() < NAMED) else ""
    name = OBJECTS[t.name].many(t.name) if t.count > 1 else t.name
    phrase = f"{spoken} {name}".strip()
    if t.text:
        return r.choice(LETTERED).format(sign=phrase, text=t.text)
    return f"{NUMBERS[t.count]} {phrase}" if t.count > 1 else phrase


def _figure(t: Thing, r: Random, brief: bool) -> str:
    dress = t.detail("bottom") == "dress"
    style, bottom = t.detail("style"), t.detail("bottom")
    top = "dress" if dress else "shirt"
    hair = t.detail("hair")
    if style and not brief and r.random() < 0.5 and style in ("curly", "long", "short", "spiky"):
        hair = f"{hair} {style}" if r.random() < 0.5 else f"{style} {hair}"
    phrase = r.choice(BRIEF if brief else DRESSED).format(
        who=t.name, hair=hair, shirt=t.detail("shirt"), top=top, pose=r.choice(POSES[t.detail("pose")].phrases)
    )
    extra = []
    if bottom and not dress:
        lower = f"{t.detail('trousers')} {bottom}"
        extra.append(article(lower) if bottom == "skirt" else lower)
    if t.detail("hat"):
        extra.append(article(f"{t.detail('hat colour')} {t.detail('hat')}".strip()))
    if t.detail("glasses"):
        extra.append("glasses")
    if extra and not brief:
        phrase = f"{phrase.rstrip(',')}, wearing {' and '.join(extra)},"
    return re.sub(r"\ba (?=[aeiou])", "an ", phrase)


def _paired(t: Thing, r: Random) -> str:
    """A person in few words, for captions that hold two."""
    top = "dress" if t.detail("bottom") == "dress" else "shirt"
    phrase = r.choice(PAIRED).format(who=t.name, hair=t.detail("hair"), shirt=t.detail("shirt"), top=top)
    return re.sub(r"\ba (?=[aeiou])", "an ", phrase)


def _with_article(t: Thing, noun: str) -> str:
    return noun if t.count > 1 else article(noun)


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip(" ,")
    return re.sub(r"\s*,(\s*,)+", ",", text).replace(" ,", ",")


def _tags(scene: Scene, r: Random) -> str:
    """The caption as a list of tags, in any order but for the style at the end."""
    named = [_noun(t, r, paired=len(scene.facts.things) > 1).strip(",") for t in scene.facts.things]
    relation = scene.facts.relations[0].name if scene.facts.relations else ""
    if relation not in ("", "next to", "saying"):
        named = [_tidy(RELATIONS[relation][0].format(a=named[0], b=named[1], stage="")), *named[2:]]
    else:
        r.shuffle(named)
    manner = r.choice(STYLES[scene.style].phrases if scene.style else TAGS)
    return _tidy(", ".join([*named, STAGES[scene.stage].tag, manner]))


def caption(scene: Scene, rng: Random) -> str:
    """One of the many true captions of the scene, drawn with `rng`."""
    if rng.random() < TAGGED:
        return _tags(scene, rng)
    terse = rng.random() < TERSE
    bare = terse and rng.random() < 0.5
    things = scene.facts.things
    nouns = [_noun(t, rng, brief=terse and not bare, paired=len(things) > 1) for t in things]
    stage = "" if bare else rng.choice(STAGES[scene.stage].phrases)
    relations = scene.facts.relations
    templates = [rng.choice(RELATIONS[relation.name]) for relation in relations] or [rng.choice(ALONE)]
    template = templates[0]
    if len(relations) > 1:  # "a fox reading a book" and "a fox under a tree": one sentence of both
        template = (
            template.replace(" {stage}", " under {c} {stage}") if " {stage}" in template else f"{template} under {{c}}"
        )
    if things[0].count > 1:
        template = template.replace("there is", "there are")
    names = dict(zip(("A", "B", "C"), nouns, strict=False))
    names |= dict(zip("abc", map(_with_article, things, nouns), strict=False))
    manner = rng.choice(STYLES[scene.style].phrases) if scene.style else ""
    return _tidy(f"{template.format(stage=stage, text=things[-1].text, **names)}, {manner}")


def words(text: str) -> list[str]:
    """The words of a caption, without what stands in quotes and without punctuation."""
    return WORD.findall(QUOTED.sub(" ", text))


def _sources(world: World) -> Iterable[str]:
    """Every table text that a caption or an instruction of the world is put together from."""
    relations = [name for kind in world.kinds for name in SPOKEN.get(kind, ())]
    instructions = (text for texts in INSTRUCTIONS.values() for text in texts)
    said = (text for name in (*COMMON, *relations) for text in RELATIONS[name])
    props = (text for kind in world.kinds for text in PROPS.get(kind, ()))
    yield from (*ALONE, *LETTERED, *DRESSED, *BRIEF, *PAIRED, *CLOTHES, *TAGS, *GRAMMAR)
    yield from (*NUMBERS.values(), *instructions, *said, *props)
    for name in world.objects:
        yield name
        yield OBJECTS[name].many(name)
    for table in (world.colours, world.signs, world.people, world.hair):
        yield from table
    for name in world.stages:
        yield from (*STAGES[name].phrases, STAGES[name].tag, STAGES[name].place)
    for name in world.styles:
        yield from STYLES[name].phrases
    for name in world.poses:
        yield from POSES[name].phrases


def vocabulary(world: World) -> list[str]:
    """Every caption word that the world can produce, sorted, lower case; quoted text is not counted."""
    placeholders = re.compile(r"\{\w+\}")
    found: set[str] = set()
    for text in _sources(world):
        found.update(words(placeholders.sub(" ", text)))
    return sorted(found)
