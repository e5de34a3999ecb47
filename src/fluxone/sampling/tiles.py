"""A large picture in tiles that the network can take one by one: their velocities, blended at every step.

    grid of tokens  --windows, elsewhere at each noise level-->  tiles  --velocity-->  sum of w * v / sum of w

The weights `w` fall to 0 towards a tile's border, and the borders are never twice in the same place: no seam can build
up. Memory is that of one tile and three copies of the state. A tile knows its own positions, from the origin on.

Source: Bar-Tal et al. 2023, "MultiDiffusion", arXiv 2302.08113 (the blending); the moving windows are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fluxone.nn.tokens import pack, unpack
from fluxone.sampling.samplers import State, Velocity

Grid = tuple[int, int]  # rows and columns of tokens
COARSE = 2  # cells each way: what a picture that was enlarged to twice its size can show
OVERLAP = 4  # neighbours share at least a quarter of a tile
# Shares of a stride by which rows and columns move on at each level: no two near levels have the same borders.
# Source: Roberts 2018, the generalised golden ratio of two dimensions.
MOVES = (0.7548776662466927, 0.5698402909980532)


def starts(length: int, tile: int, share: float) -> list[int]:
    """Where windows of `tile` begin that cover `length` between them, moved by a share (0..1) of their stride."""
    if tile >= length:
        return [0]
    stride = max(1, tile - tile // OVERLAP)
    moved = round(share * stride)
    places = range(-moved, length - tile + stride, stride)
    return sorted({min(max(place, 0), length - tile) for place in places})


def windows(grid: Grid, tile: Grid, index: int) -> list[tuple[int, int]]:
    """The first row and column of every window at the noise level with this number."""
    rows, columns = (
        starts(length, side, (index * move) % 1) for length, side, move in zip(grid, tile, MOVES, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def weights(tile: Grid) -> Float[Tensor, "h w"]:
    """How much each token of a tile counts: a squared sine each way, 0 beyond the border."""
    rows, columns = (torch.sin(math.pi * (torch.arange(side) + 0.5) / side) ** 2 for side in tile)
    return rows[:, None] * columns


def tiled(
    velocity: Velocity,
    grid: Grid,
    tile: Grid,
    levels: Sequence[float],
    looking: Callable[[Tensor | None], None] = lambda kept: None,
) -> Velocity:
    """The velocity of a picture of `grid` tokens by that of its tiles.

    Args:
        velocity: of one tile.
        tile: rows and columns of a tile, at most those of the grid; a tile that covers all is asked alone.
        levels: noise levels, in the order of the walk; others are served too, by the place of the nearest.
        looking: told the numbers of the tokens of each tile before it is asked for, and None at the end.
    """
    side = (min(tile[0], grid[0]), min(tile[1], grid[1]))
    if side == grid:
        return velocity
    share = weights(side)
    numbers = torch.arange(grid[0] * grid[1]).reshape(grid)

    def at(x: State, sigma: float) -> State:
        index = min(range(len(levels)), key=lambda i: abs(levels[i] - sigma))
        total, sums = torch.zeros_like(x), torch.zeros(grid[0] * grid[1], device=x.device)
        counted = share.flatten().to(x.device)
        try:
            for row, column in windows(grid, side, index):
                kept = numbers[row : row + side[0], column : column + side[1]].flatten().to(x.device)
                looking(kept)
                total[:, kept] += counted[:, None] * velocity(x[:, kept], sigma)
                sums[kept] += counted
        finally:
            looking(None)
        return total / sums[:, None]

    return at


def anchored(velocity: Velocity, picture: State, grid: Grid) -> Velocity:
    """The velocity of a walk that keeps to what an enlarged picture shows, and adds what it is too coarse to show.

    What the network would draw, x - sigma * v, gets the picture's own values back in the mean of any `COARSE` cells
    each way. Else a tile that is told of the whole picture draws the whole picture into itself.

    Args:
        picture: its latent, as tokens.
    """

    def at(x: State, sigma: float) -> State:
        v = velocity(x, sigma)
        gap = unpack(picture.to(x.device) - (x - sigma * v), *grid)
        coarse = F.interpolate(F.avg_pool2d(gap, COARSE), scale_factor=COARSE, mode="bilinear")
        return v - pack(coarse) / sigma

    return at
