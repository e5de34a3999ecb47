"""Scene -> SVG -> pixels, in colour, as depth, as labels, or as pose sticks.

    Scene ── svg(mode) ──▶ "<svg ...>" ── resvg ──▶ uint8 (H, W, 3), labels (H, W)

Refuses to know how a scene was made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from fluxone.errors import pick
from fluxone.storybook.canvas import SPAN, Canvas, Extent
from fluxone.storybook.engines import ENGINES
from fluxone.storybook.light import LIGHTS
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.people import draw_person
from fluxone.storybook.props import draw_book, draw_crate, draw_peek, draw_sign, draw_table
from fluxone.storybook.rig import BONES, joints
from fluxone.storybook.spec import Book, Box, Crate, Item, Peek, Person, Scene, Sign, Sprite, Table
from fluxone.storybook.stages import STAGES, paint
from fluxone.storybook.styles import STYLES, Style

PLAIN = Style(phrases=())
FAR, FLOOR_FAR, FLOOR_NEAR, AIR, NEAREST = 16, 30, 150, 120, 250  # grey levels of the depth picture
STEP = 14  # between a box's front, what is in it, and its back


@singledispatch
def draw(item: Item, c: Canvas) -> None:
    """Draws one item."""
    raise TypeError(f"nothing draws a {type(item).__name__}")


@draw.register
def _(item: Sprite, c: Canvas) -> None:
    row = OBJECTS[item.name]
    c.sprite(row.icon, item.colour, item.x, item.foot, item.size, flip=item.flip)


draw.register(Person, lambda item, c: draw_person(c, item))
draw.register(Sign, lambda item, c: draw_sign(c, item))
draw.register(Table, lambda item, c: draw_table(c, item))
draw.register(Crate, lambda item, c: draw_crate(c, item))
draw.register(Book, lambda item, c: draw_book(c, item))
draw.register(Peek, lambda item, c: draw_peek(c, item))


def reach(*items: Item) -> Box:
    """The box in 0..1 that the items cover when nothing hides them, cut at the picture's edge."""
    c = Extent()
    for item in items:
        draw(item, c)
    left, top, right, bottom = (min(max(v / SPAN, 0.0), 1.0) for v in (c.left, c.top, c.right, c.bottom))
    return left, top, right, bottom


def _foot(item: Item) -> tuple[float, float, float]:
    """Where an item's shadow falls: x, y, half width; zero width for what has none."""
    match item:
        case Sprite(shadow=True):
            box = reach(item)
            return item.x, item.foot, (box[2] - box[0]) * SPAN * 0.44
        case Person():
            return item.x, item.foot, item.height * 0.2
        case Table():
            return item.x, item.foot, item.width * 0.48
        case Crate(part="back"):
            return item.x, item.foot, item.width * 0.55
        case Sign(kind="wooden sign"):
            return item.x, item.foot, 6.0
        case Sign(kind="book cover"):
            return item.x, item.foot, item.width * 0.5
        case Sign(kind="chalkboard"):
            return item.x, item.foot - 1, item.width * 0.4
        case _:
            return 0.0, 0.0, 0.0


def _backdrop(scene: Scene) -> str:
    """The stage with the shadows of what stands on it."""
    c = Canvas()
    paint(c, scene.stage, scene.stage_seed, scene.horizon)
    dark = STAGES[scene.stage].shadow
    for item in scene.items:
        x, y, half = _foot(item)
        if half:
            c.soft(x, y - 0.4, half, 2.6, dark, 0.25)
    return c.body


def _things(scene: Scene, style: Style) -> str:
    parts = []
    for index, item in enumerate(scene.items):
        one = Canvas()
        draw(item, one)
        parts.append(style.thing(one.body, index, (one.left, one.top, one.right, one.bottom)))
    return "".join(parts)


def _colour(scene: Scene) -> str:
    style = STYLES.get(scene.style, PLAIN)
    return style.around(_backdrop(scene)) + _things(scene, style)


