"""The mini family in diffusers: its own pipelines load base, adapters and merged folders, and draw the same pictures.

The same tests hold a family of tiny random weights, and the one inside the package.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from e2e import family
from fluxone import FluxPipeline
from fluxone.lora.adapters import Strength
from fluxone.lora.load import load_lora
from fluxone.lora.merge import merge
from fluxone.lora.save import save_lora
from fluxone.variants import FAMILY, MINI, MINI_REDUX, VARIANTS, Kind, Variant
from fluxone.weights import shipped
from parity.conftest import TINIES, build
from parity.test_pipeline import assert_close, start

pytest.importorskip("peft")

PACKAGE = shipped.ASSETS
SIDE = 64  # px: a picture need not be good to be the same
DRAWN = [row.name for row in family.ROWS.values() if Kind.PROMPT not in row.takes]
ADAPTED = [row.name for row in FAMILY if row.lora]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of assets with a family whose base diffusers has made."""
    assets = tmp_path_factory.mktemp("parity") / "assets"
    folder = assets / MINI.assets
    build(TINIES["dev"]).save_pretrained(folder)
    ours = FluxPipeline.from_pretrained(str(folder))
    for file, row in family.LORAS.items():
        save_lora(family.adapter(ours.bundle.transformer, row), folder / file, "diffusers")
    family.write_redux(folder / "redux", TINIES["dev"].text)
    return assets


@pytest.fixture(params=["tiny", "shipped"])
def assets(request: pytest.FixtureRequest, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for the package's folder of assets."""
    place = tiny if request.param == "tiny" else PACKAGE
    monkeypatch.setattr(shipped, "ASSETS", place)
    for row in family.MORE:
        monkeypatch.setitem(VARIANTS, row.name, row)
    return place


def base_of(row: Variant, folder: Path) -> Any:
    """Diffusers' pipeline of a row on the family's base, or on a merged folder."""
    pipe = getattr(diffusers, row.pipeline).from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if not row.shifted:
        pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=row.shift, use_dynamic_shifting=False)
    return pipe


