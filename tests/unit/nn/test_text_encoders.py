"""What T5 and CLIP promise besides parity: their sizes, and what padding does."""

from __future__ import annotations

import pytest
import torch

from fluxone.errors import UnknownName
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.shapes import ClipShape, T5Shape

CLIP = ClipShape(vocab=20, hidden=8, layers=2, heads=2, mlp=12, positions=16, eos=19)


def test_published_sizes() -> None:
    with torch.device("meta"):
        t5, clip = T5Encoder(T5Shape()), ClipTextEncoder(ClipShape())
    assert sum(value.numel() for value in t5.parameters()) == 4_762_310_656
    assert sum(value.numel() for value in clip.parameters()) == 123_060_480


@torch.no_grad()
def test_padding_attends_in_t5() -> None:
    torch.manual_seed(0)
    t5 = T5Encoder(T5Shape(vocab=20, hidden=8, layers=2, heads=2, head_dim=4, mlp=12))
    short, long = t5(torch.tensor([[5, 6, 1, 0]])), t5(torch.tensor([[5, 6, 1, 0, 0, 0, 0, 0]]))
    assert (short - long[:, :4]).abs().max() > 1e-3


@torch.no_grad()
def test_padding_does_not_change_clips_pooled_state() -> None:
    torch.manual_seed(0)
    clip = ClipTextEncoder(CLIP)
    ends_early = torch.tensor([[1, 5, 19, 19, 19, 19], [1, 5, 19, 7, 8, 9]])
    hidden, pooled = clip(ends_early)
    assert torch.allclose(pooled[0], pooled[1], atol=1e-6)
    assert torch.allclose(pooled, clip(ends_early[:, :3])[1], atol=1e-6)
    assert torch.equal(pooled, hidden[:, 2])


def test_unknown_activation_is_named() -> None:
    with pytest.raises(UnknownName, match="quick_gelu"):
        ClipTextEncoder(ClipShape(activation="quick_gel", layers=1))


def test_both_train_under_autocast() -> None:
    ids = torch.tensor([[1, 5, 19, 19]])
    for model in (T5Encoder(T5Shape(vocab=20, hidden=8, layers=1, heads=2, head_dim=4, mlp=12)), ClipTextEncoder(CLIP)):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(ids)
        (out if isinstance(out, torch.Tensor) else out[1]).float().square().sum().backward()
        unused = {
            "text_model.encoder.layers.1.self_attn.k_proj.bias",
            "text_model.encoder.layers.0.self_attn.k_proj.bias",
        }
        for name, value in model.named_parameters():
            assert value.grad is not None and value.grad.isfinite().all(), name
            assert name in unused or value.grad.abs().max() > 0, name
