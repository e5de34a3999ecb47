"""Packing into tokens and the positions of tokens."""

from __future__ import annotations

import einops
import pytest
import torch

from fluxone.nn.tokens import image_ids, pack, text_ids, unpack


@pytest.mark.parametrize(("rows", "columns", "channels"), [(1, 1, 16), (3, 5, 16), (4, 2, 3)])
def test_pack_is_the_published_order_and_unpack_its_inverse(rows: int, columns: int, channels: int) -> None:
    latent = torch.randn(2, channels, 2 * rows, 2 * columns)
    tokens = pack(latent)
    assert torch.equal(tokens, einops.rearrange(latent, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2))
    assert torch.equal(unpack(tokens, rows, columns), latent)


def test_ids_are_index_row_column_in_the_order_of_tokens() -> None:
    assert image_ids(2, 3, index=1).tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 2], [1, 1, 0], [1, 1, 1], [1, 1, 2]]
    assert image_ids(300, 1)[-1].tolist() == [0, 299, 0]
    assert text_ids(2).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert image_ids(1, 1).dtype == text_ids(1).dtype == torch.float32
