"""The CLIP text encoder alone against transformers', which needs no patch in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from fluxone.nn.clip import ClipTextEncoder
from fluxone.shapes import ClipShape
from fluxone.weights.formats import FORMATS
from fluxone.weights.save import in_format
from parity.equal import agree, scatter

SHAPES = {
    "quick": ClipShape(vocab=99, hidden=24, layers=2, heads=3, mlp=36, positions=33, eos=98),
    "exact": ClipShape(vocab=40, hidden=10, layers=1, heads=1, mlp=13, positions=77, eos=7, activation="gelu"),
    "relu": ClipShape(vocab=40, hidden=12, layers=1, heads=2, mlp=13, positions=22, eos=9, activation="relu"),
    "legacy end": ClipShape(vocab=50, hidden=16, layers=3, heads=4, mlp=20, positions=20, eos=2, eps=1e-3),
}


def ids(shape: ClipShape, batch: int, length: int) -> Tensor:
    """Rows with their end token early, late, first, or nowhere."""
    made = torch.randint(3, 7, (batch, length), generator=torch.Generator().manual_seed(batch))
    end = shape.vocab - 1 if shape.eos == 2 else shape.eos
    for row, place in zip(made, (length // 2, length - 1, 0), strict=False):
        row[place:] = end
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (4, 7), (3, 20)])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_equal_to_transformers(shape: str, batch: int, length: int, dtype: torch.dtype) -> None:
    numbers = SHAPES[shape]
    ours = ClipTextEncoder(numbers)
    scatter(ours)
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=numbers.vocab,
            hidden_size=numbers.hidden,
            intermediate_size=numbers.mlp,
            num_hidden_layers=numbers.layers,
            num_attention_heads=numbers.heads,
            max_position_embeddings=numbers.positions,
            hidden_act=numbers.activation,
            layer_norm_eps=numbers.eps,
            eos_token_id=numbers.eos,
            bos_token_id=1,
        )
    ).eval()
    model.load_state_dict(in_format(ours.state_dict(), FORMATS["clip of transformers 5"]), strict=True)
    model.to(dtype)
    tokens = ids(numbers, batch, length)
    hidden, pooled = ours.to(dtype)(tokens)
    expected = model(tokens)
    agree(hidden, expected.last_hidden_state)
    agree(pooled, expected.pooler_output)
