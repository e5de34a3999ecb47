"""What a run is held to besides the pictures it learns from: other prompts, and the base's own pictures of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

from fluxone.geometry import Resolution
from fluxone.request import Request
from fluxone.train.group import Group, agreed
from fluxone.tune.folder import Example, names_of
from fluxone.tune.looks import AT_ONCE, ELSEWHERE, without
from fluxone.tune.plan import Plan

COUNT = 48  # pictures
FIRST_SEED = 1000
THINGS = ("cat", "dog", "car", "house", "tree", "star", "rabbit", "boat")
OTHERS = (
    *ELSEWHERE,
    'a wooden sign that says "HELLO"',
    "three red balloons in the city",
    "a girl with red hair in a blue shirt waving in the snow",
    "a fox reading a book under a tree",
    'a banner that says "moon" at night',
    "a boy with black hair standing in a room",
    "two green rabbits on the beach",
    "a yellow duck on top of a box in the forest",
)


def prompts_of(plan: Plan) -> tuple[str, ...]:
    """Prompts without the subject: others altogether, and the captions with common things, or its class, in its place;
    without the name alone where it names a style."""
    word, own = plan.wish.name, plan.wish.class_word
    names = [name.lower() for name in names_of(word)]
    things = [f"a {thing}" for thing in (*((own,) if own else ()), *THINGS)] if plan.wish.what != "style" else [""]
    texts = [example.text for example in plan.trained if any(name in example.text.lower() for name in names)]
    made = [without(text, word, thing).strip(" ,") for thing in things for text in texts]
    pairs = zip_longest(OTHERS, dict.fromkeys(made))
    return tuple(dict.fromkeys(text for pair in pairs for text in pair if text))


def pictures(plan: Plan, steps: int, group: Group, line: Callable[[str], None]) -> list[Example]:
    """What the base draws of these prompts, at the size that is trained at, drawn once, by the first process."""
    size, place, texts = Resolution(height=plan.size, width=plan.size), plan.wish.out / "base", prompts_of(plan)
    found = [Example(path=place / f"{n:03}.png", text=texts[n % len(texts)]) for n in range(COUNT)]
    if group.first:
        place.mkdir(parents=True, exist_ok=True)
        line(f"drawing {COUNT} pictures of other prompts by the base")
        for start in range(0, COUNT, AT_ONCE):
            few = found[start : start + AT_ONCE]
            if all(one.path.exists() for one in few):
                continue  # else all of them again: a batch of others may round otherwise
            asked = [
                Request(prompt=one.text, seed=FIRST_SEED + start + n, resolution=size, steps=steps)
                for n, one in enumerate(few)
            ]
            for one, result in zip(few, plan.pipeline.together(asked), strict=True):
                part = one.path.with_suffix(".part")
                result.images[0].save(part, format="PNG")
                part.replace(one.path)
    agreed(group, True, plan.pipeline.on_device.device)  # the others wait for them
    return found
