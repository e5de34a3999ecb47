"""The T5 encoder alone against transformers'.

transformers takes the mean square of its norm in float32 whatever the model's type; in float64 that cast alone
is 1e-7, so there it is taken out of the oracle (`widened`) and all else is left as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5EncoderModel
from transformers.models.t5 import modeling_t5

from fluxone.nn.t5 import TIED, T5Encoder, buckets
from fluxone.shapes import T5Shape
from fluxone.weights import configs
from parity.equal import agree, scatter

SHAPES = {
    "usual buckets": T5Shape(vocab=99, hidden=24, layers=3, heads=3, head_dim=10, mlp=40),
    "few buckets": T5Shape(vocab=31, hidden=10, layers=1, heads=2, head_dim=3, mlp=7, buckets=8, max_distance=20),
    "one head": T5Shape(vocab=17, hidden=16, layers=2, heads=1, head_dim=16, mlp=24, eps=1e-3),
}
USUAL = SHAPES["usual buckets"]
FORWARDS = {  # feed_forward_proj -> our fields
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "silu": ("silu", False),
    "gated-gelu": ("gelu_new", True),
    "gated-relu": ("relu", True),
    "gated-silu": ("silu", True),
}
LENGTHS = {"one token": (1, 1), "odd": (3, 13), "usual": (2, 64), "far": (1, 300)}  # batch, tokens


def oracle(shape: T5Shape, ours: T5Encoder) -> Any:
    model = T5EncoderModel(
        T5Config(
            vocab_size=shape.vocab,
            d_model=shape.hidden,
            d_kv=shape.head_dim,
            d_ff=shape.mlp,
            num_layers=shape.layers,
            num_heads=shape.heads,
            relative_attention_num_buckets=shape.buckets,
            relative_attention_max_distance=shape.max_distance,
            layer_norm_epsilon=shape.eps,
            feed_forward_proj=configs.write_t5(shape)["feed_forward_proj"],
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    named = ours.state_dict()
    named |= {other: named[name] for other, name in TIED.items()}
    model.load_state_dict(named, strict=True)
    return model.eval()


@pytest.fixture
def widened(monkeypatch: pytest.MonkeyPatch) -> None:
    def normalise(norm: Any, x: Tensor) -> Tensor:
        return norm.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon))

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", normalise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_equal_to_transformers(shape: str, length: str, dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    ours = T5Encoder(SHAPES[shape])
    scatter(ours)
    model = oracle(SHAPES[shape], ours).to(dtype)
    if dtype == torch.float64:
        request.getfixturevalue("widened")
    ids = torch.randint(SHAPES[shape].vocab, LENGTHS[length], generator=torch.Generator().manual_seed(1))
    agree(ours.to(dtype)(ids), model(ids).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("forward", FORWARDS)
@torch.no_grad()
def test_every_kind_of_feed_forward(forward: str, dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    activation, gated = FORWARDS[forward]
    shape = replace(USUAL, activation=activation, gated=gated)
    assert configs.write_t5(shape)["feed_forward_proj"] == forward
    ours = T5Encoder(shape)
    scatter(ours)
    model = oracle(shape, ours).to(dtype)
    assert configs.read_t5(model.config.to_dict(), "here") == shape
    if dtype == torch.float64:
        request.getfixturevalue("widened")
    ids = torch.randint(shape.vocab, (2, 9), generator=torch.Generator().manual_seed(2))
    agree(ours.to(dtype)(ids), model(ids).last_hidden_state)


@pytest.mark.parametrize(("count", "far"), [(32, 128), (8, 20), (16, 9)])
def test_buckets_are_transformers(count: int, far: int) -> None:
    place = torch.arange(600)
    expected = modeling_t5.T5Attention._relative_position_bucket(
        place[None] - place[:, None], bidirectional=True, num_buckets=count, max_distance=far
    )
    assert torch.equal(buckets(600, count, far), expected)
