"""Blocks that are computed twice: on the way back each runs again from what it was given, which is all that is kept."""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint

from fluxone.nn.transformer import Flux


def recomputed(network: Flux) -> None:
    """Make all blocks of a network so. Without gradients nothing changes."""
    for block in (*network.double_blocks, *network.single_blocks):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
