"""Redux: files, what is said of wrong ones, weights and strength, additions that stand on their base model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fluxone import provenance
from fluxone.assembly import connect
from fluxone.conditions.redux import Mixing, beside, by_diffusers, summed, taken_in
from fluxone.errors import BadFile, BadRequest, BadWeights, MissingParts
from fluxone.nn.siglip import ReduxEmbedder, SiglipEncoder
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from fluxone.request import Request
from fluxone.shapes import Intake, ReduxShape, SiglipShape
from fluxone.text.encode import Text
from fluxone.variants import VARIANTS, Kind
from fluxone.weights import additions
from fluxone.weights.redux import load_redux, read_intake, siglip_shape
from unit.tiny import TINY, bundle

SIGLIP = SiglipShape(hidden=64, layers=1, heads=1, mlp=48, size=28, patch=14)


def picture(seed: int = 0, width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def write(folder: Path, text: int = 24, image: int = 64) -> Path:
    """A Redux as a file, with its encoder beside it, neither with a config."""
    torch.manual_seed(1)
    folder.mkdir(exist_ok=True)
    save_file(ReduxEmbedder(ReduxShape(image=image, text=text)).state_dict(), folder / "flux1-redux-dev.safetensors")
    save_file(SiglipEncoder(SIGLIP).state_dict(), folder / "sigclip_vision_patch14.safetensors")
    return folder / "flux1-redux-dev.safetensors"


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("redux")
    made = bundle(folder / "tiny")
    redux = load_redux(write(folder / "redux"), TINY.shape, torch.float32)
    row, hashes = replace(TINY, takes=(Kind.PROMPT,)), {**made.hashes, **redux.hashes}
    return connect(replace(made, redux=redux, variant=row, hashes=hashes), Recipe(device="cpu"))


def latents(pipe: Pipeline, **more: Any) -> torch.Tensor:
    return list(pipe.steps(Request(prompt="a red car", steps=2, **more)))[-1].x


def test_each_picture_its_weight_and_the_strength_matter(pipe: Pipeline) -> None:
    words = latents(pipe)
    one = latents(pipe, image_prompts=(picture(),))
    assert not torch.allclose(words, one, atol=1e-3)
    others = [
        {"image_prompts": (picture(1),)},
        {"image_prompts": (picture(),), "image_prompt_strength": 0.5},
        {"image_prompts": (picture(), picture(1))},
        {"image_prompts": (picture(), picture(1)), "image_prompt_weights": (1.0, 0.2)},
        {"image_prompts": (picture(), picture(1)), "image_prompt_mix": "sum"},
    ]
    drawn = [one, *(latents(pipe, **more) for more in others)]
    for i, first in enumerate(drawn):
        assert not any(torch.allclose(first, second, atol=1e-4) for second in drawn[i + 1 :]), i
    halves = latents(pipe, image_prompts=(picture(), picture()), image_prompt_mix="sum")
    torch.testing.assert_close(halves, one, rtol=0, atol=1e-4)  # a picture mixed with itself is itself


def test_a_picture_of_a_batch_is_that_drawn_alone(pipe: Pipeline) -> None:
    given = {"image_prompts": (picture(),)}
    together = latents(pipe, count=2, **given)
    torch.testing.assert_close(together[1:], latents(pipe, seed=1, **given), rtol=0, atol=1e-5)


def test_mixing_by_numbers() -> None:
    text = Text(txt=torch.ones(2, 3, 4), pooled=torch.ones(2, 5), cut=(0, 0), clip_cut=(0, 0))
    seen = torch.stack((torch.full((6, 4), 1.0), torch.full((6, 4), 10.0)))
    out = beside(text, seen, Mixing(weights=(1.0, 0.5), strength=2.0))
    assert out.txt.shape == (2, 15, 4) and out.txt[0, :, 0].tolist() == [1.0] * 3 + [2.0] * 6 + [10.0] * 6
    mixing = by_diffusers(2, [1.0, 0.5], [0.5, 0.25], 1.0, "sum")
    out = summed(text, seen, mixing)
    assert out.txt.shape == (2, 9, 4) and out.txt[1, :, 0].tolist() == [1.5] * 3 + [6.0] * 6
    assert out.pooled.unique().tolist() == [0.75]
    with pytest.raises(BadRequest, match="3 of pooled_prompt_embeds_scale for 2 image_prompts"):
        by_diffusers(2, 1.0, [1, 2, 3], 1.0, "sum")


def test_arrays_and_tensors_are_pictures_too() -> None:
    intake = Intake(height=28, width=20, mean=(0.1, 0.2, 0.3), spread=(0.5, 0.4, 0.3))
    image = picture()
    array = np.asarray(image, dtype=np.float32) / 255
    wanted = taken_in(image, intake)
    assert wanted.shape == (1, 3, 28, 20)
    for other in (array, torch.from_numpy(array).permute(2, 0, 1)):
        assert torch.equal(taken_in(other, intake), wanted)


def test_records_tell_of_image_prompts_and_no_folders(pipe: Pipeline, tmp_path: Path) -> None:
    file = write(tmp_path / "redux")
    result = pipe(Request(prompt="a fox", steps=1, image_prompts=(picture(),), image_prompt_weights=(0.5,)))
    recipe = replace(pipe.recipe, redux=str(file), siglip=str(file))
    entry = provenance.record(result.request, model="tiny", source="tiny", hashes=pipe.hashes, recipe=recipe)
    assert {"redux", "siglip"}.isdisjoint(entry.recipe) and {"redux", "image encoder"} <= entry.hashes.keys()
    named = provenance.record(
        result.request, model="tiny", source="tiny", hashes={}, recipe=replace(recipe, redux="redux")
    )
    assert named.recipe["redux"] == "redux"
    path = provenance.save(result.images[0], tmp_path / "a.png", entry)
    assert provenance.read(path) == entry
    with pytest.raises(BadFile, match="made from 1 image_prompts, 0 are given"):
        provenance.request_of(path)
    with pytest.raises(BadFile, match="as image_prompts"):
        provenance.request_of(path, image_prompts=[picture(3)])
    again = pipe(provenance.request_of(path, image_prompts=[picture()]))
    assert np.array_equal(np.asarray(again.images[0]), np.asarray(result.images[0]))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"image_prompts": (picture(),), "image_prompt_weights": (1.0, 2.0)}, "2 weights for 1 image prompts"),
        ({"image_prompt_mix": "besides"}, "did you mean 'beside'"),
        ({"image_prompt_strength": float("nan")}, "strength or weight of image prompts is nan"),
        ({"image_prompts": (picture(),) * 17}, "17 image prompts are given"),
    ],
)
def test_requests_that_cannot_be(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said):
        Request(**asked)


def test_models_without_it_say_which_have_it(tmp_path: Path) -> None:
    plain = connect(bundle(tmp_path), Recipe(device="cpu"))
    with pytest.raises(BadRequest, match="tiny takes no image prompt; models that do: mini-redux, redux"):
        plain(Request(prompt="a", image_prompts=(picture(),)))


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    def load(path: Path, **more: Path) -> None:
        load_redux(path, TINY.shape, torch.float32, **more)

    with pytest.raises(BadWeights, match="gives 20 text channels, the transformer takes 24"):
        load(write(tmp_path / "a", text=20))
    with pytest.raises(BadWeights, match=r"gives 64 channels, .* takes 32"):
        load(write(tmp_path / "b", image=32))
    file = write(tmp_path / "c")
    encoder = tmp_path / "c" / "sigclip_vision_patch14.safetensors"
    with pytest.raises(BadWeights, match="is no SigLIP picture encoder: it is a Redux"):
        load(file, encoder=file)
    with pytest.raises(BadWeights, match="is no Redux: it is a SigLIP"):
        load(encoder)
    encoder.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(MissingParts, match="without its picture encoder, SigLIP; give siglip"):
        load(file)
    load(file, encoder=tmp_path / "elsewhere.safetensors")


def test_how_pictures_are_taken_in_is_read(tmp_path: Path) -> None:
    plain = {"size": {"height": 28, "width": 28}, "resample": 2, "image_mean": [0, 0, 0.5], "image_std": [1, 1, 2]}
    assert read_intake(plain, SIGLIP, "x") == Intake(height=28, width=28, filter=2, mean=(0, 0, 0.5), spread=(1, 1, 2))
    other = {"height": 30, "width": 28}
    for wrong in ({"size": other}, {"image_std": [0, 1, 1]}, {"do_resize": False}, {"resample": 9}):
        with pytest.raises(BadFile):
            read_intake(plain | wrong, SIGLIP, "x")


def test_a_whole_siglip_with_its_config(tmp_path: Path) -> None:
    """As google/siglip-so400m-patch14-384 is published: text half, head and config of both halves in one."""
    from fluxone.weights.beside import open_beside

    state = SiglipEncoder(SIGLIP).state_dict()
    more = {"logit_scale": torch.zeros(1), "logit_bias": torch.zeros(1), "text_model.head.bias": torch.zeros(3)}
    save_file(state | more | {"vision_model.head.probe": torch.zeros(1, 1, 64)}, tmp_path / "model.safetensors")
    vision = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = {"model_type": "siglip", "text_config": {}, "vision_config": vision | {"image_size": 30, "patch_size": 14}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    part = open_beside(tmp_path, "SigLIP picture encoder")
    assert siglip_shape(part) == replace(SIGLIP, heads=2, size=30)


def test_additions_stand_on_the_model_that_their_row_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Recipe()
    assert additions.on_base("dev", None, plain) == ("dev", None, plain)
    assert additions.on_base("redux", None, plain) == ("dev", "redux", replace(plain, redux="redux"))
    repo = VARIANTS["redux"].repo
    assert additions.on_base(repo, "krea", plain) == ("dev", "krea", replace(plain, redux=repo))
    name, row, recipe = additions.on_base("depth-lora", None, Recipe(adapters=("style.safetensors",)))
    depth = "black-forest-labs/FLUX.1-Depth-dev-lora/flux1-depth-dev-lora.safetensors:0.85"
    assert (name, row, recipe.adapters) == ("dev", "depth-lora", (depth, "style.safetensors"))
    file = str(write(tmp_path))
    with pytest.raises(BadWeights, match=re.escape("Redux for a model with 24 text channels, which no row has")):
        additions.on_base(file, None, plain)
    base = replace(TINY, name="small")
    small = replace(base, name="small-redux", base="small", takes=(Kind.PROMPT,))
    monkeypatch.setattr(additions, "VARIANTS", {"small": base, "small-redux": small})
    assert additions.on_base(file, None, plain) == ("small", "small-redux", replace(plain, redux=file))
