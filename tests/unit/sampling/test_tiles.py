"""Tiles: they cover everything, one that covers all changes nothing, and their borders leave no trace."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fluxone.nn.tokens import pack, unpack
from fluxone.sampling.tiles import anchored, starts, tiled, weights, windows

LEVELS = [0.9, 0.6, 0.3, 0.0]


@pytest.mark.parametrize(("length", "tile"), [(16, 8), (17, 8), (9, 8), (8, 8), (5, 8), (40, 6), (128, 64), (7, 1)])
def test_windows_cover_everything_wherever_they_begin(length: int, tile: int) -> None:
    for share in (0.0, 0.2, 0.5, 0.99):
        found = starts(length, tile, share)
        assert found == sorted(set(found)) and found[0] == 0 and found[-1] == max(0, length - tile)
        assert all(after - before < max(tile, 2) for before, after in pairwise(found))
        assert len(found) <= length // max(1, tile - tile // 4) + 2


def test_borders_move_at_every_level() -> None:
    inner = [{row for row, _ in windows((64, 64), (32, 32), index)} - {0, 32} for index in range(12)]
    assert all(not before & after for before, after in pairwise(inner))
    assert windows((64, 48), (32, 48), 3) == [(row, 0) for row, _ in windows((64, 48), (32, 48), 3)]


def test_a_tile_that_covers_all_is_the_network_itself() -> None:
    def velocity(x: Tensor, sigma: float) -> Tensor:
        return x * sigma

    assert tiled(velocity, (4, 6), (4, 6), LEVELS) is velocity
    assert tiled(velocity, (4, 6), (9, 9), LEVELS) is velocity


def test_what_knows_no_neighbours_is_the_same_in_tiles() -> None:
    x = torch.randn(2, 20 * 14, 8)
    told: list[Tensor | None] = []
    at = tiled(lambda x, sigma: x.tanh() * sigma, (20, 14), (8, 8), LEVELS, told.append)
    for sigma in LEVELS[:3]:
        assert torch.allclose(at(x, sigma), x.tanh() * sigma, atol=1e-5)
    assert told[-1] is None and all(kept is None or len(kept) == 64 for kept in told)
    covered = torch.cat([kept for kept in told if kept is not None]).unique()
    assert len(covered) == 20 * 14


def test_no_seam_where_tiles_disagree() -> None:
    """Every tile draws another constant: jumps at its borders must not exceed the slope of the blending elsewhere."""
    grid, tile, count = (48, 48), (16, 16), iter(range(10**6))

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return torch.full_like(x, float(next(count) % 7))

    levels = [1 - i / 20 for i in range(21)]
    at = tiled(velocity, grid, tile, levels)
    once = at(torch.zeros(1, 48 * 48, 4), levels[0]).reshape(48, 48, 4)[..., 0]
    steps = (once[:, 1:] - once[:, :-1]).abs()
    edges = {column for _, column in windows(grid, tile, 0)} | {column + 16 for _, column in windows(grid, tile, 0)}
    at_edges = steps[:, [edge - 1 for edge in sorted(edges) if 0 < edge < 48]]
    assert at_edges.mean() <= steps.mean() * 1.1, "a border is no steeper than the rest"
    walked = sum(at(torch.zeros(1, 48 * 48, 4), sigma) for sigma in levels[:20]).reshape(48, 48, 4)[..., 0] / 20
    columns = (walked[:, 1:] - walked[:, :-1]).abs().mean(0)
    assert columns.max() < 4 * columns.mean(), "and over the steps no line stands out"


def test_weights_fall_to_the_border_and_are_the_same_both_ways() -> None:
    found = weights((8, 6))
    assert torch.allclose(found, found.flip(0)) and torch.allclose(found, found.flip(1))
    assert found.min() > 0 and torch.isclose(found[4, 3], found.max())


def test_an_anchored_walk_keeps_what_the_picture_shows() -> None:
    grid = (6, 4)
    picture, x = pack(torch.randn(1, 4, 12, 8)), pack(torch.randn(1, 4, 12, 8))
    at = anchored(lambda x, sigma: torch.ones_like(x), picture, grid)

    def coarse(tokens: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(unpack(tokens, *grid), 4)

    for sigma in (0.9, 0.1):
        free, kept = x - sigma * torch.ones_like(x), x - sigma * at(x, sigma)
        assert (coarse(kept) - coarse(picture)).abs().mean() < 0.5 * (coarse(free) - coarse(picture)).abs().mean()
    same = anchored(lambda x, sigma: (x - picture) / sigma, picture, grid)
    assert torch.allclose(same(x, 0.5), (x - picture) / 0.5, atol=1e-5), "who draws the picture itself is left alone"
