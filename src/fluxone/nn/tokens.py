"""Latents to tokens and back: each token is a square of 2x2 cells.

    latent (B C h w)  --pack-->  tokens (B L 4C), L = h/2 * w/2 row by row  --unpack-->  latent

Source: black-forest-labs/flux, `sampling.py`: "b c (h ph) (w pw) -> b (h w) (c ph pw)".
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SIDE = 2  # cells a token, each way


def pack(latent: Float[Tensor, "B C h w"]) -> Float[Tensor, "B L 4*C"]:
    """Return the tokens of a latent whose sides are even."""
    batch, channels, height, width = latent.shape
    rows, columns = height // SIDE, width // SIDE
    cells = latent.reshape(batch, channels, rows, SIDE, columns, SIDE)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * SIDE**2)


def unpack(tokens: Float[Tensor, "B L K"], rows: int, columns: int) -> Float[Tensor, "B C h w"]:
    """Return the latent of `rows` x `columns` tokens."""
    batch, _, channels = tokens.shape
    cells = tokens.reshape(batch, rows, columns, channels // SIDE**2, SIDE, SIDE)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // SIDE**2, rows * SIDE, columns * SIDE)


def image_ids(rows: int, columns: int, index: int = 0) -> Float[Tensor, "L 3"]:
    """Return (index, row, column) of every token; `index` is 0 for the picture itself, 1 for a reference."""
    ids = torch.zeros(rows, columns, 3)
    ids[..., 0] = index
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(columns)
    return ids.reshape(rows * columns, 3)


def text_ids(length: int) -> Float[Tensor, "T 3"]:
    """Return the positions of text tokens: all zero, so that text is not rotated."""
    return torch.zeros(length, 3)
