"""Pixels against facts: what the scene says is what the picture shows."""

from __future__ import annotations

import builtins
import sys
from dataclasses import replace

import numpy as np
import pytest

from fluxone import storybook
from fluxone.errors import MissingExtra, UnknownName
from fluxone.storybook import WORLDS, Facts, Scene
from fluxone.storybook.canvas import Canvas, Extent
from fluxone.storybook.cast import LEGIBLE
from fluxone.storybook.colours import PALETTE, moved, to_hex, to_lab
from fluxone.storybook.library import CAPITALS, FONTS, lettering
from fluxone.storybook.objects import OBJECTS
from fluxone.storybook.props import lines
from fluxone.storybook.render import draw
from fluxone.storybook.spec import Crate, Sign, Sprite
from fluxone.storybook.styles import STYLES

pytest.importorskip("resvg_py")
SIDE = 128


def lone(name: str, colour: str = "") -> Scene:
    item = Sprite(name=name, colour=colour, x=50, foot=80, size=60)
    return Scene(
        seed=0,
        kind="one",
        items=(item,),
        stage="plain",
        stage_seed=0,
        horizon=60,
        facts=Facts(things=(), stage="plain"),
        key=("test",),
    )


@pytest.mark.parametrize("mode", ["rgb", "depth", "labels", "pose"])
def test_the_same_bytes(mode: str) -> None:
    scene = storybook.scene(11, WORLDS["full"])
    one, two = storybook.render(scene, 96, mode=mode), storybook.render(scene, 96, mode=mode)
    assert one.dtype == np.uint8
    assert one.shape == ((96, 96) if mode == "labels" else (96, 96, 3))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_labels_are_where_the_facts_say(world: str) -> None:
    """A thing's mask fills its box, and at least 35 % of every item stays visible."""
    for seed in range(120):
        scene = storybook.scene(seed, WORLDS[world])
        labels = storybook.render(scene, SIDE, mode="labels")
        assert labels.max() <= len(scene.items)
        for thing in scene.facts.things:
            mask = np.isin(labels, [i + 1 for i in thing.items])
            rows, columns = np.where(mask)
            seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / SIDE
            covered = scene.kind in COVERING
            assert covered or np.abs(seen - thing.box).max() < 0.035, (seed, thing, seen)
        for index, item in enumerate(scene.items):
            alone = Scene(
                seed=0, kind="", items=(item,), stage="plain", stage_seed=0, horizon=60, facts=scene.facts, key=()
            )
            whole = (storybook.render(alone, SIDE, mode="labels") == 1).sum()
            visible = (labels == index + 1).sum() / whole
            lining = isinstance(item, Crate) and item.part == "back"  # the inside of a box is there to be covered
            assert lining or visible > 0.35, (seed, item, visible)


def test_a_measuring_canvas_reaches_as_far_as_one_that_draws() -> None:
    for seed in range(300):
        for item in storybook.scene(seed, WORLDS["full"]).items:
            drawn, measured = Canvas(), Extent()
            for canvas in (drawn, measured):
                draw(item, canvas)
            assert [vars(drawn)[edge] for edge in EDGES] == [vars(measured)[edge] for edge in EDGES]
            assert drawn.body


EDGES = ("left", "top", "right", "bottom")


def test_near_is_bright() -> None:
    scene = next(
        s
        for s in (storybook.scene(i, WORLDS["first"]) for i in range(99))
        if s.kind == "one" and not OBJECTS[s.facts.things[0].name].floats
    )
    depth = storybook.render(scene, SIDE, mode="depth")[..., 0]
    thing = storybook.render(scene, SIDE, mode="labels") == 1
    assert depth[thing].mean() > 180 > 40 > depth[0].mean()
    assert depth[-1].mean() > depth[round(SIDE * 0.65)][~thing[round(SIDE * 0.65)]].mean()


def test_a_box_is_nearer_in_front_than_behind() -> None:
    scene = next(s for s in (storybook.scene(i, WORLDS["full"]) for i in range(300)) if s.kind == "inside")
    depth = storybook.render(scene, SIDE, mode="depth")[..., 0]
    labels = storybook.render(scene, SIDE, mode="labels")
    back, item, cover = (np.median(depth[labels == k]) for k in (1, 2, 3))
    assert back < item < cover


def test_pose_draws_people_only() -> None:
    scenes = [storybook.scene(i, WORLDS["full"]) for i in range(60)]
    person = next(s for s in scenes if s.kind == "person")
    other = next(s for s in scenes if s.kind == "one")
    assert storybook.render(person, 64, mode="pose").any()
    assert not storybook.render(other, 64, mode="pose").any()


