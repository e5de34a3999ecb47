"""Rotary positions."""

from __future__ import annotations

import pytest
import torch

from fluxone.nn.rope import rotate, rotation
from fluxone.nn.tokens import image_ids, text_ids

AXES = (4, 6, 10)


def test_text_is_not_rotated_and_lengths_are_kept() -> None:
    x = torch.randn(1, 9, 2, 3, 20)
    assert torch.equal(rotate(x, rotation(text_ids(9), AXES, 10000.0)), x)
    turned = rotate(x, rotation(image_ids(3, 3), AXES, 10000.0))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-5)
    assert not torch.allclose(turned[:, 1:], x[:, 1:])


def test_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 20, dtype=torch.float64)

    def product(*places: list[float]) -> torch.Tensor:
        pe = rotation(torch.tensor(places, dtype=torch.float32), AXES, 10000.0)
        a, b = rotate(torch.stack((q, k))[None, :, None, None], pe)[0, :, 0, 0]
        return a @ b

    near, far = product([0, 2, 3], [0, 7, 4]), product([1, 802, 603], [1, 807, 604])
    assert abs(near - far) < 1e-4 * q.norm() * k.norm()
    assert abs(near - product([0, 2, 3], [0, 7, 5])) > 1e-3


def test_positions_beyond_256_differ_whatever_the_default_type() -> None:
    pe = rotation(image_ids(600, 1), AXES, 10000.0)
    assert pe.turns.dtype == torch.float32
    assert len(torch.unique(pe.turns.flatten(1), dim=0)) == 600


def test_real_arithmetic_for_the_compiler_is_the_complex_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 6, 2, 3, 20)
    for ids in (image_ids(2, 3), image_ids(2, 3).expand(2, -1, -1)):
        pe = rotation(ids, AXES, 10000.0)
        complex_way = rotate(x, pe)
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            assert torch.allclose(rotate(x, pe), complex_way, atol=1e-6)
