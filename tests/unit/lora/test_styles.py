"""Every published style loads at FLUX.1's full size, on the meta device: every key used, every shape fitting."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from fluxone.errors import BadWeights
from fluxone.lora.formats import FORMATS
from fluxone.lora.load import check_fit, read_lora, shapes_of
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.shapes import ClipShape, FluxShape, T5Shape
from unit.lora.styles import STYLES, on_meta, shapes

CONTROL = ("depth", "the same control")


@cache
def full() -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of FLUX.1-dev's networks."""
    with torch.device("meta"):
        parts = {"transformer": Flux(FluxShape()), "t5": T5Encoder(T5Shape()), "clip": ClipTextEncoder(ClipShape())}
    return {name: shapes_of(module) for name, module in parts.items()}


@pytest.mark.parametrize("style", STYLES)
def test_every_key_of_a_published_style_is_used(style: str) -> None:
    lora = read_lora(on_meta(style), place=style)
    assert lora.format == STYLES[style]["format"]
    assert lora.used.keys() == shapes(style).keys()
    check_fit(lora, full(), 3072)
    changed = {delta.target.name for delta in lora.deltas}
    assert {name for name in lora.used.values() if name} <= changed | {
        name.replace(".weight", ".bias") for name in changed
    } | {name.replace(".bias", ".weight") for name in changed}


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_of_exactly_one_format(style: str) -> None:
    keys = [key for key in shapes(style) if not key.startswith("bundle_emb.")]
    assert [form.name for form in FORMATS.values() if form.recognise(keys)] == [STYLES[style]["format"]]


def test_every_format_has_a_style() -> None:
    assert {style["format"] for style in STYLES.values()} == set(FORMATS)


@pytest.mark.parametrize("style", [name for name in STYLES if "t5" not in str(STYLES[name]["keys"])])
def test_each_key_belongs_to_one_format(style: str) -> None:
    """Taken one by one, so that no mixture of two styles can look like one."""
    for key in list(shapes(style))[:: max(1, len(shapes(style)) // 40)]:
        if not key.startswith(("bundle_emb.", "lora_te", "text_encoder")):
            assert sum(form.recognise([key]) for form in FORMATS.values()) == 1, key


@pytest.mark.parametrize("style", STYLES)
def test_a_file_in_two_styles_is_refused(style: str) -> None:
    own = STYLES[style]["format"]
    alone = all(key.startswith(("lora_te", "text_encoder", "bundle_emb")) for key in shapes(style))
    other = "XLabs: double blocks" if own != "xlabs" else "kohya: transformer"
    if alone:
        pytest.skip("encoders' names are shared by styles")
    with pytest.raises(BadWeights, match="mixes the styles"):
        read_lora(on_meta(style) | on_meta(other), place="mixed")


@pytest.mark.parametrize("style", STYLES)
def test_one_unknown_key_refuses_the_file(style: str) -> None:
    with pytest.raises(BadWeights, match=r"1 keys of \d+ that mean nothing here: strange.thing.lora_A.weight"):
        read_lora(on_meta(style) | {"strange.thing.lora_A.weight": torch.zeros(1)}, place="odd")


@pytest.mark.parametrize("style", [name for name in STYLES if not name.startswith("ComfyUI: diffs")])
def test_half_of_a_pair_refuses_the_file(style: str) -> None:
    tensors = on_meta(style)
    halves = ("up.weight", "lokr_w1", "hada_w1_a")
    victim = next(key for key in tensors if key.endswith(halves) or re.search(r"\.lora_(up|B)\.(?!bias)", key))
    del tensors[victim]
    with pytest.raises(BadWeights, match="mean nothing here"):
        read_lora(tensors, place="half")


def test_widths_are_named_where_a_file_is_of_another_size() -> None:
    small = Flux(FluxShape(hidden=192, heads=2, axes=(32, 32, 32), double_blocks=1, single_blocks=1))
    lora = read_lora(on_meta("kohya: transformer"), place="big.safetensors")
    with pytest.raises(BadWeights, match="made for a network 3072 wide, this model is 192 wide"):
        check_fit(lora, {"transformer": shapes_of(small)}, 192)


def test_blocks_and_encoders_that_a_model_lacks_are_named() -> None:
    with torch.device("meta"):
        short = Flux(FluxShape(double_blocks=18))
    lora = read_lora(on_meta("kohya: transformer, CLIP and T5"), place="x")
    with pytest.raises(BadWeights, match=r"lacks: transformer double_blocks\.18\.img_attn\.qkv\.weight, clip text_m"):
        check_fit(lora, {"transformer": shapes_of(short)}, 3072)
