"""The mini family: every command with its own model by default, on tiny random weights; and the shipped files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from e2e import family
from fluxone import FluxPipeline, storybook
from fluxone.storybook import record
from fluxone.variants import FAMILY, MINI, VARIANTS, Kind, Variant
from fluxone.weights import configs, shipped
from fluxone.weights.additions import inside
from fluxone.weights.safetensors import read_json

Fluxone = Callable[..., Any]
QUICK = ("--steps", 2, "-o", "out.png", "--quiet")
NAMES = [row.name for row in FAMILY]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"
BYTES = 35 * 10**6  # of the whole family
THERE = {row.name: shipped.place(row).exists() for row in FAMILY}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of assets with a tiny family."""
    assets = tmp_path_factory.mktemp("package") / "assets"
    family.write(assets)
    return assets


@pytest.fixture
def assets(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in place of the package's, with the rows of every kind."""
    monkeypatch.setattr(shipped, "ASSETS", made)
    for row in family.MORE:
        monkeypatch.setitem(VARIANTS, row.name, row)
    return made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two pictures, a mask over the left half of the first, and a map."""
    noise = np.random.default_rng(0)
    for name in ("one.png", "two.png", "map.png"):
        Image.fromarray(noise.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    mask = Image.new("L", (60, 40))
    mask.paste(255, (0, 0, 30, 40))
    mask.save(tmp_path / "mask.png")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


# what is typed -> the row that draws, and what replay is given
COMMANDS: dict[str, tuple[str, str]] = {
    "generate cat --size 64x64": ("mini", ""),
    "generate cat --size 64x64 --raw": ("mini-raw", ""),
    "ultra cat --size 64x64": ("mini", ""),
    "ultra cat --size 64x64 --raw": ("mini-raw", ""),
    "generate cat --size 64x64 --model mini-schnell": ("mini-schnell", ""),
    "edit one.png night --own-size": ("mini-kontext", "--reference one.png"),
    "edit one.png two.png night --own-size": ("mini-kontext", "--reference one.png --reference two.png"),
    "edit one.png night --own-size --model mini-edits": ("mini-edits", "--reference one.png"),
    "fill one.png mask.png cat": ("mini-fill", "--init one.png --mask mask.png"),
    "expand one.png cat --left 16": ("mini-fill", "--init one.png"),
    "control depth map.png cat --map": ("mini-depth", "--control map.png"),
    "control pose map.png cat --map": ("mini-pose", "--control map.png"),
    "control canny one.png cat": ("mini-canny", "--control one.png"),
    "vary one.png --size 64x64": ("mini-redux", "--image-prompt one.png"),
    "vary one.png two.png cat --size 64x64": ("mini-redux", "--image-prompt one.png --image-prompt two.png"),
}


@pytest.mark.parametrize("typed", COMMANDS)
def test_each_command_has_a_model_by_default_and_replays(
    fluxone: Fluxone, assets: Path, files: Path, typed: str
) -> None:
    name, given = COMMANDS[typed]
    if "canny" in typed:
        pytest.importorskip("cv2")
    (record,) = json.loads(fluxone(*typed.split(), *QUICK, "--json").stdout)["images"]
    assert record["model"] == name
    row = family.ROWS[name]
    added = {"lora": f"lora {name}", "redux": "redux"}["redux" if Kind.PROMPT in row.takes else "lora"]
    assert set(record["hashes"]) >= {"transformer", "autoencoder", "t5", "clip", *([added] if row.base else [])}
    again = json.loads(fluxone("replay", "out.png", *given.split(), "--json").stdout)
    assert again["equal"], again


@pytest.mark.parametrize("name", family.ROWS)
def test_the_python_door_opens_every_row(assets: Path, name: str) -> None:
    pipe = FluxPipeline.from_pretrained(name)
    row = family.ROWS[name]
    found = pipe.pipeline.variant
    assert (found.name, found.steps, found.shifted) == (row.name, row.steps, row.shifted)
    assert set(found.takes) == {*row.takes, Kind.PROMPT}  # Redux lies in the folder: each of them hears pictures
    picture = Image.effect_noise((64, 48), 60).convert("RGB")
    given: dict[Kind, dict[str, Any]] = {
        Kind.REFERENCE: {"image": picture, "reference_images": [picture.rotate(180)], "auto_resize": False},
        Kind.FILL: {"image": picture, "mask_image": picture},
        Kind.CONTROL: {"control_image": picture},
        Kind.PROMPT: {"image_prompts": [picture]},
    }
    kwargs = {key: value for kind in row.takes for key, value in given[kind].items()}
    out = pipe("a cat", height=48, width=64, num_inference_steps=2, seed=1, output_type="np", **kwargs).images
    assert out.shape == (1, 48, 64, 3) and np.isfinite(out).all()


def test_the_list_tells_the_family(fluxone: Fluxone, assets: Path) -> None:
    rows = {row["name"]: row for row in json.loads(fluxone("models", "list", "--json").stdout)}
    assert all(rows[name]["here"] and rows[name]["state"] == "in the package" for name in NAMES)
    assert rows["mini-schnell"]["told"] == 3.0 and "3, always" in fluxone("models", "list").stdout


def test_plans_are_made_for_additions_too(fluxone: Fluxone, assets: Path) -> None:
    for name in ("mini-schnell", "mini-fill", "mini-redux"):
        assert json.loads(fluxone("plan", "--model", name, "--machine", "cpu", "--json").stdout)


def test_a_family_member_that_is_not_there_is_said(
    fluxone: Fluxone, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    rows = {row["name"]: row for row in json.loads(fluxone("models", "list", "--json").stdout)}
    assert rows["mini-depth"]["state"] == "not in this package" and not rows["mini-depth"]["here"]
    assert "install fluxone again" in fluxone("generate", "cat", "--model", "mini", code=2).stderr
    for command, rows in (("edit", "kontext"), ("control depth", "depth, depth-lora"), ("vary", "redux")):
        said = fluxone(*command.split(), "one.png", "x", code=2).stderr
        assert "needs a model that takes a" in said and f"{rows}, or" in said
    assert "add --model with one of mini-pose" in fluxone("control", "pose", "one.png", "x", code=2).stderr


def test_an_asked_guidance_does_not_reach_a_distilled_row(fluxone: Fluxone, assets: Path, tmp_path: Path) -> None:
    line = ("generate", "cat", "--model", "mini-schnell", "--size", "32x32", "--steps", 2)
    said = fluxone(*line, "-o", "one.png", "--guidance", 7).stderr
    assert "mini-schnell is always told guidance 3" in said
    fluxone(*line, "-o", "two.png")
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png"))


def test_the_manner_is_words_after_the_prompt(assets: Path) -> None:
    kwargs: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 2, "seed": 1, "output_type": "np"}
    plain, raw = (FluxPipeline.from_pretrained(name) for name in ("mini", "mini-photo"))
    asked = plain("a cat, as a photo", **kwargs).images
    assert np.array_equal(raw("a cat.", **kwargs).images, asked)
    assert np.array_equal(raw("a cat, as a photo", **kwargs).images, asked)
    assert not np.array_equal(plain("a cat", **kwargs).images, asked)


def test_a_users_adapters_come_and_go_beside_the_rows_own(assets: Path) -> None:
    kwargs: dict[str, Any] = {"height": 32, "width": 32, "seed": 1, "output_type": "np"}
    pipe = FluxPipeline.from_pretrained("mini-schnell")
    before = pipe("a cat", **kwargs).images
    base = FluxPipeline.from_pretrained("mini")
    plain = base("a cat", **kwargs, num_inference_steps=4, schedule="linear").images
    assert np.abs(before - plain).max() > 0.01
    pipe.load_lora_weights("mini-schnell", adapter_name="again")  # an adapter by its row's name
    assert np.abs(pipe("a cat", **kwargs).images - before).max() > 0.01
    pipe.unload_lora_weights()
    assert np.array_equal(pipe("a cat", **kwargs).images, before)


def test_a_merged_folder_is_the_same_model(fluxone: Fluxone, assets: Path, files: Path, tmp_path: Path) -> None:
    line = ("control", "depth", "map.png", "cat", "--map", "--steps", 2, "--quiet", "-o")
    fluxone(*line, "one.png")
    fluxone("lora", "merge", "mini", "mini-depth", "merged")
    assert sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors")) == []
    assert not (tmp_path / "merged" / "redux").exists()
    fluxone(*line, "two.png", "--model", "./merged", "--variant", "mini-depth")
    assert np.abs(pixels(tmp_path / "one.png") - pixels(tmp_path / "two.png")).max() <= 1


# What is shipped. These skip a file that is not there, but for the first, which names every one that is missing.


def test_every_file_of_the_family_is_in_the_package() -> None:
    missing = [name for name, there in THERE.items() if not there]
    assert not missing, f"not in the package yet: {', '.join(missing)}"
    files = [path for path in (shipped.ASSETS / MINI.assets).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < BYTES


def test_the_rows_say_what_the_files_are() -> None:
    folder = shipped.place(MINI)
    flux = folder / "transformer" / "config.json"
    assert configs.read_flux(read_json(flux), flux) == MINI.shape
    words = read_json(folder / "tokenizer_2" / "tokenizer_config.json")
    assert words["model_max_length"] == MINI.text_tokens


def test_every_word_of_its_world_is_a_token() -> None:
    """A world whose tables grew after the mini was trained would ask for words that it never read."""
    folder = shipped.place(MINI)
    tokenizer = read_json(folder / "tokenizer_2" / "tokenizer.json")
    world = record.read(folder)
    assert world is not None
    words = storybook.vocabulary(world)
    unknown = set(words) - tokenizer["model"]["vocab"].keys() - {"a", "an", "the"}
    assert not unknown, f"not in the tokenizer: {', '.join(sorted(unknown))}"


def test_the_page_says_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("mini_vocabulary")
    text, world = PAGE.read_text(encoding="utf-8"), record.read(shipped.place(MINI))
    assert tool.written(text, world) == text, "run python tools/mini_vocabulary.py docs/models.md"


def shipped_row(name: str) -> Variant:
    if not THERE[name]:
        pytest.skip(f"{name} is not in the package yet")
    return next(row for row in FAMILY if row.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_draws_at_its_defaults(name: str) -> None:
    row = shipped_row(name)
    pipe = FluxPipeline.from_pretrained(name)
    if inside(name):
        assert f"lora {name}" in pipe.pipeline.hashes
    base = FluxPipeline.from_pretrained("mini")("a red car", seed=3).images[0]
    mask = Image.new("L", base.size)
    mask.paste(255, (0, 0, base.width // 2, base.height))
    given: dict[Kind, dict[str, Any]] = {
        Kind.REFERENCE: {"image": base},
        Kind.FILL: {"image": base, "mask_image": mask},
        Kind.CONTROL: {"control_image": base.convert("L").convert("RGB")},
        Kind.PROMPT: {"image_prompts": [base]},
    }
    kwargs = {key: value for kind in row.takes for key, value in given[kind].items()}
    image = pipe("a blue house in the snow", seed=0, **kwargs).images[0]
    assert image.size == (row.size, row.size)
    assert np.asarray(image).std() > 20, "a picture, not one grey"