def test_sizes_agree() -> None:
    for seed in range(12):
        scene = storybook.scene(seed, WORLDS["full"])
        large = storybook.render(scene, 256).astype(float)
        small = storybook.render(scene, 128).astype(float)
        assert np.abs(large.reshape(128, 2, 128, 2, 3).mean((1, 3)) - small).mean() < (4.0 if scene.style else 2.5)


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_every_object_draws(name: str) -> None:
    mask = storybook.render(lone(name), 64, mode="labels") == 1
    assert mask.sum() > 0.06 * 64 * 64
    rows, columns = np.where(mask)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(0.6 * 64, abs=2)


def hue(colour: tuple[float, float, float]) -> float:
    return float(np.arctan2(colour[2], colour[1]))


@pytest.mark.parametrize("name", [n for n, row in OBJECTS.items() if row.tint])
@pytest.mark.parametrize("colour", ["blue", "yellow"])
def test_tinting_moves_the_hue(name: str, colour: str) -> None:
    """The tinted picture holds far more of the colour than half of the plain one would by chance."""
    tinted = storybook.render(lone(name, colour), 64)
    mask = storybook.render(lone(name), 64, mode="labels") == 1
    goal = to_lab(PALETTE[colour])
    near = 0
    for r, g, b in tinted[mask]:
        lab = to_lab(f"#{r:02x}{g:02x}{b:02x}")
        turn = abs((hue(lab) - hue(goal) + np.pi) % (2 * np.pi) - np.pi)
        near += turn < 0.5 and np.hypot(lab[1], lab[2]) > 0.04
    assert near / mask.sum() > 0.12, near / mask.sum()


def test_highlights_survive_tinting() -> None:
    main, light, eye = "#f3ad61", "#ffdea7", "#212121"
    blue = to_lab(PALETTE["blue"])
    assert to_lab(moved(main, main, PALETTE["blue"]))[0] == pytest.approx(blue[0], abs=0.01)
    assert to_lab(moved(light, main, PALETTE["blue"]))[0] > blue[0] + 0.05
    assert moved(eye, main, PALETTE["blue"]) == eye


@pytest.mark.parametrize("colour", sorted(PALETTE.values()))
def test_oklab_there_and_back(colour: str) -> None:
    assert to_hex(to_lab(colour)) == colour


@pytest.mark.parametrize("font", FONTS)
def test_letters_have_widths(font: str) -> None:
    assert lettering("WWW", font).width > 2 * lettering("III", font).width
    assert lettering("ABAB", font).width == pytest.approx(2 * lettering("AB", font).width)
    assert lettering("A" * 3, font).body.count("<path") == 3
    assert 0.5 < lettering("A", font).cap < 0.8
    printable = "".join(map(chr, range(33, 127)))
    assert lettering(printable, font).body.count("<path") == len(printable)


def test_text_stays_on_its_sign() -> None:
    for seed in range(400):
        for item in storybook.scene(seed, WORLDS["full"]).items:
            if isinstance(item, Sign):
                texts = [text for text, _ in lines(item)]
                assert " ".join(texts) == item.text
                assert all(lettering(text, item.font).width * item.em < item.width - 4 for text in texts)
                assert len(texts) * item.em * 0.7 < item.height
                assert item.em >= LEGIBLE


def test_a_mode_that_is_none() -> None:
    with pytest.raises(UnknownName, match="depth"):
        storybook.render(lone("cat"), 32, mode="deph")


def test_without_resvg(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: object, **more: object) -> object:
        if name == "resvg_py":
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "resvg_py", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match="storybook"):
        storybook.render(lone("cat"), 32)


def test_sheet_holds_every_picture() -> None:
    pictures = [storybook.render(lone(n), 64) for n in ("cat", "dog", "owl")]
    page = storybook.sheet(pictures, ["a cat", "a dog that is rather long to say", "an owl"], 2)
    assert page.width > 128 and page.height > 128
    shown = np.asarray(page)
    for picture, (x, y) in zip(pictures[:2], ((6, 6), (76, 6)), strict=True):
        assert (shown[y : y + 64, x : x + 64] == picture).all()


COVERING = ("inside", "hiding", "front", "reading", "table")  # kinds in which one item stands before another on purpose


@pytest.mark.parametrize("style", sorted(STYLES))
def test_styles_change_the_picture_and_nothing_else(style: str) -> None:
    plain = storybook.scene(3, WORLDS["first"])
    styled = replace(plain, style=style)
    assert np.abs(storybook.render(styled, 96).astype(int) - storybook.render(plain, 96)).mean() > 1
    for mode in ("depth", "labels"):
        assert np.array_equal(storybook.render(styled, 96, mode=mode), storybook.render(plain, 96, mode=mode))


def test_capitals_only_fonts_carry_capitals() -> None:
    for seed in range(500):
        for item in storybook.scene(seed, WORLDS["first"]).items:
            if isinstance(item, Sign):
                assert item.text.isupper() or item.font not in CAPITALS