def pictures(row: Variant) -> dict[str, Any]:
    """What a row is given besides words, in diffusers' names."""
    image = start(SIDE, SIDE)
    mask = Image.new("L", image.size)
    mask.paste(255, (0, 0, SIDE // 2, SIDE))
    given: dict[Kind, dict[str, Any]] = {
        Kind.REFERENCE: {"image": image},
        Kind.FILL: {"image": image, "mask_image": mask, "strength": 1.0},
        Kind.CONTROL: {"control_image": image},
    }
    return {key: value for kind in row.takes for key, value in given.get(kind, {}).items()}


def compared(theirs: Any, row: Variant, assets: Path) -> None:
    """The same call to diffusers' pipeline and to ours of that row."""
    if not shipped.place(row).exists():
        pytest.skip(f"{row.name} is not in the package yet")
    ours = FluxPipeline.from_pretrained(row.name, torch_dtype=torch.float32, device="cpu")
    tokens = ours.pipeline.variant.text_tokens if assets == PACKAGE else 32
    kwargs = {
        "height": SIDE,
        "width": SIDE,
        "num_inference_steps": 3,
        "guidance_scale": row.guidance,
        "max_sequence_length": tokens,
        "output_type": "np",
        **pictures(row),
    }
    said = "a red fox to the left of a house"
    more: dict[str, Any] = {"max_area": SIDE**2, "_auto_resize": False} if "Kontext" in type(theirs).__name__ else {}
    theirs_said = f"{said}, {row.manner}" if row.manner else said
    expected = theirs(prompt=theirs_said, **kwargs, **more, generator=torch.manual_seed(3)).images
    resize = {"auto_resize": False} if more else {}
    assert_close(expected, ours(said, **kwargs, **resize, generator=torch.manual_seed(3)).images)


@pytest.mark.parametrize("name", DRAWN)
def test_diffusers_draws_the_same(assets: Path, name: str) -> None:
    """With `load_lora_weights` where the row is an adapter."""
    row = family.ROWS[name]
    if not shipped.place(row).exists():
        pytest.skip(f"{name} is not in the package yet")
    theirs = base_of(kontext(row), assets / MINI.assets)
    if row.lora:
        theirs.load_lora_weights(str(shipped.place(row)))
    compared(theirs, row, assets)


@pytest.mark.parametrize("name", ADAPTED)
def test_diffusers_draws_the_same_from_a_merged_folder(assets: Path, name: str, tmp_path: Path) -> None:
    """As `fluxone lora merge mini mini-depth FOLDER` writes it, to the rounding of the base's own type."""
    row = family.ROWS[name]
    if not shipped.place(row).exists():
        pytest.skip(f"{name} is not in the package yet")
    merge("mini", [(load_lora(name), Strength(scale=row.scale))], tmp_path / "merged")
    theirs = base_of(kontext(row), tmp_path / "merged")
    ours = FluxPipeline.from_pretrained(str(tmp_path / "merged"), torch_dtype=torch.float32, variant=name)
    assert ours.pipeline.variant.takes == row.takes
    ours_state, theirs_state = ours.transformer.img_in.weight, theirs.transformer.x_embedder.weight
    assert torch.equal(ours_state, theirs_state) and ours_state.shape[1] == theirs.transformer.config.in_channels
    kwargs = {
        "height": SIDE, "width": SIDE, "num_inference_steps": 2, "guidance_scale": row.guidance,
        "max_sequence_length": 32, "output_type": "np", **pictures(row),
    }  # fmt: skip
    more: dict[str, Any] = {"max_area": SIDE**2, "_auto_resize": False} if Kind.REFERENCE in row.takes else {}
    resize = {"auto_resize": False} if more else {}
    source = torch.Generator().manual_seed
    expected = theirs(prompt="a fox", **kwargs, **more, generator=source(3)).images
    assert_close(expected, ours("a fox", **kwargs, **resize, generator=source(3)).images)


def kontext(row: Variant) -> Variant:
    """The row, by the pipeline of diffusers that can be given what it takes."""
    return row if Kind.REFERENCE not in row.takes else replace(row, pipeline="FluxKontextPipeline")


def test_diffusers_prior_says_the_same_of_pictures(assets: Path) -> None:
    row = MINI_REDUX
    if not shipped.place(row).exists():
        pytest.skip("no Redux comes with the package")
    theirs = base_of(MINI, assets / MINI.assets)
    names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    parts = {name: getattr(theirs, name) for name in names}
    prior = diffusers.FluxPriorReduxPipeline.from_pretrained(shipped.place(row), torch_dtype=torch.float32, **parts)
    said = prior(image=start(SIDE, SIDE), prompt="a fox")
    kwargs = {"height": SIDE, "width": SIDE, "num_inference_steps": 2, "output_type": "np"}
    expected = theirs(
        prompt_embeds=said.prompt_embeds,
        pooled_prompt_embeds=said.pooled_prompt_embeds,
        guidance_scale=row.guidance,
        generator=torch.manual_seed(3),
        **kwargs,
    ).images
    ours = FluxPipeline.from_pretrained(row.name, torch_dtype=torch.float32, device="cpu")
    kwargs |= {"max_sequence_length": 512, "generator": torch.manual_seed(3)}
    assert_close(expected, ours("a fox", image_prompts=[start(SIDE, SIDE)], **kwargs).images)


def test_the_adapters_matter(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "ASSETS", tiny)
    drawn = []
    for name in ("mini", "mini-schnell"):
        pipe = FluxPipeline.from_pretrained(name)
        kwargs = {"height": SIDE, "width": SIDE, "num_inference_steps": 2, "output_type": "np", "seed": 1}
        drawn.append(pipe("a fox", schedule="linear", guidance_scale=3.0, **kwargs).images)
    assert np.abs(drawn[0] - drawn[1]).max() > 0.01
