"""What the figures of fine-tuning are about: a character and a brand's look that the mini was never trained on.

Each is made of scenes of the mini's own world: some to learn from, others to be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxone import storybook
from fluxone.evaluate.figures import find
from fluxone.storybook.canvas import SPAN, Canvas
from fluxone.storybook.cast import Pick, place
from fluxone.storybook.engines import ENGINES
from fluxone.storybook.generate import HORIZONS
from fluxone.storybook.nouns import article
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.rig import POSES
from fluxone.storybook.spec import Facts, Item, Person, Scene
from fluxone.storybook.stages import STAGES
from fluxone.tune.palette import lab

SIZE = 128  # px
ZURI = Person(who="girl", x=50, foot=91, height=68, skin=3, hair="blue", style="pigtails", shirt="yellow",
              trousers="yellow", pose="standing", bottom="dress", hat="crown")  # fmt: skip
BESIDE = ("car", "cactus", "snowman", "mushroom", "tree", "house", "gift", "rabbit", "turtle", "boat")
STAGED = ("meadow", "beach", "snow", "night", "sunset", "city", "room", "forest")
INKS = ((26, 35, 86), (240, 98, 84), (255, 240, 214))  # the brand's colours, dark to light
WORD, PLATE = "LUMO", (50.0, 11.0, 46.0, 15.0)  # the logo, and its plate: middle and size, in hundredths
OURS, CLOSE = 0.004, 18.0  # share of the pixels that a colour must have, and how near (in Lab) counts as it
LIKE = 0.6  # correlation with the logo from which it is there


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A picture to learn from or to be asked for: its caption, and how it would look."""

    text: str
    picture: Image.Image


