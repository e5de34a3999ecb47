"""What is truly on a picture of a scene, in the judge's words: the answers that it learns, and is measured by."""

from __future__ import annotations

from dataclasses import dataclass

from fluxone.storybook import Scene, Thing
from fluxone.storybook.canvas import SPAN
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.render import reach
from fluxone.storybook.spec import Item, Person, Sign, Sprite
from fluxone.storybook.worlds import WORLDS

COLOURS: tuple[str, ...] = ("", *WORLDS["first"].colours)  # "" is any other, or several
STAGES: tuple[str, ...] = WORLDS["first"].stages
HIDDEN = tuple(f"{animal} {part}" for animal in ("cat", "dog", "fox", "rabbit") for part in ("tail", "ears"))
NAMES: tuple[str, ...] = (
    *WORLDS["first"].objects,
    *WORLDS["first"].people,
    *WORLDS["first"].signs,
    "box",
    *HIDDEN,
)
# The storybook draws a fox's ears over a rim as it draws a cat's: nobody can tell them apart.
SAME = {"fox ears": "cat ears"}


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One thing that can be seen: its name and colour, and where its middle is, in 0..1 from the top left."""

    name: str
    colour: str
    x: float
    y: float


def spots(scene: Scene) -> list[Spot]:
    """Every thing on the picture, each of several equal ones by itself. A sign is where its text is."""
    return [_spot(thing, scene.items[i]) for thing in scene.facts.things for i in _shown(thing)]


def _shown(thing: Thing) -> tuple[int, ...]:
    """The items that are seen as one thing each: a box is two, of which the front is seen."""
    return thing.items if thing.count > 1 else thing.items[-1:]


def _spot(thing: Thing, item: Item) -> Spot:
    if isinstance(item, Sign):
        return Spot(name=thing.name, colour=thing.colour, x=item.x / SPAN, y=item.y / SPAN)
    left, top, right, bottom = reach(item) if thing.count > 1 else thing.box
    hidden = thing.detail("visible")
    return Spot(
        name=one_name(f"{thing.name} {hidden}") if hidden else thing.name,
        colour=item.shirt if isinstance(item, Person) else _colour(thing, item),
        x=(left + right) / 2,
        y=(top + bottom) / 2,
    )


def one_name(name: str) -> str:
    """The one name of what looks the same under two."""
    return SAME.get(name, name)


def _colour(thing: Thing, item: Item) -> str:
    """The colour as the judge calls it, also where the scene's world has no word for it."""
    colour = item.colour or OBJECTS[item.name].natural if isinstance(item, Sprite) else thing.colour
    return colour if colour in COLOURS else ""