def _nearness(scene: Scene) -> list[int]:
    """A grey level for every item: by where it meets the ground, or by what holds it."""
    deep = SPAN - scene.horizon

    def standing(foot: float) -> int:
        return round(AIR + (NEAREST - AIR) * min(max((foot - scene.horizon) / deep, 0.0), 1.0))

    holder = max((standing(i.foot) for i in scene.items if isinstance(i, Table | Crate)), default=AIR)
    hand = max((standing(i.foot) for i in scene.items if isinstance(i, Person)), default=AIR)
    levels = []
    for item in scene.items:
        match item:
            case Crate(part="back"):
                level = standing(item.foot) - 2 * STEP
            case Sprite(held=True):
                level = min(hand + STEP // 2, NEAREST)
            case Peek():
                level = holder - STEP
            case Sprite(shadow=False) if not OBJECTS[item.name].floats:
                level = holder - STEP
            case Sprite(shadow=False) | Sign(kind="banner" | "speech bubble" | "neon sign" | "poster"):
                level = AIR
            case _:
                level = standing(item.foot)
        levels.append(level)
    return levels


def _depth(scene: Scene) -> str:
    c = Canvas()
    c.rect(-1, -1, SPAN + 2, SPAN + 2, _grey(FAR))
    c.fade(scene.horizon, SPAN, _grey(FLOOR_FAR), _grey(FLOOR_NEAR))
    for item, level in zip(scene.items, _nearness(scene), strict=True):
        c.flat = _grey(level)
        draw(item, c)
    return c.body


def _labels(scene: Scene) -> str:
    c = Canvas()
    c.rect(-1, -1, SPAN + 2, SPAN + 2, "#000000")
    for index, item in enumerate(scene.items, start=1):
        c.flat = _grey(index)
        draw(item, c)
    return c.body


def _pose(scene: Scene) -> str:
    c = Canvas()
    c.rect(-1, -1, SPAN + 2, SPAN + 2, "#000000")
    for person in (item for item in scene.items if isinstance(item, Person)):
        at = joints(person)
        for start, end, ink in BONES:
            c.line((at[start], at[end]), ink, 2.2)
        for x, y in at.values():
            c.oval(x, y, 1.5, 1.5, "#ffffff")
    return c.body


def _grey(level: int) -> str:
    return f"#{level:02x}{level:02x}{level:02x}"


MODES: dict[str, Callable[[Scene], str]] = {"rgb": _colour, "depth": _depth, "labels": _labels, "pose": _pose}


def _framed(body: str, size: int, crisp: bool = False) -> str:
    edges = ' shape-rendering="crispEdges"' if crisp else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}"'
        f' viewBox="0 0 {SPAN:g} {SPAN:g}"{edges}>{body}</svg>'
    )


def svg(scene: Scene, size: int, mode: str = "rgb") -> str:
    """The scene as one self-contained SVG of `size` x `size` px; the light of a style comes after, in `render`."""
    return _framed(pick(MODES, mode, "storybook mode")(scene), size, crisp=mode == "labels")


def render(scene: Scene, size: int, *, mode: str = "rgb", engine: str = "resvg") -> NDArray[np.uint8]:
    """The picture, uint8 (H, W, 3); for `labels` (H, W), where k owns to `items[k - 1]` and 0 to nothing.

    Args:
        engine: row of `engines.ENGINES`; `resvg` is what tests and figures are made with.

    Raises: MissingExtra without the engine's package; UnknownName for a mode or engine that is in no table.
    """
    drawn = pick(ENGINES, engine, "storybook engine")
    if mode == "labels":
        return drawn(svg(scene, size, mode), size)[..., 0].copy()
    light = STYLES.get(scene.style, PLAIN).light if mode == "rgb" else ""
    if not light:
        return drawn(svg(scene, size, mode), size)[..., :3].copy()
    backdrop = drawn(_framed(_backdrop(scene), size), size)[..., :3]
    things = drawn(_framed(_things(scene, PLAIN), size), size)
    return LIGHTS[light](backdrop, things, scene.seed)