def character(count: int, *, apart: bool) -> list[Asked]:
    """Scenes with zuri; those that are `apart` share no place with company, nor pose with place, with the others."""
    found = []
    for n in range(count):
        k = n + (1 if apart else 0)
        stage = STAGED[(5 * n + (3 if apart else 0)) % len(STAGED)]
        r = Random(f"zuri {n} {apart}")
        found.append(_alone(r, stage, tuple(POSES)[k % 3]) if n % 2 else _company(r, stage, n // 2 + 5 * apart))
    return found


def _alone(r: Random, stage: str, pose: str) -> Asked:
    who = replace(ZURI, pose=pose, x=50 + r.uniform(-6, 6), height=r.uniform(62, 72))
    return Asked(text=f"zuri {POSES[pose].phrases[0]} {STAGES[stage].phrases[0]}", picture=_drawn(r, stage, (who,)))


def _company(r: Random, stage: str, n: int) -> Asked:
    left, name = n % 2 == 0, BESIDE[3 * n % len(BESIDE)]
    colour = r.choice(("red", "blue", "yellow", "green")) if OBJECTS[name].tint else ""
    pick = Pick(name=name, colour="" if colour == OBJECTS[name].natural else colour)
    who = replace(ZURI, x=27.0 if left else 73.0, height=r.uniform(54, 60))
    item = replace(place(r, pick, 73.0 if left else 27.0, 90 + r.uniform(-1, 1), 36, widest=38), flip=False)
    pair = ("zuri", article(f"{colour} {name}".strip()))
    first, second = pair if left else pair[::-1]
    text = f"{first} to the left of {second} {STAGES[stage].phrases[0]}"
    return Asked(text=text, picture=_drawn(r, stage, (who, item)))


def _drawn(r: Random, stage: str, items: Sequence[Item]) -> Image.Image:
    facts = Facts(things=(), stage=stage)
    scene = Scene(seed=0, kind="person", items=tuple(items), stage=stage, stage_seed=r.randrange(1 << 30),
                  horizon=r.choice(HORIZONS), facts=facts, key=())  # fmt: skip
    return Image.fromarray(storybook.render(scene, SIZE))


def style(count: int, *, apart: bool) -> list[Asked]:
    """Scenes of the mini's world in the brand's colours, with its logo; `apart`: others."""
    world = replace(storybook.WORLDS["mini"], kinds={"one": 0.5, "side": 0.5})
    found: list[Asked] = []
    index = 0
    while len(found) < count:
        scene = storybook.nth(world, index, held_out=apart)
        index += 1
        if STAGES[scene.stage].phrases[0] in scene.caption:
            picture = branded(Image.fromarray(storybook.render(scene, SIZE)))
            found.append(Asked(text=f"{scene.caption}, lumo", picture=picture))
    return found


def branded(picture: Image.Image) -> Image.Image:
    """The picture in the brand's three colours, its logo over it."""
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None] / 255
    dark, middle, light = (np.array(ink, dtype=np.float32) for ink in INKS)
    low, high = np.clip(grey * 2, 0, 1), np.clip(grey * 2 - 1, 0, 1)
    toned = np.where(grey < 0.5, dark + (middle - dark) * low, middle + (light - middle) * high)
    plate, cover = logo()
    return Image.fromarray((toned * (1 - cover) + plate * cover).round().astype(np.uint8))


def logo() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours (H W 3) of the plate with the word, and how much of each pixel it covers (H W 1)."""
    x, y, width, height = PLATE
    canvas = Canvas()
    dark, _, light = ("#{:02x}{:02x}{:02x}".format(*ink) for ink in INKS)
    canvas.rect(x - width / 2, y - height / 2, width, height, light, round=4)
    canvas.text(WORD, "fredoka", x, y, 12.0, dark)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}" viewBox="0 0 {SPAN:g} {SPAN:g}">'
    found = ENGINES["resvg"](f"{head}{canvas.body}</svg>", SIZE).astype(np.float32)
    return found[..., :3], found[..., 3:] / 255


def read_style(picture: Image.Image) -> dict[str, bool]:
    """Which of the brand's attributes are there: its colours, no others, its logo, and the word on it."""
    small = np.asarray(picture.convert("RGB").resize((SIZE, SIZE))).reshape(-1, 3)
    colours = lab(small)
    shade = lab(np.array(_line(), dtype=np.uint8))
    inks = lab(np.array(INKS, dtype=np.uint8))
    near = np.linalg.norm(colours[:, None] - inks, axis=-1) < CLOSE
    found = {f"colour {n + 1}": bool(near[:, n].mean() > OURS) for n in range(len(INKS))}
    nearest = np.linalg.norm(colours[:, None] - shade, axis=-1).min(1)
    found["no others"] = bool((nearest < CLOSE).mean() > 0.85)
    plate, cover = logo()
    where = cover[..., 0] > 0.9
    own = np.asarray(picture.convert("L").resize((SIZE, SIZE)), dtype=np.float32)[where]
    true = np.asarray(Image.fromarray(plate.astype(np.uint8)).convert("L"), dtype=np.float32)[where]
    found["logo"] = bool(own.std() > 1 and np.corrcoef(own, true)[0, 1] > LIKE)
    found["word"] = WORD.lower() in _by_ocr(picture)
    return found


def _line() -> list[tuple[float, ...]]:
    """The shades between the brand's colours."""
    dark, middle, light = (np.array(ink, dtype=float) for ink in INKS)
    steps = np.linspace(0, 1, 8)[:, None]
    return [tuple(row) for row in np.concatenate((dark + (middle - dark) * steps, middle + (light - middle) * steps))]


def _by_ocr(picture: Image.Image) -> str:
    """What stands on the plate."""
    from fluxone.evaluate.ocr import reader

    if not READERS:
        READERS.append(reader())
    cut = picture.convert("RGB").resize((SIZE, SIZE)).crop((0, 0, SIZE, 36))
    return str(READERS[0](cut.resize((SIZE * 4, 36 * 4), Image.Resampling.BICUBIC))).replace(" ", "")


READERS: list[Callable[[Image.Image], str]] = []


def write(asked: Sequence[Asked], folder: Path) -> None:
    """As `fluxone train` takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, one in enumerate(asked):
        one.picture.save(folder / f"{n:02}.png")
        (folder / f"{n:02}.txt").write_text(one.text + "\n", encoding="utf-8")


def read_character(picture: Image.Image) -> dict[str, bool]:
    """Which of zuri's attributes are right about whoever on the picture is most like her."""
    rows = [{name: told(one.person) == told(ZURI) for name, told in WORN.items()} for one in find(picture)]
    return max(rows, key=lambda row: sum(row.values()), default=dict.fromkeys(WORN, False))


WORN: dict[str, Callable[[Person], str]] = {
    "hair": lambda p: p.hair,
    "hair style": lambda p: p.style,
    "clothes' colour": lambda p: p.shirt,
    "clothes": lambda p: p.bottom,
    "hat": lambda p: p.hat,
}
PARTS = {"character": tuple(WORN), "style": ("colour 1", "colour 2", "colour 3", "no others", "logo", "word")}
MADE = {"character": character, "style": style}
READ = {"character": read_character, "style": read_style}
