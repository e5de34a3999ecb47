"""Rows and files that are no model, but add to one: Redux, and LoRAs with a row of their own.

    "redux", its folder or file  -->  the base model, the row, and a recipe that has it as `redux`: of a folder or file
                                      the model that lies with it, or else its row's
    "depth-lora"                 -->  the base model, the row, and a recipe that has it among its adapters
    "mini-depth"                 -->  the base model and the row; its file, which is small and inside the package, is
                                      merged into the weights (`lora.joining`), so that it is there for good
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from fluxone.errors import BadWeights, FluxoneError
from fluxone.recipe import Recipe
from fluxone.variants import VARIANTS, Kind, Variant
from fluxone.weights.keymap import TRANSFORMER
from fluxone.weights.load import resolve
from fluxone.weights.locate import INDEX
from fluxone.weights.parts import FOLDERS
from fluxone.weights.redux import NOTHING, Given, Redux, around, is_redux, load_redux, near, text_width
from fluxone.weights.safetensors import read_json


def on_base(source: str, variant: str | None, recipe: Recipe) -> tuple[str, str | None, Recipe]:
    """A source that only adds to a model as that model, and itself in the recipe; any other as it is.

    Returns:
        the source of the model, the name of the row whose defaults apply, the recipe.

    Raises:
        BadWeights: it is Redux for a model that is in no row.
    """
    row = VARIANTS.get(source) or next((row for row in VARIANTS.values() if row.base and row.repo == source), None)
    path = Path(source).expanduser()
    if row is None and path.exists() and is_redux(path):
        if (beside := _model_near(path)) is not None:
            defaults = next(row.name for row in VARIANTS.values() if row.base and Kind.PROMPT in row.takes)
            return str(beside), variant or defaults, replace(recipe, redux=recipe.redux or source)
        row = replace(_made_for(path), repo=source, assets="")
    if row is None or not row.base:
        return source, variant, recipe
    if inside(source) is not None:
        return row.base, variant or row.name, recipe
    if row.lora:
        adapter = f"{row.repo}/{row.file}:{row.scale:g}"
        return row.base, variant or row.name, replace(recipe, adapters=(adapter, *recipe.adapters))
    own = source if row.repo == source else row.name
    return row.base, variant or row.name, replace(recipe, redux=recipe.redux or own)


def inside(source: str) -> Variant | None:
    """The row of an adapter inside the package that a source names, or None."""
    row = VARIANTS.get(source)
    return row if row is not None and row.lora and row.assets else None


def redux_of(
    recipe: Recipe, variant: Variant, place: Path | None, given: Given = NOTHING
) -> Callable[[], Redux] | None:
    """What loads the Redux that the recipe asks for, or else the one that lies with the model; None if there is none.

    Args:
        place: the model's folder or file.
        given: parts of what is asked for that are in memory; those of one that merely lies near are its own.

    Raises:
        UserError: what is asked for cannot be found or fetched. Loading it: it cannot be read or completed, or is for
            another model.
    """
    path: Path | nn.Module
    if given.embedder is not None:
        path = given.embedder
    elif recipe.redux is not None:
        _, path = resolve(recipe.redux, token=recipe.token)
    elif place is not None and (found := near(place, variant.shape.text_dim)) is not None:
        path, given = found, NOTHING
    else:
        return None
    encoder = given.encoder if recipe.siglip is None else Path(recipe.siglip).expanduser()
    load = partial(load_redux, path, variant.shape, recipe.dtype or "float32")
    return partial(load, encoder=encoder, extractor=given.extractor)


def _model_near(path: Path) -> Path | None:
    """The one model that lies in a Redux's folder, or in or beside it, and fits it."""
    width = text_width(path)
    places = [path, *around(path)]
    fitting = [place for place in places if (place / INDEX).is_file() and _reads(place, width)]
    return fitting[0] if len(fitting) == 1 else None


def _reads(place: Path, width: int) -> bool:
    try:
        return read_json(place / FOLDERS[TRANSFORMER] / "config.json").get("joint_attention_dim") == width
    except FluxoneError:
        return False


def _made_for(path: Path) -> Variant:
    """The row of a Redux, told by the width of the text of its base model."""
    width = text_width(path)
    rows = [row for row in VARIANTS.values() if row.base and Kind.PROMPT in row.takes]
    fitting = [row for row in rows if VARIANTS[row.base].shape.text_dim == width]
    if not fitting:
        raise BadWeights(
            f"{path} is Redux for a model with {width} text channels, which no row has",
            hint="give that model, and this as redux",
        )
    return fitting[0]
