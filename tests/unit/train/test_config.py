"""A recipe's mistakes are found before anything runs, and told in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fluxone.errors import BadFile, BadRequest, UnknownName
from fluxone.storybook import WORLDS
from fluxone.train import config, objectives
from fluxone.train.config import Data
from fluxone.train.data.scenes import world_of

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))
GOOD = 'objective = "flow"\nout = "x"\nsteps = 3\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    read = config.read(path)
    assert read.objective in objectives.OBJECTIVES
    assert world_of(read.data).objects


def test_overrides_and_nested_tables(tmp_path: Path) -> None:
    read = config.read(write(tmp_path, GOOD + "[rates]\nmuon = 1\n[data]\nkinds = {one = 1.0}\n"), {"steps": 9})
    assert (read.steps, read.rates.muon, read.data.kinds) == (9, 1.0, {"one": 1.0})


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (GOOD + "stepz = 3\n", UnknownName, "stepz"),
        (GOOD + '[rates]\nmuon = "fast"\n', BadRequest, "muon"),
        (GOOD + "[data]\nsize = 1.5\n", BadRequest, "size"),
        (GOOD + "batch = true\n", BadRequest, "batch"),
        (GOOD + "batch = 0\n", BadRequest, "batch"),
        ('objective = "flow"\n', BadRequest, "out"),
        ("objective = \n", BadFile, "TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        config.read(write(tmp_path, text))


def test_missing_file_and_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no file"):
        config.read(tmp_path / "none.toml")
    with pytest.raises(UnknownName, match="flow"):
        objectives.make(config.read(write(tmp_path, GOOD.replace('"flow"', '"flaw"'))))
    with pytest.raises(UnknownName, match="cat"):
        world_of(config.read(write(tmp_path, GOOD + '[data]\nobjects = ["cta"]\n')).data)
    with pytest.raises(UnknownName, match="wear"):
        world_of(config.read(write(tmp_path, GOOD + "[data]\nedits = { waer = 3.0 }\n")).data)
    assert world_of(Data(world="mini", edits={"wear": 3.0})).edit_weights == {"wear": 3.0}


def test_what_a_recipe_does_not_say_of_the_world_is_the_worlds_own() -> None:
    row = WORLDS["mini"]
    assert world_of(Data(world="mini")) == row
    other = world_of(Data(world="mini", mirrored=not row.mirrored, random_words=0.5))
    assert other == replace(row, mirrored=not row.mirrored, random_words=0.5)
