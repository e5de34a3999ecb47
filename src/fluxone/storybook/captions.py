"""Puts a scene's facts into words, in many wordings, and lists every word they can use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random

from fluxone.storybook.idioms import (
    ALONE_MORE,
    LETTERED_MORE,
    LONE_MORE,
    OPENINGS,
    PAIRED_MORE,
    PAIRS,
    PLURALS,
    RELATIONS_MORE,
    SHADES,
    SIZES,
    STAGES_MORE,
    SYNONYMS,
    TITLED,
    WORN,
)
from fluxone.storybook.nouns import article, noun
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

TAGGED, TERSE = 0.1, 0.15  # tag-style captions; captions that drop something
OPENED = 0.65  # share of the captions in a style that begin with it, where they can
LONGEST, TRIES = 48, 12  # tokens of a fluent caption; draws until one is no longer than that
TOKEN = re.compile(r"[a-z]+|[,.;:!?()]")
DEPICTED = re.compile(r"(a|an) (cute |storybook )?(picture|illustration|drawing|image) of |(show me|draw) ")
SPEAKS = re.compile(r" (is|are|says|holds) |^\{a\}, |left side")  # a sentence or a list: no "a photo of" before it
WORD = re.compile(r"[a-z]+")
QUOTED = re.compile(r'"[^"]*"')


def length(text: str) -> int:
    """How many tokens the mini's tokenizer makes of it: words without articles, marks, letters in quotes, an end."""
    quoted = QUOTED.findall(text)
    bare = TOKEN.findall(QUOTED.sub(" ", text))
    return sum(map(len, quoted)) + sum(token not in ("a", "an", "the") for token in bare) + 1


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip(" ,")
    return re.sub(r"\s*,(\s*,)+", ",", text).replace(" ,", ",")


def _tags(scene: Scene, r: Random) -> str:
    """The caption as a list of tags, in any order but for the style at the end."""
    things = scene.facts.things
    named = [noun(t, r, paired=len(things) > 1, fluent=scene.fluent).strip(",") for t in things]
    relation = scene.facts.relations[0].name if scene.facts.relations else ""
    if relation not in ("", "next to", "saying"):
        said = RELATIONS[relation] if relation in RELATIONS else RELATIONS_MORE[relation]
        filled = dict(zip("abc", named, strict=False))
        told = 3 if "{c}" in said[0] else 2
        named = [_tidy(said[0].format(stage="", **filled)), *named[told:]]
    else:
        r.shuffle(named)
    manner = r.choice(STYLES[scene.style].phrases if scene.style else TAGS)
    return _tidy(", ".join([*named, STAGES[scene.stage].tag, manner]))


def _templates(scene: Scene, relation: str) -> tuple[str, ...]:
    """The wordings for a relation, or for a thing alone."""
    if not relation:
        return (*ALONE, *ALONE_MORE) if scene.fluent else ALONE
    known = RELATIONS.get(relation, ())
    return (*known, *RELATIONS_MORE.get(relation, ())) if scene.fluent or not known else known


def caption(scene: Scene, rng: Random) -> str:
    """One of the many true captions of the scene, drawn with `rng`; fluent ones are at most `LONGEST` tokens."""
    said = _caption(scene, rng)
    for _ in range(TRIES if scene.fluent else 0):
        if length(said) <= LONGEST:
            break
        said = _caption(scene, rng)
    return said


def _caption(scene: Scene, rng: Random) -> str:
    if rng.random() < TAGGED:
        return _tags(scene, rng)
    terse = rng.random() < TERSE
    bare = terse and rng.random() < 0.5
    things, relations = scene.facts.things, scene.facts.relations
    nouns = [noun(t, rng, brief=terse and not bare, paired=len(things) > 1, fluent=scene.fluent) for t in things]
    phrases = STAGES[scene.stage].phrases
    stage = "" if bare else rng.choice((*phrases, *STAGES_MORE[scene.stage]) if scene.fluent else phrases)
    templates = [rng.choice(_templates(scene, relation.name)) for relation in relations]
    template = (templates or [rng.choice(_templates(scene, ""))])[0]
    if len(relations) > 1:  # "a fox reading a book" and "a fox under a tree": one sentence of both
        template = (
            template.replace(" {stage}", " under {c} {stage}") if " {stage}" in template else f"{template} under {{c}}"
        )
    if things[0].detail("pose") and not relations:
        template = template.replace("{a} is ", "{a} ")  # people are doing something already
    if things[0].count > 1:
        template = template.replace("there is", "there are").replace("{a} is", "{a} are")
    names = dict(zip(("A", "B", "C"), nouns, strict=False))
    names |= dict(zip("abc", map(_with_article, things, nouns), strict=False))
    template, manner = _manner(scene, template, rng)
    said = template.format(stage=stage, text=things[-1].text, **names)
    if bare:
        said = said.rstrip(", ").removesuffix(" is").removesuffix(" are")
    return _tidy(f"{_counted(said, things[-1].text) if scene.fluent else said}, {manner}")


def _manner(scene: Scene, template: str, r: Random) -> tuple[str, str]:
    """The template with the style put before it ("a photo of"), or the style's phrase to put behind it."""
    if not scene.style:
        return template, ""
    manner = r.choice(STYLES[scene.style].phrases)
    openings = OPENINGS.get(scene.style)
    if not scene.fluent or openings is None:
        return template, manner
    depicted = DEPICTED.match(template)
    bare = template[depicted.end() :] if depicted else template
    if bare.startswith("{") and not bare.startswith("{stage}") and not SPEAKS.search(bare) and r.random() < OPENED:
        return f"{r.choice(openings)} {bare}", ""
    return bare, manner


def _counted(said: str, text: str) -> str:
    """The text called what it is: a word, words or a number."""
    if 'word "' not in said:
        return said
    called = "number" if text.isdigit() else "words" if " " in text else "word"
    return said.replace('word "', f'{called} "')


def _with_article(t: Thing, said: str) -> str:
    return said if t.count > 1 else article(said)


def words(text: str) -> list[str]:
    """The words of a caption, without what stands in quotes and without punctuation."""
    return WORD.findall(QUOTED.sub(" ", text))


def _sources(world: World) -> Iterable[str]:
    """Every table text that a caption or an instruction of the world is put together from."""
    relations = [name for kind in world.kinds for name in SPOKEN.get(kind, ())]
    instructions = (text for name in world.edits for text in INSTRUCTIONS[name])
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


def _fluent(world: World) -> Iterable[str]:
    """What fluent captions and the texts of pairs add."""
    yield from (
        *ALONE_MORE,
        *LETTERED_MORE,
        *TITLED,
        *PAIRED_MORE,
        *LONE_MORE,
        *WORN,
        "words",
        "number",
        "bigger smaller larger much",
    )
    for table in (RELATIONS_MORE, SIZES, SHADES, OPENINGS, PAIRS):
        for texts in table.values():
            yield from texts
    for name in (*world.objects, *world.people, *world.signs, "table", "box"):
        yield from SYNONYMS.get(name, ())
        yield from (PLURALS.get(other, f"{other}s") for other in SYNONYMS.get(name, ()) if name in OBJECTS)
    for name in world.stages:
        yield from STAGES_MORE[name]


def vocabulary(world: World) -> list[str]:
    """Every caption word that the world can produce, sorted, lower case; quoted text is not counted."""
    placeholders = re.compile(r"\{\w+\}")
    found: set[str] = set()
    for text in (*_sources(world), *(_fluent(world) if world.fluent else ())):
        found.update(words(placeholders.sub(" ", text)))
    return sorted(found)
