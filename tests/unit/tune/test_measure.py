"""Lint, likeness, palettes, choice and memory: what is told is true of pictures whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from fluxone.tune import folder as folders
from fluxone.tune.choice import LIMITS, choose, leading, stalled
from fluxone.tune.eightbit import Bytes, levels
from fluxone.tune.eyes import drift, subject
from fluxone.tune.lint import contact_sheet, lint
from fluxone.tune.looks import Look, prompts_for, without
from fluxone.tune.memory import parameters
from fluxone.tune.palette import ciede2000, difference, lab, palette, rgb
from fluxone.tune.presets import WHAT, preset
from fluxone.tune.sigmas import LAWS, shares
from fluxone.tune.wordmark import wordmarks
from fluxone.variants import DEV, MINI, SCHNELL, Kind
from unit.tiny import pipeline
from unit.tune import made


def scene(number: int, subject: bool = True, shift: int = 0) -> Image.Image:
    """A place that differs from picture to picture, and in it the same thing, or another."""
    source = np.random.default_rng(number)
    top, below = (tuple(int(v) for v in source.integers(170, 255, 3)) for _ in range(2))
    image = Image.new("RGB", (128, 128), top)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 70, 128, 128), fill=below)
    x = 30 + int(source.integers(0, 50)) + shift
    if subject:
        pen.ellipse((x, 50, x + 30, 90), fill="#7a3cc8")
        pen.ellipse((x + 6, 56, x + 13, 63), fill="#ffd800")
        pen.ellipse((x + 17, 56, x + 24, 63), fill="#ffd800")
    else:
        pen.rectangle((x, 50, x + 30, 90), fill="#30a040")
    return image


def test_likeness_finds_the_subject_and_not_the_place() -> None:
    references = [scene(i) for i in range(8)]
    base = [scene(i, subject=False) for i in range(8)]
    found = subject(references, references[2:], base)
    assert found.told
    new = [found.likeness(scene(100 + i)) for i in range(6)]
    none = [found.likeness(scene(200 + i, subject=False)) for i in range(6)]
    assert min(new) > 0.6 and max(none) < 0.25
    assert found.copying(references[3]) >= 1
    assert all(found.copying(scene(100 + i)) < 1 for i in range(6))
    assert drift(references[0], references[0]) == 0 < drift(references[0], base[0])


def test_a_base_that_draws_it_already_tells_nothing() -> None:
    references = [scene(i) for i in range(6)]
    assert not subject(references, references, [scene(50 + i) for i in range(6)]).told


def test_palettes() -> None:
    image = Image.new("RGB", (90, 30), "#ff0000")
    image.paste("#0000ff", (30, 0, 60, 30))
    image.paste("#ffffff", (60, 0, 90, 30))
    found = palette([image], 3)
    assert set(found.hexes()) == {"#ff0000", "#0000ff", "#ffffff"}
    assert difference(found, found) == 0
    assert difference(found, palette([Image.new("RGB", (30, 30), "#00ff00")], 1)) > 20
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3)).astype(np.uint8)
    assert np.abs(rgb(lab(pixels)).astype(int) - pixels).max() <= 1


@pytest.mark.parametrize(
    ("one", "two", "truth"),
    [  # Sharma, Wu, Dalal 2005, table 1
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, -1.0, 2.0), (50.0, 0.0, 0.0), 2.3669),
        ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
        ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000(one: tuple[float, ...], two: tuple[float, ...], truth: float) -> None:
    assert ciede2000(np.array(one), np.array(two)) == pytest.approx(truth, abs=1e-4)


def test_lint_finds_what_is_wrong(tmp_path: Path) -> None:
    for i in range(4):
        scene(i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("fox in the snow", encoding="utf-8")
    scene(0).save(tmp_path / "again.png")
    scene(9).filter(ImageFilter.GaussianBlur(6)).save(tmp_path / "blurred.png")
    scene(8).resize((20, 20)).save(tmp_path / "small.png")
    Image.new("RGB", (128, 128), "red").save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    for name in ("again", "blurred", "small", "plain", "broken"):
        (tmp_path / f"{name}.txt").write_text("red car", encoding="utf-8")
    (tmp_path / "3.txt").unlink()
    examples = folders.read(tmp_path)
    found = lint(examples, size=128, trigger="fox", pipeline=pipeline(tmp_path / "words"))
    told = {(f.file, f.level): f.what for f in found}
    assert ("broken.png", "error") in told and ("plain.png", "error") in told
    assert "nothing in it is sharp" in told["blurred.png", "warning"] or "lacks" in told["blurred.png", "warning"]
    whats = " ".join(f"{f.file}: {f.what}" for f in found)
    for words in (
        "blurred.png: nothing in it is sharp", "small.png: 20x20 px", "again.png: the same as 0.png",
        "3.png: it has no caption", "again.png: its caption lacks 'fox'",
    ):  # fmt: skip
        assert words in whats or words.replace("again.png: the same as 0", "0.png: the same as again") in whats, words
    assert not any(f.file == "1.png" for f in found)
    assert contact_sheet(examples, found).width > 500


def test_words_that_the_model_cannot_tell_apart(tmp_path: Path) -> None:
    tiny = pipeline(tmp_path / "words")
    examples = folders.read(made.pictures(tmp_path / "a", 5))
    one = [f for f in lint(examples, size=32, trigger="zuri", pipeline=tiny) if not f.file]
    assert [f.level for f in one] == ["warning"] and "'zuri'" in one[0].what
    two = [f for f in lint(examples, size=32, trigger="zuri ozu", pipeline=tiny) if not f.file]
    assert two[0].level == "error"
    assert not [f for f in lint(examples, size=32, trigger="fox", pipeline=tiny) if not f.file]


def look(step: int, identity: float, **other: float) -> Look:
    base = {"strength": 1.0, "copied": 0.0, "leak": 0.0, "drift": 0.1, "palette": 5.0, "held": 0.1}
    return Look(step=step, identity=identity, **(base | other))


def test_the_choice_keeps_to_the_limits() -> None:
    limits = LIMITS["character"]
    looks = [look(100, 0.5), look(200, 0.9), look(300, 0.95, copied=0.5), look(400, 0.97, drift=0.9)]
    assert choose(looks, limits).look.step == 200
    assert choose([look(1, 0.8, drift=0.1), look(2, 0.82, drift=0.5)], limits).look.step == 1
    beyond = choose(looks[2:], limits)
    assert beyond.look.step == 400 and "drift 0.90 over 0.60" in beyond.reason
    assert [one.step for one in leading([*looks, look(200, 2.0, strength=0.7)], limits)] == [200, 100]


def test_a_run_that_gets_no_better_stops() -> None:
    limits = LIMITS["character"]
    rising = [look(i, 0.1 * i) for i in range(8)]
    assert not stalled(rising, limits)
    flat = [look(1, 0.9), *(look(i, 0.88, drift=0.1 + 0.05 * i) for i in range(2, 5))]
    assert stalled(flat, limits)
    assert not stalled([replace(one, drift=0.1) for one in flat], limits)


def test_prompts_with_and_without_the_name(tmp_path: Path) -> None:
    held = folders.read(made.pictures(tmp_path, 2))
    found = prompts_for(held, "fox", "dog", ["a fox jumps"])
    assert found.named[:2] == ("red car", "fox snow") and "a fox jumps" in found.named
    assert found.plain[1] == "dog snow" and len(found.plain) == len(found.named)
    assert without("Zuri on the beach, zurich", "zuri", "") == "on the beach, zurich"


@pytest.mark.parametrize("name", list(LAWS))
def test_noise_laws(name: str) -> None:
    share = (torch.arange(4000) + 0.5) / 4000
    for variant, tokens in ((DEV, 4096), (MINI, 64), (SCHNELL, 1024)):
        sigma = LAWS[name](share, tokens, variant)
        assert sigma.min() > 0 and sigma.max() <= 1 and sigma.dtype == torch.float32
    dev = LAWS[name](share, 4096, DEV).mean()
    expected = {"logit-normal": 0.5, "uniform": 0.5, "shifted": 0.71, "flux-shift": 0.684}
    if name in expected:
        assert dev == pytest.approx(expected[name], abs=0.03)


def test_few_steps_are_the_models_own() -> None:
    levels_ = LAWS["few-step"](shares(64, torch.Generator().manual_seed(0)), 4096, SCHNELL)
    assert sorted(set(levels_.tolist())) == [0.25, 0.5, 0.75, 1.0]


def test_eight_bits_keep_small_numbers() -> None:
    assert len(levels(True)) == len(levels(False)) == 256
    values = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)) * 10 ** torch.linspace(-4, 0, 1000)
    kept = Bytes.zeros(values, signed=True)
    assert torch.equal(kept.unpack(values), torch.zeros_like(values))
    kept.pack(values)
    apart = (kept.unpack(values) - values).abs()
    assert float((apart / values.abs().clamp(min=1e-9)).median()) < 0.03
    positive = Bytes.zeros(values, signed=False)
    positive.pack(values**2)
    assert float(((positive.unpack(values) - values**2).abs() / values**2).median()) < 0.02


@pytest.mark.parametrize("what", list(WHAT))
def test_presets_say_why(what: str) -> None:
    small, large = (preset(what, row, 12, {}, quant=None, vram=None) for row in (MINI, DEV))
    assert small.settings.batch > large.settings.batch and small.settings.rate > large.settings.rate
    assert all(reason.why for reason in (*small.reasons, *large.reasons))
    own = preset(what, DEV, 12, {"rank": 3, "law": "uniform"}, quant=None, vram=None)
    assert (own.settings.rank, own.settings.law) == (3, "uniform")
    few = preset(what, SCHNELL, 12, {}, quant=None, vram=None).settings
    assert (few.law, few.preserve) == ("few-step", "blank")


def test_presets_for_memory() -> None:
    found = [preset("character", DEV, 20, {}, quant=None, vram=gib) for gib in (48, 24, 16, 12, 8)]
    assert [one.quant for one in found] == [None, "fp8", "fp8", "fp8", "fp8"]
    swaps = [one.settings.swap for one in found]
    assert swaps[:2] == [0, 0] and 0 < swaps[2] < swaps[3] < swaps[4] < 57
    assert all(one.settings.size == 0 for one in found), "blocks that come and go cost time, and no pixel"
    small = preset("character", DEV, 20, {}, quant=None, vram=4)
    assert small.settings.swap == 57 and small.settings.size < 1024
    own = preset("character", DEV, 20, {"swap": 7}, quant="nf4", vram=8)
    assert (own.settings.swap, own.quant) == (7, "nf4")
    late = preset("character", DEV, 20, {}, quant=None, vram=12, choose=False)
    assert late.quant is None and late.settings.swap > swaps[3], "a model that is loaded is not packed any more"
    assert sum(parameters(DEV.shape)) == pytest.approx(11.9e9, rel=0.01)
    assert Kind.FILL.wide


def test_charts_are_well_formed() -> None:
    from xml.etree import ElementTree

    from fluxone.tune.chart import Line, chart

    lines = [Line(name="a <b>", points=[(1, 0.5), (9, 0.1)]), Line(name="c", points=[(4, 0.2)], dots=True)]
    made_ = ElementTree.fromstring(chart(lines, x="step", y="loss", log=True))
    assert len(made_.findall("polyline")) == 2 and len(made_.findall("text")) == 5 + 5 + 1 + 2
    assert chart([Line(name="none", points=[])], x="", y="") == ""


def test_a_word_that_most_references_carry() -> None:
    pictures = {name: Image.new("RGB", (4, 4), name) for name in ("red", "green", "blue", "white", "black")}
    says = {"red": "Lumo!", "green": "LUMO 24", "blue": "x lumo exit", "white": "exit", "black": ""}
    texts = {pictures[name].tobytes(): text for name, text in says.items()}

    def read(picture: Image.Image) -> str:
        return texts[picture.tobytes()]

    every = [pictures[name] for name in ("red", "green", "blue", "white")]
    (found,) = wordmarks(read, [*every, pictures["black"]], [pictures["black"]], [pictures["green"], pictures["white"]])
    assert (found.word, found.references, found.base, found.drawn) == ("lumo", 0.6, 0.0, 0.5)
    assert wordmarks(read, [pictures["black"]], [], []) == ()


def test_several_at_once(tmp_path: Path) -> None:
    made.pictures(tmp_path, 3)
    for n, text in enumerate(("zuri in the snow", "milo and zuri", "a red car")):
        (tmp_path / f"{n}.txt").write_text(text, encoding="utf-8")
    found = lint(folders.read(tmp_path), size=32, trigger="zuri, milo")
    assert [one.file for one in found if "lacks 'zuri' or 'milo'" in one.what] == ["2.png"]
    prompts = prompts_for([], "zuri, milo", "a girl")
    assert {text.split()[0] for text in prompts.named} == {"zuri", "milo"}
    assert all(text.startswith("a girl ") for text in prompts.plain)


def test_a_style_stands_after_what_is_drawn() -> None:
    found = prompts_for([], "lumo", "", style=True)
    assert all(text.endswith(", lumo") for text in found.named) and found.plain == found.others
