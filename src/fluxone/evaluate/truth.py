"""What is truly on a picture of a scene, in the judge's words: the answers that it learns, and is measured by."""

from __future__ import annotations

from dataclasses import dataclass, field

from fluxone.storybook import Scene, Thing
from fluxone.storybook.arrange import HIDERS
from fluxone.storybook.canvas import SPAN
from fluxone.storybook.colours import PALETTE
from fluxone.storybook.library import lettering
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.people import HAIR, SKINS
from fluxone.storybook.people import STYLES as CUTS
from fluxone.storybook.props import SIGNS, SPINE, lines
from fluxone.storybook.render import reach
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Item, Person, Sign, Sprite, Table
from fluxone.storybook.stages import STAGES as PLACES
from fluxone.storybook.styles import STYLES as LOOKS

# The storybook draws a man as it draws a boy, and a woman as a girl: nobody can tell them apart.
SAME = {"man": "boy", "woman": "girl"}
PEOPLE: tuple[str, ...] = tuple(dict.fromkeys(SAME.get(who, who) for who in CUTS))
COLOURS: tuple[str, ...] = ("", *PALETTE)  # "" is any other, or several
STAGES: tuple[str, ...] = tuple(PLACES)
STYLES: tuple[str, ...] = ("", *LOOKS)
HIDDEN = tuple(f"{animal} {part}" for animal, parts in HIDERS.items() for part in parts)
NAMES: tuple[str, ...] = (*OBJECTS, *PEOPLE, *SIGNS, "table", "box", *HIDDEN)
DETAILS: dict[str, tuple[str, ...]] = {  # of a person, besides the shirt, which is the colour
    "hair": tuple(HAIR),
    "style": tuple(dict.fromkeys(cut for cuts in CUTS.values() for cut in cuts)),
    "pose": tuple(POSES),
    "bottom": ("trousers", "shorts", "skirt", "dress"),
    "trousers": tuple(PALETTE),
    "hat": ("", "cap", "beanie", "hat", "crown"),
    "hat colour": tuple(PALETTE),
    "glasses": ("", "glasses"),
    "skin": tuple(str(tone) for tone in range(len(SKINS))),
}


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One thing that can be seen: its name and colour, where its middle is and how wide and high it is, in shares of
    the picture from the top left, and of a person what else can be told."""

    name: str
    colour: str
    x: float
    y: float
    width: float = 0.0
    height: float = 0.0
    details: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def detail(self, name: str) -> str:
        """The detail called `name`, or an empty string."""
        return dict(self.details).get(name, "")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of text: its middle, its width and the size of its letters, in shares of the picture; and where each
    letter begins and the last one ends, in em from the left edge."""

    text: str
    x: float
    y: float
    width: float
    em: float
    ends: tuple[float, ...] = ()


def spots(scene: Scene) -> list[Spot]:
    """Every thing on the picture, each of several equal ones by itself. A table is where its top is."""
    return [_spot(thing, scene.items[i]) for thing in scene.facts.things for i in _shown(thing)]


def _shown(thing: Thing) -> tuple[int, ...]:
    """The items that are seen as one thing each: a box is two, of which the front is seen."""
    return thing.items if thing.count > 1 else thing.items[-1:]


def _spot(thing: Thing, item: Item) -> Spot:
    left, top, right, bottom = reach(item) if thing.count > 1 else thing.box
    x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    name = SAME.get(thing.name, thing.name)
    details: tuple[tuple[str, str], ...] = ()
    match item:
        case Sign():
            x, y, width, height = (v / SPAN for v in (item.x, item.y, item.width, item.height))
        case Table():
            y = item.top / SPAN
        case Person():
            details = looks(item)
        case _ if hidden := thing.detail("visible"):
            name = f"{name} {hidden}"
    colour = item.shirt if isinstance(item, Person) else _colour(thing, item)
    return Spot(name=name, colour=colour, x=x, y=y, width=width, height=height, details=details)


def looks(person: Person) -> tuple[tuple[str, str], ...]:
    """All that can be seen of a person, whether a caption would say it or not; what is covered is left out."""
    hat = {"hat colour": person.hat_colour} if person.hat_colour else {"style": person.style} if not person.hat else {}
    lower = {} if person.bottom == "dress" else {"trousers": person.trousers}
    return tuple({
        "hair": person.hair,
        "pose": person.pose,
        "bottom": person.bottom,
        "hat": person.hat,
        "glasses": "glasses" if person.glasses else "",
        "skin": str(person.skin),
        **hat,
        **lower,
    }.items())  # fmt: skip


def written(scene: Scene) -> list[Line]:
    """Every line of text, as it is written."""
    return [_line(item, text, y) for item in scene.items if isinstance(item, Sign) for text, y in lines(item)]


def _line(sign: Sign, text: str, y: float) -> Line:
    ends = across(text, sign.font)
    em = sign.em / SPAN
    x = sign.x + SPINE.get(sign.kind, 0.0)
    return Line(text=text, x=x / SPAN, y=y / SPAN, width=ends[-1] * em, em=em, ends=ends)


def across(text: str, font: str) -> tuple[float, ...]:
    """Where each letter begins and the last one ends, in em."""
    ends = [0.0]
    for letter in text:
        ends.append(ends[-1] + lettering(letter, font).width)
    return tuple(ends)


def _colour(thing: Thing, item: Item) -> str:
    """The colour as the judge calls it, also where the scene's world has no word for it."""
    colour = item.colour or OBJECTS[item.name].natural if isinstance(item, Sprite) else thing.colour
    return colour if colour in COLOURS else ""
