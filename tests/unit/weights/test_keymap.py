"""Every format is recognised by itself alone, and every native name finds its way there and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fluxone.errors import BadWeights
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.weights.fill import load_module
from fluxone.weights.formats import FORMATS, transformer
from fluxone.weights.keymap import Change, claim, native_shapes, packing, plan, recognise, spread
from fluxone.weights.parts import file_parts
from fluxone.weights.save import in_format, save_file
from unit.weights import tiny

NETWORKS: dict[str, list[nn.Module]] = {}


def networks(part: str) -> list[nn.Module]:
    """Two of each: small, of unlike widths and depths."""
    if not NETWORKS:
        torch.manual_seed(3)
        NETWORKS["transformer"] = [
            Flux(tiny.FLUX),
            Flux(FluxShape(in_channels=6, out_channels=6, hidden=30, heads=3, axes=(2, 4, 4), double_blocks=1,
                           single_blocks=12, mlp_ratio=2.5, text_dim=7, vec_dim=5, guided=False)),
        ]  # fmt: skip
        NETWORKS["autoencoder"] = [
            AutoEncoder(AutoEncoderShape(channels=(4, 8, 12), blocks=2, latent=3, groups=2)),
            AutoEncoder(AutoEncoderShape(channels=(6,), blocks=1, latent=5, groups=3)),
        ]
        NETWORKS["t5"] = [
            T5Encoder(tiny.T5),
            T5Encoder(T5Shape(vocab=9, hidden=6, layers=11, heads=1, head_dim=4, mlp=5)),
        ]
        NETWORKS["clip"] = [
            ClipTextEncoder(tiny.CLIP),
            ClipTextEncoder(ClipShape(vocab=9, hidden=6, layers=11, heads=2, mlp=7)),
        ]
    return NETWORKS[part]


CASES = [(name, index) for name in FORMATS for index in (0, 1)]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_there_and_back(name: str, index: int, tmp_path: object) -> None:
    form = FORMATS[name]
    module = networks(form.part)[index]
    state: dict[str, Tensor] = module.state_dict()
    file = tmp_path / "model.safetensors"  # type: ignore[operator]
    save_file(file, in_format(state, form), metadata={})
    (part,) = file_parts(file).values()
    assert part.form is form
    back = load_module(lambda: type(module)(module.shape), part)
    assert back.state_dict().keys() == state.keys()
    for native, tensor in state.items():
        assert torch.equal(back.state_dict()[native], tensor), native


@pytest.mark.parametrize(("name", "index"), CASES)
def test_recognised_by_one_format_and_every_name_used(name: str, index: int) -> None:
    form = FORMATS[name]
    state = networks(form.part)[index].state_dict()
    names = in_format(state, form).keys()
    assert recognise(names, FORMATS.values()) == {form.part: form}
    dealt, left = claim(names, {form.part: form})
    assert not left
    leads = plan(dealt[form.part], form)
    assert not leads.unknown
    assert not leads.incomplete
    assert leads.picks.keys() == state.keys()
    shapes = native_shapes(leads.picks, lambda key: tuple(in_format(state, form)[key].shape))
    assert shapes == {native: tuple(tensor.shape) for native, tensor in state.items()}


def test_the_diffusers_table_has_29_rows_and_uses_each() -> None:
    rows = transformer.DIFFUSERS.rows
    assert len(rows) == 29
    used = {way.names for way in spread(networks("transformer")[0].state_dict(), transformer.DIFFUSERS).values()}
    assert len(used) == len(networks("transformer")[0].state_dict())
    natives = [row.native for row in rows]
    assert len(set(natives)) == len(natives)


def test_fused_weights_are_cut_in_order_and_halves_are_swapped() -> None:
    state = networks("transformer")[1].state_dict()
    out = in_format(state, transformer.DIFFUSERS)
    linear1 = state["single_blocks.11.linear1.weight"]
    assert linear1.shape == (90 + 75, 30)
    pieces = [
        f"single_transformer_blocks.11.{leaf}.weight" for leaf in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    ]
    for piece, (start, stop) in zip(pieces, [(0, 30), (30, 60), (60, 90), (90, 165)], strict=True):
        assert torch.equal(out[piece], linear1[start:stop])
    last = state["final_layer.adaLN_modulation.1.bias"]
    assert torch.equal(out["norm_out.linear.bias"], torch.cat([last[30:], last[:30]]))


def test_the_decoder_counts_its_levels_from_the_other_end() -> None:
    state = networks("autoencoder")[0].state_dict()
    out = in_format(state, FORMATS["diffusers autoencoder"])
    assert out["decoder.up_blocks.0.resnets.1.conv1.weight"] is state["decoder.up.2.block.1.conv1.weight"]
    assert out["encoder.down_blocks.0.resnets.1.conv1.weight"] is state["encoder.down.0.block.1.conv1.weight"]
    assert out["decoder.mid_block.attentions.0.to_q.weight"].shape == (12, 12)


def test_what_belongs_to_nothing_is_told() -> None:
    form = FORMATS["diffusers transformer"]
    names = list(in_format(networks("transformer")[0].state_dict(), form))
    names.remove("transformer_blocks.1.attn.to_k.weight")
    leads = plan([*names, "x_embedder.scale", "transformer_blocks.x.attn.to_q.weight"], form)
    assert leads.unknown == ("x_embedder.scale", "transformer_blocks.x.attn.to_q.weight")
    assert leads.incomplete == ("transformer_blocks.1.attn.to_k.weight",)
    with pytest.raises(BadWeights, match=r"diffusers transformer has no place for double_blocks.0.extra"):
        spread(["double_blocks.0.extra"], form)


def test_two_formats_in_one_file_are_refused() -> None:
    twice = [*FORMATS["bfl transformer"].marks, *FORMATS["diffusers transformer"].marks]
    with pytest.raises(BadWeights, match="both bfl transformer and diffusers transformer"):
        recognise(twice, FORMATS.values())


def test_no_two_formats_share_all_marks() -> None:
    for form in FORMATS.values():
        marked = [form.prefix + mark for mark in form.marks]
        assert [row.name for row in FORMATS.values() if all(row.prefix + mark in marked for mark in row.marks)] == [
            form.name
        ]


@pytest.mark.parametrize("names", [("shared.weight",), ("encoder.embed_tokens.weight",),
                                   ("shared.weight", "encoder.embed_tokens.weight")])  # fmt: skip
def test_t5s_embedding_goes_by_either_name(names: tuple[str, ...]) -> None:
    leads = plan(names, FORMATS["t5"])
    assert {native: way.names[0] for native, way in leads.picks.items()} == {"shared.weight": names[0]}


def test_packed_numbers_are_told() -> None:
    assert packing(["a.weight", "a.qweight"]) == ("Nunchaku's or another 4-bit quantization", "a.qweight")
    assert packing(["scaled_fp8"]) is None, "a marker says only that scales may follow"
    assert packing(["img_in.weight", "img_attn.norm.query_norm.scale"]) is None


def test_changes_are_their_own_inverse() -> None:
    assert {row.change for form in FORMATS.values() for row in form.rows} == set(Change)
    for form in FORMATS.values():
        for row in form.rows:
            assert len(row.other) == 1 or row.change is Change.SAME
